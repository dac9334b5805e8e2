"""The route ``/api/submissions``: every counted submission of a user, as a download.

``GET /api/submissions?user=alice``, with ``worker``, ``from``, ``to`` (the last 24 hours),
``format`` (``json``: a JSON object a line; ``csv``: with a header) and ``limit``. Each has ``at``,
``username``, ``job_id``, ``client_nonce``, ``id`` and ``offset``, that in the topic
``submissions``. They come from the log, so it has none that are older than the log. A download
that breaks off has no end in HTTP: the client sees that it is not whole.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from zope.interface import implementer

from kupool.incidents import report
from kupool.stats.fold import DAY
from kupool.timing.waiting import Waiters
from kupool.web.answers import HANDED_OVER, ApiError
from kupool.web.history import own_name, parse_range
from kupool.web.logged import Cursor, LoggedSubmissions
from kupool.web.queries import MINUTE, parse_number, show_moment, single

#: The columns of a download.
COLUMNS = ("at", "username", "job_id", "client_nonce", "id", "offset")

#: The most rows that are written at once.
ROWS_AT_ONCE = 500

#: The highest ``limit``.
MAX_ROWS = 999_999_999

_TYPES = {"json": b"application/x-ndjson", "csv": b"text/csv; charset=utf-8"}

Row = tuple[str, str, int, str, str, int]


class _Asked(NamedTuple):
    """What a request asks for; ``limit`` is 0 for all."""

    user: str
    worker: str
    start: int
    end: int
    format: str
    limit: int


class _Gone(Exception):
    """The client has disconnected, or does not read."""


@implementer(IPushProducer)
class _Flow:
    """Writes a response as fast as the client reads it."""

    def __init__(self, request: Any, clock: IReactorTime, patience: float) -> None:
        self._request = request
        self._clock = clock
        self._patience = patience
        self._paused = self._stopped = False
        self._waiting: Waiters[None] = Waiters()
        request.notifyFinish().addBoth(lambda _: self.stopProducing())

    def pauseProducing(self) -> None:
        """Write no more for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._waiting.tell(None)

    def stopProducing(self) -> None:
        """Write nothing any more."""
        self._stopped = True
        self._waiting.tell(None)

    async def write(self, data: bytes) -> None:
        """Write as soon as there is room; raises :class:`_Gone` if nobody reads any more."""
        if self._paused and not self._stopped:
            waiting = self._waiting.wait()
            if self._patience:
                waiting.addTimeout(self._patience, self._clock)
            try:
                await waiting
            except TimedOut:
                self._stopped = True
        self.check()
        self._request.write(data)

    def check(self) -> None:
        """Raise :class:`_Gone` if the client has gone."""
        if self._stopped:
            raise _Gone


class Downloads:
    """Answers the route; ``wall`` returns seconds since the epoch.

    A client that reads nothing for ``patience`` seconds is disconnected; 0 is never.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        logged: LoggedSubmissions,
        *,
        patience: float,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._logged = logged
        self._patience = patience
        self._encode = msgspec.json.Encoder().encode

    async def get(self, request: Any) -> object:
        """``GET /api/submissions``: write the submissions as they are read."""
        asked = self._asked(request)
        cursor = await self._logged.counted(asked.user, asked.start, asked.end)
        first = await cursor.next()
        request.setHeader("Content-Type", _TYPES[asked.format])
        ending = "csv" if asked.format == "csv" else "jsonl"
        request.setHeader("Content-Disposition", f'attachment; filename="submissions.{ending}"')
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        flow = _Flow(request, self._clock, self._patience)
        request.registerProducer(flow, True)
        try:
            if request.method != b"HEAD":
                await self._write(asked, cursor, first, flow)
            flow.check()
        except _Gone:
            _break_off(request)
        except GeneratorExit:
            raise  # the coroutine is closed
        except BaseException:
            report(self._log, "A download of submissions broke off")
            _break_off(request)
        else:
            request.unregisterProducer()
            request.finish()
        return HANDED_OVER

    def _asked(self, request: Request) -> _Asked:
        known = ("user", "worker", "from", "to", "format", "limit")
        given = single(request.args or {}, known)
        user = own_name(request, given, "user")
        start, end = parse_range(given, self._wall(), MINUTE, DAY)
        form = given.get("format", "json")
        if form not in _TYPES:
            raise ApiError(400, "format: must be json or csv")
        limit = 0
        if "limit" in given:
            limit = parse_number("limit", given["limit"], 0, MAX_ROWS)
        return _Asked(user, given.get("worker", ""), start, end, form, limit)

    async def _write(
        self, asked: _Asked, cursor: Cursor, found: Sequence[Any] | None, flow: _Flow
    ) -> None:
        if asked.format == "csv":
            await flow.write(_csv([COLUMNS]))
        left = asked.limit or -1
        while found is not None and left:
            without = await self._logged.uncounted(found)
            for each in found:
                if each.batch.batch in without:
                    continue
                at = show_moment(each.batch.at / 1000)
                rows: list[Row] = [
                    (at, one.username, one.job_id, one.client_nonce, one.id, each.offset(place))
                    for place, one in each.submissions(asked.user, asked.worker)
                ]
                rows = rows[:left] if left > 0 else rows
                left -= len(rows) if left > 0 else 0
                for begin in range(0, len(rows), ROWS_AT_ONCE):
                    await flow.write(self._shown(asked, rows[begin : begin + ROWS_AT_ONCE]))
                    await self._logged.breaks.take()
                if not left:
                    return
            flow.check()
            found = await cursor.next()

    def _shown(self, asked: _Asked, rows: Sequence[Row]) -> bytes:
        if asked.format == "csv":
            return _csv(rows)
        return b"".join(self._encode(dict(zip(COLUMNS, row, strict=True))) + b"\n" for row in rows)


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _break_off(request: Any) -> None:
    """End the connection without the end of the response."""
    channel = request.channel
    if channel is not None:
        request.unregisterProducer()
        channel.transport.abortConnection()


__all__ = ["COLUMNS", "Downloads"]
