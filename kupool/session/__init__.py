"""One conversation with a peer, whichever side began it."""
