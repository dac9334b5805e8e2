"""What can be away under load, and what must hold then."""

from __future__ import annotations

import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.servers.rabbit_server import SETTLING
from tests.servers.services import PostgresServer, RabbitCluster, RabbitServer

if TYPE_CHECKING:
    from tools.outage import Report

#: The longest that there may be no answer when a leader is killed.
LONGEST_PAUSE = 3.0


class Sample(NamedTuple):
    """What waited at one moment: seconds since the beginning, and batches."""

    at: float
    spooled: int
    depth: int


class Outage(ABC):
    """One fault: what it needs, what it does, and what must hold."""

    name = ""

    def __init__(
        self,
        seconds: float,
        kills: int = 1,
        *,
        broker: RabbitServer | None = None,
        database: PostgresServer | None = None,
    ) -> None:
        """Servers that are given are used, others are started; a cluster always is."""
        self.seconds = seconds
        self.kills = kills
        self.broker = broker
        self.database = database
        self.urls: list[str] = []
        #: When the fault began and ended, in seconds since the beginning of the load.
        self.spans: list[tuple[float, float]] = []
        #: What ``/ready`` answered while it lasted, in order: (status, body).
        self.said: list[tuple[int, Any]] = []

    def start_broker(self, stack: contextlib.ExitStack) -> list[str]:
        """Start the broker; returns its addresses."""
        if self.broker is None:
            self.broker = stack.enter_context(RabbitServer())
        return [self.broker.new_vhost()]

    def start_database(self, stack: contextlib.ExitStack) -> PostgresServer:
        """Start the database."""
        if self.database is None:
            self.database = stack.enter_context(PostgresServer())
        return self.database

    @abstractmethod
    def strike(self, clock: Callable[[], float], ask: Callable[[], tuple[int, Any]]) -> None:
        """Break something, wait, and mend it."""

    @abstractmethod
    def drained(self, sample: Sample, usual: int) -> bool:
        """Say whether what waited is gone; ``usual`` is the depth before the fault."""

    @abstractmethod
    def failures(self, report: Report) -> list[str]:
        """Return what did not hold, beyond what must hold in every fault."""

    def _away(self, clock: Callable[[], float], ask: Callable[[], tuple[int, Any]]) -> None:
        deadline = clock() + self.seconds
        while clock() < deadline:
            time.sleep(max(0.0, min(0.2, deadline - clock())))
            self.said.append(ask())


class BrokerOutage(Outage):
    """The only broker is killed."""

    name = "broker"

    def strike(self, clock: Callable[[], float], ask: Callable[[], tuple[int, Any]]) -> None:
        assert self.broker is not None
        began = clock()
        self.broker.kill()
        self._away(clock, ask)
        self.broker.start()
        self.said.append(ask())
        self.spans.append((began, clock()))

    def drained(self, sample: Sample, usual: int) -> bool:
        return not sample.spooled

    def failures(self, report: Report) -> list[str]:
        found = [] if report.most("spooled") else ["nothing ever waited in the spool"]
        body = json.dumps(self.said)
        return found if "spool: " in body else [*found, "/ready did not say why"]


class PostgresOutage(Outage):
    """The database is killed."""

    name = "postgres"

    def strike(self, clock: Callable[[], float], ask: Callable[[], tuple[int, Any]]) -> None:
        assert self.database is not None
        began = clock()
        self.database.kill()
        self._away(clock, ask)
        self.database.start()
        self.spans.append((began, clock()))

    def drained(self, sample: Sample, usual: int) -> bool:
        return sample.depth <= usual

    def failures(self, report: Report) -> list[str]:
        found = [] if report.most("depth") > report.usual else ["the queue did not grow"]
        body = json.dumps(self.said)
        return found if "statistics: " in body else [*found, "/ready did not say why"]


class LeaderOutage(Outage):
    """The node that leads the quorum queue is killed, and comes back."""

    name = "leader"

    def start_broker(self, stack: contextlib.ExitStack) -> list[str]:
        self.cluster = stack.enter_context(RabbitCluster(3))
        return self.cluster.new_vhost()

    def strike(self, clock: Callable[[], float], ask: Callable[[], tuple[int, Any]]) -> None:
        vhost = self.urls[0].rpartition("/")[2]
        for number in range(self.kills):
            if number:
                time.sleep(SETTLING + 5.0)
            leader = self.cluster.leader_of("kupool_submissions", vhost)
            began = clock()
            self.cluster.kill(leader)
            self._away(clock, ask)
            leader.start()
            self.spans.append((began, clock()))

    def drained(self, sample: Sample, usual: int) -> bool:
        return not sample.spooled

    def failures(self, report: Report) -> list[str]:
        pause = report.longest_pause
        return [] if pause < LONGEST_PAUSE else [f"no answer for {pause:.2f} s"]


KINDS: dict[str, type[Outage]] = {
    kind.name: kind for kind in (BrokerOutage, PostgresOutage, LeaderOutage)
}
