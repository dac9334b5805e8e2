"""The route ``/api/trace``: the way of one submission, from its connection to those who were told.

- ``GET /api/trace?id=BATCH/N``: ``id``, ``username``, ``session``, ``peer``, ``job_id``,
  ``client_nonce``, ``at``, ``batch``, ``offset`` (that in the topic ``submissions``), ``minute``,
  ``counted``, and ``steps`` [{``name``, ``at``, ``text``}]; ``at`` of a step is null where nobody
  noted it. ``session`` and ``peer`` are null where the log does not have them.
- ``GET /api/trace?user=alice&at=T``, with ``limit``; the user may have a worker, as ``alice.rig1``:
  ``user``, ``minute``, ``submissions`` of that minute, newest first, ``left_out`` (older ones), and
  ``complete``, false if the minute was too large to be searched to its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from twisted.web.server import Request

from kupool.stats import IStatsStore
from kupool.stats.history import CountedBatch
from kupool.web.answers import ApiError
from kupool.web.history import own_user
from kupool.web.logged import LoggedBatch, LoggedSubmissions
from kupool.web.queries import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MINUTE,
    parse_number,
    parse_time,
    show_moment,
    show_time,
    single,
)
from kupool.wire.messages import split_username
from kupool.wire.submissions import LoggedSubmission, logged_of


class Traces:
    """Answers the route; ``pushes`` says where an accepted submission of a full name is told."""

    def __init__(
        self, stats: IStatsStore, logged: LoggedSubmissions, pushes: Callable[[str], str]
    ) -> None:
        self._stats: Any = stats
        self._logged = logged
        self._pushes = pushes

    async def get(self, request: Request) -> object:
        """``GET /api/trace``: one submission by its id, or those of a user in a minute."""
        given = single(request.args or {}, ("id", "user", "at", "limit"))
        if "id" in given:
            for other in ("user", "at", "limit"):
                if other in given:
                    raise ApiError(400, f"{other}: cannot be combined with id")
            return await self._one(request, given["id"])
        if "at" not in given:
            raise ApiError(400, "id: missing; or give user and at")
        return await self._minute(request, given)

    async def _one(self, request: Request, asked: str) -> object:
        batch_id, _, number = asked.rpartition("/")
        if not batch_id or not (number.isascii() and number.isdigit() and len(number) < 10):
            raise ApiError(400, "id: must be the id of a batch, a slash, and a number")
        found = await self._logged.find(batch_id)
        place = int(number)
        if found is None or place >= len(found.batch.usernames):
            own_user(request, "")
            raise ApiError(
                404, f"id: the log has no submission {asked:.80}; it may be older than the log"
            )
        each = list(logged_of(found.batch))[place]
        own_user(request, split_username(each.username)[0])
        counted = await self._stats.history.batch(batch_id)
        return {
            **_shown(found, place, each),
            "session": each.session or None,
            "peer": each.peer or None,
            "batch": batch_id,
            "minute": show_time(each.at // 1000 // MINUTE * MINUTE),
            "counted": counted is not None,
            "steps": self._steps(found, each, place, counted),
        }

    def _steps(
        self, found: LoggedBatch, each: LoggedSubmission, place: int, counted: CountedBatch | None
    ) -> list[dict[str, object]]:
        batch, entry = found.batch, found.entry
        peer = f" from {each.peer}" if each.peer else ""
        session = f"session {each.session}" if each.session else "a session that is not noted"
        user, worker = split_username(each.username)
        minute = show_time(each.at // 1000 // MINUTE * MINUTE)
        also = f" and of the worker {worker}" if worker else ""
        told = f"counted in the minute {minute} of the user {user}{also}"
        return [
            _step("connection", None, f"{session} of {each.username}{peer}"),
            _step(
                "judge", None, f"accepted for job {each.job_id}, client nonce {each.client_nonce!r}"
            ),
            _step(
                "batch",
                show_moment(batch.at / 1000),
                f"number {place} of {len(batch.usernames)} in batch {batch.batch}, "
                "which was opened then",
            ),
            _step(
                "log",
                show_moment(entry.appended_at),
                f"durable at position {entry.position}, offset {found.offset(place)} "
                "of the topic submissions; answered true after that",
            ),
            _step(
                "minute",
                None if counted is None else show_time(counted.counted_at),
                told if counted is not None else "not counted yet",
            ),
            _step("pushes", None, self._pushes(each.username)),
        ]

    async def _minute(self, request: Request, given: Mapping[str, str]) -> object:
        name = given.get("user", "")
        user, worker = split_username(name) if name else ("", "")
        user = own_user(request, user)
        if not user:
            raise ApiError(400, "user: missing")
        minute = parse_time("at", given["at"])[0]
        limit = parse_number("limit", given.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
        cursor = await self._logged.every(user, minute, minute + MINUTE)
        newest: deque[dict[str, object]] = deque(maxlen=limit)
        number = 0
        while (found := await cursor.next()) is not None:
            for batch in found:
                for place, each in batch.submissions(user, worker):
                    number += 1
                    newest.append(_shown(batch, place, each))
                await self._logged.breaks.take()
        return {
            "user": name or user,
            "minute": show_time(minute),
            "submissions": list(reversed(newest)),
            "left_out": number - len(newest),
            "complete": cursor.complete,
        }


def _shown(found: LoggedBatch, place: int, each: LoggedSubmission) -> dict[str, object]:
    return {
        "id": each.id,
        "username": each.username,
        "job_id": each.job_id,
        "client_nonce": each.client_nonce,
        "at": show_moment(each.at / 1000),
        "offset": found.offset(place),
    }


def _step(name: str, at: str | None, text: str) -> dict[str, object]:
    return {"name": name, "at": at, "text": text}


__all__ = ["Traces"]
