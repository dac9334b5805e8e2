"""What can go wrong with a client of one's own, by name."""

from __future__ import annotations


class ClientFailure(Exception):
    """The base of what a client reports, beside the errors that a server answers."""


class NotConnected(ClientFailure):
    """There is no connection now."""

    def __init__(self) -> None:
        super().__init__("client is not connected")


class ClientClosed(ClientFailure):
    """The client was closed before this was done."""

    def __init__(self) -> None:
        super().__init__("client was closed")


class Unreachable(ClientFailure):
    """No connection could be made, or the server wants this client no more."""

    def __init__(self, attempts: int, reason: str) -> None:
        super().__init__(f"no connection after {attempts} failed attempts: {reason}")
        self.reason = reason


class ConnectionEnded(ClientFailure):
    """The connection ended before the answer; whether the request was handled is not known."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection ended: {reason}")
        self.reason = reason


class RequestTimeout(ClientFailure):
    """No answer came in time; one that comes later is counted and ignored."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s")


class TooManyRequests(ClientFailure):
    """As many requests wait for their answers as the settings allow."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} requests wait for their answers")


class SlowServer(ClientFailure):
    """The server does not read, and as much waits for it as the settings allow."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} bytes wait for a server that does not read")
        self.waiting = waiting


__all__ = [
    "ClientClosed",
    "ClientFailure",
    "ConnectionEnded",
    "NotConnected",
    "RequestTimeout",
    "SlowServer",
    "TooManyRequests",
    "Unreachable",
]
