"""The exceptions of clients."""

from __future__ import annotations


class ClientFailure(Exception):
    """The base of a client's exceptions, except for errors that a server answers."""


class NotConnected(ClientFailure):
    """No connection is open."""

    def __init__(self) -> None:
        ClientFailure.__init__(self, "client is not connected")


class ClientClosed(ClientFailure):
    """The client was closed before this was done."""

    def __init__(self) -> None:
        super().__init__("client was closed")


class Unreachable(ClientFailure):
    """No connection was made in the number of attempts that the settings allow."""

    def __init__(self, attempts: int, reason: str) -> None:
        ClientFailure.__init__(self, f"no connection after {attempts} failed attempts: {reason}")
        self.reason = reason


class NotWanted(NotConnected, Unreachable):
    """The server refused this client for good: it does not reconnect by itself.

    ``code`` is the close code, or None if it is unknown.
    """

    def __init__(self, server: str, reason: str, code: int | None) -> None:
        number = "" if code is None else f" ({code})"
        ClientFailure.__init__(self, f"{server} ended the session: {reason}{number}")
        self.reason = reason
        self.code = code


class HookFailed(ClientFailure):
    """The hook of a new connection raised an exception such as SystemExit."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the hook of a new connection raised {what}")


class ConnectionEnded(ClientFailure):
    """The connection ended before the answer; whether the request was handled is unknown."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection ended: {reason}")
        self.reason = reason


class RequestTimeout(ClientFailure):
    """No answer arrived in time; a later answer is counted and ignored."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s")


class UnreadableAnswer(ClientFailure):
    """The server's answer is not what the request asks for; the text says what is wrong."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"an answer that cannot be read: {problem}")


class TooManyRequests(ClientFailure):
    """The settings allow no more pending requests."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} requests are waiting for their answers")


class SlowServer(ClientFailure):
    """The server does not read, and the outbound buffer is full."""

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
    "UnreadableAnswer",
]
