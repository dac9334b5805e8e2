"""The bus over a network: the same core behind a server, and a client of the same interface."""
