"""TCP keepalive for connections whose peers may be silent for any time."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import ITCPTransport

#: Number of keepalive probes before the connection is ended.
PROBES = 4

#: The largest values of the socket options below.
MOST_SECONDS = 32_767
MOST_MILLISECONDS = 2**31 - 1

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

#: TCP options that not every system has.
_IDLE = getattr(socket, "TCP_KEEPIDLE", None)
_INTERVAL = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT = getattr(socket, "TCP_KEEPCNT", None)
_UNACKNOWLEDGED = getattr(socket, "TCP_USER_TIMEOUT", None)


def end_when_gone(transport: Any, seconds: float) -> None:
    """Let the system end a connection whose peer's machine no longer answers.

    That happens ``seconds`` after its last answer, as exactly as the system allows. With 0
    the system's own defaults apply. Does nothing on a transport that is not TCP.
    """
    if not ITCPTransport.providedBy(transport):
        return
    transport.setTcpKeepAlive(True)
    handle = getattr(transport, "getHandle", lambda: None)()
    if not seconds or not isinstance(handle, socket.socket) or handle.family not in _FAMILIES:
        return  # behind a proxy it may be a Unix socket
    step = min(max(1, round(seconds / (PROBES + 1))), MOST_SECONDS)
    for option, value in (
        (_IDLE, step),
        (_INTERVAL, step),
        (_COUNT, PROBES),
        (_UNACKNOWLEDGED, min(round(seconds * 1000), MOST_MILLISECONDS)),
    ):
        if option is not None:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)


__all__ = ["MOST_MILLISECONDS", "MOST_SECONDS", "PROBES", "end_when_gone"]
