"""What can go wrong with a client of one's own, by name."""

from __future__ import annotations


class ClientFailure(Exception):
    """The base of what a client reports, beside the errors that a server answers."""


class NotConnected(ClientFailure):
    """There is no connection now."""

    def __init__(self) -> None:
        ClientFailure.__init__(self, "client is not connected")


class ClientClosed(ClientFailure):
    """The client was closed before this was done."""

    def __init__(self) -> None:
        super().__init__("client was closed")


class Unreachable(ClientFailure):
    """No connection could be made in as many attempts as the settings allow."""

    def __init__(self, attempts: int, reason: str) -> None:
        ClientFailure.__init__(self, f"no connection after {attempts} failed attempts: {reason}")
        self.reason = reason


class NotWanted(NotConnected, Unreachable):
    """The server wants this client no more, which does not come back by itself.

    ``code`` is the code of the close, None where none is known.
    """

    def __init__(self, server: str, reason: str, code: int | None) -> None:
        number = "" if code is None else f" ({code})"
        ClientFailure.__init__(self, f"{server} ended the session: {reason}{number}")
        self.reason = reason
        self.code = code


class HookFailed(ClientFailure):
    """What is done first on a new connection raised what is no exception of a program's."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the hook of a new connection raised {what}")


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
    "HookFailed",
    "NotConnected",
    "NotWanted",
    "RequestTimeout",
    "SlowServer",
    "TooManyRequests",
    "Unreachable",
]
