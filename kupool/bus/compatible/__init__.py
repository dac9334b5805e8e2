"""The bus for clients of its predecessor, by the bytes that they know."""
