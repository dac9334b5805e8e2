"""Exceptions for requests that rooms refuse."""

from __future__ import annotations

from kupool.errors import NOT_FOUND, TOO_MANY_REQUESTS, RequestError


class RoomBusy(RequestError):
    """A limit is reached: too much waits, or too many exist."""

    def __init__(self, what: str) -> None:
        super().__init__(TOO_MANY_REQUESTS.about(what))


class RoomGone(RequestError):
    """The room is closing or closed, or the sender is not a member of it any more."""

    def __init__(self, code: str) -> None:
        super().__init__(NOT_FOUND.about(f"room {code}"))


__all__ = ["RoomBusy", "RoomGone"]
