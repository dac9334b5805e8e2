"""Twisted transports: ports that listen, sockets that are read, and protocols on them."""
