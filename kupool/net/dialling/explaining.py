"""Explain in plain words why a server cannot be reached or is the wrong one."""

from __future__ import annotations

import os

from twisted.internet import error as errors
from twisted.internet.defer import TimeoutError as TimedOut

#: Texts of connection errors that give no reason.
ENDS = (errors.ConnectionDone, errors.ConnectionLost)

#: OpenSSL's errors when the other side does not speak TLS.
_NO_TLS = (
    "wrong version number",
    "packet length too long",
    "record layer failure",
    "unknown protocol",
    "http request",
)

#: The framings that never begin like HTTP, TLS or a line.
_KNOWN = frozenset(("frame", "int32", "line"))


def explained(error: BaseException) -> str:
    """Return why an attempt failed or a connection ended, for a person."""
    if isinstance(error, errors.ConnectionDone):
        return "the server ended the connection"
    if isinstance(error, errors.ConnectionLost):
        return "the connection was lost"
    if isinstance(error, errors.ConnectionRefusedError):
        return "connection refused: nothing listens on this port"
    if isinstance(error, errors.DNSLookupError):
        return "the name of this host is not known (DNS)"
    if isinstance(error, errors.NoRouteError):
        return "no route to this host"
    if isinstance(error, errors.TimeoutError | errors.TCPTimedOutError | TimedOut):
        return "no connection in time"
    if isinstance(error, errors.ConnectError) and isinstance(error.osError, int):
        return f"cannot connect: {os.strerror(error.osError)}"
    if type(error).__module__.startswith("OpenSSL"):
        return _tls(error)
    return str(error).rstrip(".") or type(error).__name__


def _tls(error: BaseException) -> str:
    found = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = ", ".join(str(entry[-1]) for entry in found if entry) or "no reason given"
    if any(sign in reasons for sign in _NO_TLS):
        return "the server does not speak TLS on this port; connect without tls:"
    if "certificate verify failed" in reasons:
        return "the certificate of the server is not trusted, or is not for this host name"
    return f"TLS failed: {reasons}"


def stranger(framing: str, data: bytes) -> str:
    """Return what a server speaks instead of ``framing``, by its first bytes; empty if unknown."""
    if framing not in _KNOWN:
        return ""
    if data.startswith(b"HTTP/"):
        return "this port speaks HTTP; connect to the port of the pool"
    if data[:2] == b"\x15\x03":
        return "this port speaks TLS; connect with tls:HOST:PORT"
    if framing != "line" and data.startswith(b'{"'):
        return "this port speaks the framing line"
    return ""


__all__ = ["ENDS", "explained", "stranger"]
