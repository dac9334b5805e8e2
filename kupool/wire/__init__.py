"""Bytes to messages and back. No reactor, no I/O: everything here is sans-IO."""
