"""The contract of a bus, for the one across nodes, on a real RabbitMQ."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kupool.bus import BusSettings
from kupool.bus.rabbit.bus import RabbitBus
from tests.contract.test_bus import BusContract
from tests.servers.reactor import the_reactor
from tests.servers.services import rabbit


class RabbitBusTests(BusContract, TestCase):
    """A-61, A-62: each participant is a node with a connection of its own."""

    #: Shorter than usual, as all this takes real time.
    settings = BusSettings(direct=("direct.*",), buffer_time=1.5)
    slack = 1.0
    timeout = 60

    def setUp(self) -> None:
        self.url = rabbit().new_vhost()

    def now(self) -> float:
        return float(the_reactor().seconds())

    def alarm(self, seconds: float) -> Deferred[None]:
        return deferLater(the_reactor(), seconds)

    async def passes(self, seconds: float) -> None:
        await deferLater(the_reactor(), seconds)

    async def result(self, deferred: Deferred[Any], most: float = 10.0) -> Any:
        deferred.addTimeout(most, the_reactor())
        try:
            return await deferred
        except CancelledError:
            return Failure()

    async def open_bus(self) -> RabbitBus:
        bus = RabbitBus(the_reactor(), self.url, self.settings, wall=time.time)
        self.addCleanup(bus.close)
        await bus.connect()
        return bus
