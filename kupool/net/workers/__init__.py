"""Handlers in threads and processes, and the queues before them."""
