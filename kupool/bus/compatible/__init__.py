"""The bus for clients of its predecessor, with the predecessor's wire format."""
