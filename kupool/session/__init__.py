"""Sessions: one connection with a peer, opened by either side."""
