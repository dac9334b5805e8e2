"""The side that connects, and comes back."""
