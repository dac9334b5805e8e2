"""Hosts of rooms under trouble in small; many rounds of it are a command."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tools.rooms_journal import Judge, Life, Said, Trouble
from tools.rooms_kills import OwnBus, kills


class KillTests(TestCase):
    """A-51, A-46: hosts are killed, stopped and frozen under members who talk: every request
    has one outcome, nothing is handled or delivered twice, what a host hands over is all there
    was, and nothing is left in the end.
    """

    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    async def test_three_hosts(self) -> None:
        from twisted.internet import reactor

        with contextlib.ExitStack() as stack:
            bus = OwnBus(self.folder)
            stack.callback(bus.close)
            rounds = [("stop",), ("kill",)]
            found = await kills(reactor, self.folder, bus, seed=7, rounds=rounds, members=12)
        self.assertEqual(found.problems, [], "\n".join(found.lines))


def life(name: str, begun: float, last: float, **more: Any) -> Life:
    return Life("tea", name, int(name.split("/")[1]), begun, last, over=True, **more)


class JudgeTests(SynchronousTestCase):
    """A-51: what such a run looks for is found."""

    ONE: Said = ("ann", 1, 1)
    TWO: Said = ("ann", 1, 2)

    def judge(
        self, *lives: Life, troubles: tuple[Trouble, ...] = (), **answered: list[Said]
    ) -> list[str]:
        by = {said: f"a/{pid[1:]}/1" for pid, each in answered.items() for said in each}
        judge = Judge(list(lives), troubles, {}, by)
        judge.judge()
        return judge.problems

    def test_a_room_that_moves_with_all_that_was_said(self) -> None:
        said = [(1.0, self.ONE)]
        first = life("a/1/1", 0.5, 2.0, said=said, handed=[self.ONE], reason="moved")
        second = life("b/2/1", 2.1, 3.0, said=[(2.5, self.TWO)], taken=[self.ONE])
        self.assertEqual(self.judge(first, second, p1=[self.ONE]), [])

    def test_what_must_not_be(self) -> None:
        twice = life("a/1/1", 0.5, 2.0, said=[(1.0, self.ONE), (1.5, self.ONE)])
        self.assertIn("was handled 2 times", self.judge(twice)[0])
        silent = life("a/1/1", 0.5, 2.0)
        self.assertIn("which did not handle it", self.judge(silent, p1=[self.ONE])[0])
        late = life("a/1/1", 0.5, 2.0, said=[(1.0, self.TWO), (1.5, self.ONE)])
        self.assertIn("was heard with 1 too late", self.judge(late)[0])
        other = life("b/2/1", 1.5, 3.0)
        self.assertIn("in two places for 0.500 s", self.judge(silent, other)[0])
        frozen = Trouble("freeze long", frozenset([1]), 0.6, 1.9, 3.0)
        self.assertEqual(self.judge(silent, other, troubles=(frozen,)), [])

    def test_a_state_that_is_lost(self) -> None:
        first = life("a/1/1", 0.5, 2.0, said=[(1.0, self.ONE)], handed=[self.ONE], reason="moved")
        second = life("b/2/1", 2.1, 3.0)
        self.assertIn("was given nothing", self.judge(first, second)[0])
        killed = Trouble("kill", frozenset([3]), 0.4, 0.4, 1.0)
        self.assertEqual(self.judge(first, second, troubles=(killed,)), [])
        stopped = Trouble("stop", frozenset([1]), 1.5, 2.5, 4.0)
        self.assertEqual(len(self.judge(first, second, troubles=(stopped,))), 1)
        first.handed = []
        self.assertIn("did not hand over all", self.judge(first, second)[0])
