"""What can go wrong with a client, by name."""

from __future__ import annotations


class ClientError(Exception):
    """The base of every error that a client reports; its text is for people."""


class AlreadyConnected(ClientError):
    """``connect`` was called on a client that is connected, or about to be."""

    def __init__(self) -> None:
        super().__init__("client has connected")


class PoolNotConnected(ClientError):
    """Something needs a client that has been told to connect."""

    def __init__(self) -> None:
        super().__init__("client is not connected")


class PoolClientClosed(ClientError):
    """The client was closed before this was done."""

    def __init__(self) -> None:
        super().__init__("client was closed")


class NotAuthorized(ClientError):
    """The server refused ``authorize``; ``reason`` is what it answered."""

    def __init__(self, username: str, server: str, reason: str) -> None:
        super().__init__(f"cannot authorize as {username} on {server}: {reason}")
        self.reason = reason


class SessionRefused(ClientError):
    """The server closed the session and wants nobody back; ``code`` is its close code."""

    def __init__(self, server: str, reason: str, code: int | None) -> None:
        number = "" if code is None else f" ({code})"
        super().__init__(f"{server} ended the session: {reason}{number}")
        self.reason = reason
        self.code = code


class PoolUnreachable(ClientError):
    """No server could be reached in as many attempts as the settings allow."""

    def __init__(self, attempts: int, reason: str) -> None:
        super().__init__(f"no server could be reached in {attempts} attempts: {reason}")


class TooManyUnanswered(ClientError):
    """As many submissions are unanswered as the settings allow."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} submissions are unanswered; wait for answers before more")
