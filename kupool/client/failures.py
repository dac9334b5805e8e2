"""The exceptions of the pool client."""

from __future__ import annotations


class ClientError(Exception):
    """The base of every exception of the pool client; its text is for people."""


class AlreadyConnected(ClientError):
    """``connect`` was called on a client that has already started."""

    def __init__(self) -> None:
        super().__init__("client has connected")


class PoolNotConnected(ClientError):
    """The client was not told to connect yet."""

    def __init__(self) -> None:
        super().__init__("client is not connected")


class PoolClientClosed(ClientError):
    """The client was closed before this was done."""

    def __init__(self) -> None:
        super().__init__("client was closed")


class NotAuthorized(ClientError):
    """The server refused ``authorize``; ``reason`` is its answer."""

    def __init__(self, username: str, server: str, reason: str) -> None:
        super().__init__(f"cannot authorize as {username} on {server}: {reason}")
        self.reason = reason


class SessionRefused(ClientError):
    """The server closed the session for good; ``code`` is its close code."""

    def __init__(self, server: str, reason: str, code: int | None) -> None:
        number = "" if code is None else f" ({code})"
        super().__init__(f"{server} ended the session: {reason}{number}")
        self.reason = reason
        self.code = code


class PoolUnreachable(ClientError):
    """No server was reached in the number of attempts that the settings allow."""

    def __init__(self, attempts: int, reason: str) -> None:
        super().__init__(f"no server could be reached in {attempts} attempts: {reason}")


class TooManyUnanswered(ClientError):
    """The settings allow no more unanswered submissions."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} submissions are unanswered; wait for answers before more")
