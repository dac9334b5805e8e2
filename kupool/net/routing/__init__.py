"""Routing: find the handler of a message, and turn its result into an answer."""
