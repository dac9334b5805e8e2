"""A site over a pool in memory, with the routes about what clients do."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed

from kupool.accounts.web_tokens import WebIdentity
from kupool.activity.past_events import PastEvents
from kupool.activity.requests import RequestMinutes, RunningTotals
from kupool.activity.sessions import SessionBook
from kupool.activity.store import NoMinutes
from kupool.daemon.events import ADMIN, CLOSED
from kupool.daemon.tenants import Tenants
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.pool.judge import Rules
from kupool.stats.memory import MemoryStats
from kupool.topics.events import EventWriter
from kupool.web.access import WebAccess
from kupool.web.activity import ActivityPages, SessionControl
from kupool.web.answers import ApiResource
from kupool.web.audit import AuditTrail
from kupool.web.control import KnownHosts
from kupool.web.past import PastPages
from kupool.web.site import make_site
from tests.fakes.pool_fixture import PoolBench
from tests.fakes.topics import topics_in_memory
from tests.fakes.web_site import Answer, RouteTestCase, Source

#: Bearer tokens, by what they stand for.
TOKENS = {
    name: WebIdentity(name, role)
    for name, role in (("alice", "worker"), ("bob", "worker"), ("olga", "operator"))
}


class ActivityCase(RouteTestCase):
    """A site over a pool in memory, with users of each role."""

    def setUp(self) -> None:
        self.bench = PoolBench(rules=Rules(submit_interval=0.0))
        clock = self.clock = self.bench.clock
        self.book = SessionBook(
            clock,
            self.bench.wall,
            lambda: self.bench.manager,
            lambda: not self.bench.acceptance.undecided,
            most=2,
        )
        self.bench.manager = ConnectionManager(
            clock, Tenants(self.bench.pool, self.book), ServerSettings()
        )
        self.bench.start()
        self.totals = RunningTotals({}, 0, {})
        self.requests = RequestMinutes(clock, self.bench.wall, lambda: self.totals, NoMinutes())
        self.successResultOf(Deferred.fromCoroutine(self.requests.start()))
        self.topics = topics_in_memory(clock, self.bench.wall)
        self.writer = EventWriter(
            self.topics, self.topics.engine, clock, self.bench.wall, instance="i"
        )
        access = WebAccess(
            KnownHosts(),
            secrets=TOKENS,
            trail=AuditTrail(clock, lambda entry: self.writer.write(ADMIN, entry)),
        )
        self.source = Source()
        self.site = make_site(
            clock,
            self.source,
            MemoryStats(),
            self.bench.wall,
            access=access,
            more=self.more(access),
        )

    def more(self, access: WebAccess) -> dict[str, ApiResource]:
        pages = ActivityPages(self.book, self.requests, lambda: succeed({"checks": []}))
        manager = self.bench.manager
        control = SessionControl(self.book, manager.ban, ("192.0.2.99",))
        past = PastPages(self.past(), closed=CLOSED, admin=ADMIN)
        table: Any = {
            "/api/sessions": {b"GET": pages.sessions},
            "/api/users": {b"GET": pages.users},
            "/api/requests": {b"GET": pages.requests},
            "/api/overview": {b"GET": pages.overview},
            "/api/sessions/ended": {b"GET": past.ended},
            "/api/audit": {b"GET": past.audit},
            "/api/sessions/close": {b"POST": control.close},
            "/api/bans/add": {b"POST": control.ban},
        }
        return {path: access.resource(path, handlers) for path, handlers in table.items()}

    def past(self) -> PastEvents | None:
        return PastEvents(self.topics, self.clock)

    def get(self, path: str, by: str = "olga") -> Answer:
        return self.ask(path, Authorization=f"Bearer {by}")

    def post(self, path: str, body: object, by: str = "olga") -> Answer:
        text = json.dumps(body).encode()
        return self.ask(path, "POST", text, Authorization=f"Bearer {by}")

    def refused(self, answer: Answer, code: int, text: str) -> None:
        self.assertEqual((answer.code, answer.json["error"]), (code, text))
