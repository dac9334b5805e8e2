"""What clients do and did: who is connected, what they asked, and how their sessions ended."""
