"""What clients do and did: the parts that know it, and their routes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kupool.activity.requests import RequestMinutes, RunningTotals
from kupool.activity.sessions import SessionBook
from kupool.activity.store import SCHEMA, NoMinutes, StoredMinutes
from kupool.daemon.connection_limits import trusted_proxies
from kupool.daemon.events import ADMIN, CLOSED
from kupool.daemon.files import ACTIVITY_FILE, uses_files
from kupool.net.routing.router import Router
from kupool.net.routing.steps import RouteStep
from kupool.net.server import Server
from kupool.pool.acceptance import Acceptance
from kupool.pool.pool import Pool
from kupool.settings import ListenSettings, Settings
from kupool.storage.database import Database
from kupool.web.access import WebAccess
from kupool.web.activity import ActivityPages, SessionControl
from kupool.web.answers import ApiResource
from kupool.web.audit import AuditTrail
from kupool.web.past import PastPages

if TYPE_CHECKING:
    from kupool.activity.past_events import PastEvents
    from kupool.topics.events import EventWriter
    from kupool.topics.service import Topics

#: What is lost if the file is damaged, for the message about it.
LOST = "the requests by minute of the last day are lost then"

#: Names in the requests by minute: that of submissions, that of logins, and that of messages that
#: were refused as malformed, unknown, or for their parameters.
SUBMIT = "submit"
AUTHORIZE = "authorize"
INVALID = "invalid"


class MethodCounts:
    """Counts the calls of all methods of sessions but submissions, which are counted anyway."""

    def __init__(self, methods: Router) -> None:
        self.calls: Counter[str] = Counter()
        methods.use(self._around, only=lambda method: method != SUBMIT)

    def _around(self, handler: RouteStep) -> RouteStep:
        calls = self.calls

        def counted(connection: Any, request: Any) -> object:
            calls[request.msg_id] += 1
            return handler(connection, request)

        counted.__doc__ = handler.__doc__
        return counted


class PoolTotals:
    """Reads the counters of the pool since its start."""

    def __init__(
        self,
        counts: MethodCounts,
        acceptance: Acceptance,
        pool: Callable[[], Pool],
        server: Callable[[], Server],
    ) -> None:
        self._counts = counts
        self._acceptance = acceptance
        self._pool = pool
        self._server = server

    def read(self) -> RunningTotals:
        """Return the counters now."""
        accepted = self._acceptance.accepted
        rejections = dict(self._acceptance.rejections.outcomes)
        methods = Counter(self._counts.calls)
        methods[SUBMIT] = accepted + sum(rejections.values())
        methods[AUTHORIZE] += self._pool().greeting.asked
        methods[INVALID] = self._server().manager.counters.malformed
        return RunningTotals(methods, accepted, rejections)


@dataclass(frozen=True)
class ActivityPart:
    """Who is connected, what they did and do, and what happened before."""

    book: SessionBook
    requests: RequestMinutes
    past: PastEvents | None
    trail: AuditTrail
    ban: Callable[[str, float, str], object]

    def look(self) -> None:
        """Do what is due once a second."""
        self.book.look()

    async def start(self) -> None:
        """Begin to count requests."""
        await self.requests.start()

    async def stop(self) -> None:
        """Keep what was counted."""
        await self.requests.stop()

    def routes(
        self,
        access: WebAccess,
        settings: ListenSettings,
        overview: Callable[[], Awaitable[object]],
    ) -> Mapping[str, ApiResource]:
        """Return the routes; ``overview`` returns the answer of ``/api/overview``."""
        pages = ActivityPages(self.book, self.requests, overview)
        control = SessionControl(self.book, self.ban, trusted_proxies(settings))
        past = PastPages(self.past, closed=CLOSED, admin=ADMIN)
        table = [
            ("/api/sessions", b"GET", pages.sessions),
            ("/api/sessions/ended", b"GET", past.ended),
            ("/api/users", b"GET", pages.users),
            ("/api/requests", b"GET", pages.requests),
            ("/api/overview", b"GET", pages.overview),
            ("/api/audit", b"GET", past.audit),
            ("/api/sessions/close", b"POST", control.close),
            ("/api/bans/add", b"POST", control.ban),
        ]
        return {path: access.resource(path, {method: call}) for path, method, call in table}


def make_activity(
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    totals: PoolTotals,
    *,
    acceptance: Acceptance,
    server: Callable[[], Server],
    topics: Topics | None,
    events: EventWriter | None,
) -> ActivityPart:
    """Make what knows the activity of clients; nothing is opened.

    ``server`` returns the server once it is made. ``events`` writes the events of the daemon to
    one of the ``topics``, where there is one.
    """
    store: Any = NoMinutes()
    if uses_files(settings):
        path = Path(settings.storage.data) / ACTIVITY_FILE
        store = StoredMinutes(Database(reactor, path, SCHEMA, lost=LOST))
    requests = RequestMinutes(reactor, wall, totals.read, store)
    acceptance.answered = requests.answered
    write, past = None, None
    if events is not None and topics is not None:
        from kupool.activity.past_events import PastEvents

        past = PastEvents(topics, reactor)
        write = partial(events.write, ADMIN)
    return ActivityPart(
        book=SessionBook(
            reactor,
            wall,
            lambda: server().manager,
            lambda: not acceptance.undecided,
            most=settings.limits.known_users,
        ),
        requests=requests,
        past=past,
        trail=AuditTrail(reactor, write),
        ban=lambda host, seconds, why: server().manager.ban(host, seconds, why),
    )


__all__ = ["ActivityPart", "MethodCounts", "PoolTotals", "make_activity"]
