"""The bus under trouble in small; a hundred thousand calls of it are a command."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.servers.services import rabbit
from tools.bus_kills import Found, evenness, kills, with_bus


class BusCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    def judge(self, found: Found) -> None:
        self.assertEqual(found.problems, [], "\n".join(found.lines))
        self.flushLoggedErrors(RuntimeError)  # what the handlers of this process raise


class KillTests(BusCase):
    """A-20..A-22: subscribers vanish with calls in their hands, processes are killed and
    frozen, connections cut: every call has one outcome, and nothing is left of it.
    """

    async def under_trouble(self, form: str, calls: int, rate: float) -> None:
        async def run(trouble: Any, bus: Any) -> Found:
            return await kills(
                self.reactor, trouble, bus, calls=calls, rate=rate, seed=7, every=0.25
            )

        server = rabbit() if form == "rabbit" else None
        self.judge(await with_bus(self.reactor, form, 7, run, server))

    async def test_in_process(self) -> None:
        await self.under_trouble("local", 1000, 500.0)

    async def test_networked(self) -> None:
        await self.under_trouble("networked", 800, 200.0)

    async def test_rabbit(self) -> None:
        await self.under_trouble("rabbit", 500, 125.0)


class EvennessTests(BusCase):
    """A-19, A-28: each of four subscribers gets its quarter; nobody's calls end as such."""

    async def spread(self, form: str) -> None:
        async def run(trouble: Any, bus: Any) -> Found:
            return await evenness(self.reactor, trouble, bus, calls=10_000)

        self.judge(await with_bus(self.reactor, form, 7, run, proxies=False))

    async def test_in_process(self) -> None:
        await self.spread("local")

    async def test_networked(self) -> None:
        await self.spread("networked")
