"""The bus over a network: a server for a broker, and a client with the same interface."""
