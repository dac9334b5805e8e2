"""The routes that read the topic of events: sessions that have ended, and the audit trail.

- ``GET /api/sessions/ended``, with any of ``user``, ``worker``, ``reason`` (a part of it),
  ``from``, ``to``, ``limit``, ``before``: ``sessions``, the newest first, and ``next``.
- ``GET /api/audit``, with ``limit`` and ``before``: ``entries``, the newest first, and ``next``.

``next`` is the ``before`` of the next part, and null at the end. A part may have fewer entries than
``limit`` although there are more: one request looks at so many events at most.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from twisted.web.server import Request

from kupool.activity.past import PastEvent, PastPage, PastUnavailable, PastWanted
from kupool.web.answers import ApiError
from kupool.web.lists import end_of, limit_of, moment, own_user, parameters, start_of
from kupool.wire.messages import split_username

if TYPE_CHECKING:
    from kupool.activity.past_events import PastEvents

#: What is said where the daemon writes no events.
NO_EVENTS = (
    "not found: the daemon writes no events: it needs topics other than off, and --events=on"
)

_OFFSET = re.compile(r"[0-9]{1,18}", re.ASCII)


class PastPages:
    """Answers the routes; ``past`` is None where the daemon writes no events.

    ``closed`` and ``admin`` are the types of the events.
    """

    def __init__(self, past: PastEvents | None, *, closed: str, admin: str) -> None:
        self._past = past
        self._closed = closed
        self._admin = admin

    async def ended(self, request: Request) -> object:
        """``GET /api/sessions/ended``: the sessions that have ended."""
        given = parameters(request, ("user", "worker", "reason", "from", "to", "limit", "before"))
        user, worker = own_user(request, given.get("user")), given.get("worker")
        reason = given.get("reason", "").casefold()
        start, end = start_of(given), end_of(given)
        if end is not None and start >= end:
            raise ApiError(400, "from: must be before to")

        def match(event: PastEvent) -> bool:
            found = split_username(str(event.get("username", "")))
            return (
                user in (None, found[0])
                and worker in (None, found[1])
                and reason in str(event.get("reason", "")).casefold()
            )

        wanted = PastWanted(self._closed, match, start, end, _before(given))
        page = await self._read(wanted, limit_of(given))
        return {"sessions": [_ended(event) for event in page.events], "next": _next(page)}

    async def audit(self, request: Request) -> object:
        """``GET /api/audit``: who changed what by HTTP."""
        given = parameters(request, ("limit", "before"))
        wanted = PastWanted(self._admin, before=_before(given))
        page = await self._read(wanted, limit_of(given))
        return {"entries": [_entry(event) for event in page.events], "next": _next(page)}

    async def _read(self, wanted: PastWanted, limit: int) -> PastPage:
        if self._past is None:
            raise ApiError(404, NO_EVENTS)
        try:
            return await self._past.read(wanted, limit)
        except PastUnavailable as error:
            raise ApiError(503, f"the topic events cannot be read: {error}") from None


def _before(given: Mapping[str, str]) -> int | None:
    text = given.get("before")
    if text is None:
        return None
    if not _OFFSET.fullmatch(text):
        raise ApiError(400, "before: must be the next of an earlier answer")
    return int(text)


def _next(page: PastPage) -> str | None:
    return None if page.following is None else str(page.following)


def _ended(event: PastEvent) -> dict[str, object]:
    since = event.get("since")
    return {
        "session": event.get("session"),
        "username": event.get("username"),
        "peer": event.get("peer"),
        "since": moment(since / 1000) if isinstance(since, int) else None,
        "until": moment(event["at"] / 1000),
        "reason": event.get("reason"),
    }


def _entry(event: PastEvent) -> dict[str, object]:
    entry = {name: event.get(name) for name in ("by", "peer", "action", "what", "ok")}
    if "error" in event:
        entry["error"] = event["error"]
    return {"at": moment(event["at"] / 1000), **entry}


__all__ = ["NO_EVENTS", "PastPages"]
