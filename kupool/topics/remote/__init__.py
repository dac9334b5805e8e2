"""Topics and groups of a server: producers, consumers and administration over a connection."""
