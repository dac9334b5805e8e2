"""Twisted transports, listening ports and protocols of the server."""
