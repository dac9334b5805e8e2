"""The rooms of all hosts in one list, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.local import LocalBus
from kupool.rooms.room import Room
from kupool.rooms.spread.listing import RoomLists, list_rooms
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.settings import SpreadSettings


@dataclass
class SomeRoom:
    """What a list says of a room."""

    code: str
    members: list[str]


class SomeRooms:
    """The rooms of one host: as many as ``count``."""

    def __init__(self, host: str, count: int) -> None:
        self._rooms = [SomeRoom(f"{host}{n}", ["ann"] * n) for n in range(count)]

    def __iter__(self) -> Iterator[Room]:
        return iter(cast(list[Room], self._rooms))

    def __len__(self) -> int:
        return len(self._rooms)


@dataclass
class SomeHosts:
    host: str
    ring: Ring


class OneHostTests(SynchronousTestCase):
    """The rooms of this host."""

    def test_pages(self) -> None:
        rooms = SomeRooms("a", 3)
        for start, most, codes, following in (
            (0, 2, ["a0", "a1"], 2),
            (0, 3, ["a0", "a1", "a2"], None),
            (1, 1, ["a1"], 2),
            (2, 2, ["a2"], None),
            (3, 2, [], None),
        ):
            page = list_rooms(rooms, start, most)
            self.assertEqual(([each.room for each in page.rooms], page.next), (codes, following))

    def test_members(self) -> None:
        page = list_rooms(SomeRooms("a", 3), 0, 3)
        self.assertEqual([each.members for each in page.rooms], [0, 1, 2])


class AllHostsTests(SynchronousTestCase):
    """A-51: the rooms of all hosts, whichever of them is asked."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = LocalBus(self.clock, wall=self.clock.seconds)
        ring = Ring(["a", "b", "c"])
        self.lists = {}
        for host, count in (("a", 3), ("b", 0), ("c", 2)):
            self.lists[host] = RoomLists(
                self.clock,
                self.bus,
                SpreadSettings(),
                hosts=SomeHosts(host, ring),
                rooms=SomeRooms(host, count),
            )
            self.done(self.lists[host].start())

    def done(self, coroutine: Any, patience: float = 0.0) -> Any:
        waiting = Deferred.fromCoroutine(coroutine)
        self.clock.pump([0] * 20)
        self.clock.advance(patience)
        self.clock.pump([0] * 20)
        return self.successResultOf(waiting)

    def pages(self, host: str, most: int) -> list[list[str]]:
        """All pages, each by the codes of its rooms."""
        pages, start = [], 0
        while True:
            page = self.done(self.lists[host].page(start, most))
            pages.append([each.room for each in page.rooms])
            if page.next is None:
                return pages
            self.assertEqual(page.next, start + len(page.rooms))
            start = page.next

    def test_pages(self) -> None:
        """In the order of the hosts' names; each room once."""
        for host in "abc":
            self.assertEqual(self.pages(host, 10), [["a0", "a1", "a2", "c0", "c1"]])
            self.assertEqual(self.pages(host, 5), [["a0", "a1", "a2", "c0", "c1"]])
            self.assertEqual(self.pages(host, 4), [["a0", "a1", "a2", "c0"], ["c1"]])
            self.assertEqual(self.pages(host, 2), [["a0", "a1"], ["a2", "c0"], ["c1"]])

    def test_members(self) -> None:
        page = self.done(self.lists["b"].page(1, 3))
        self.assertEqual([each.members for each in page.rooms], [1, 2, 0])

    def test_a_host_that_does_not_answer(self) -> None:
        """It is left out, after a moment."""
        self.done(self.lists["a"].stop())
        page = self.done(self.lists["c"].page(0, 10), 1.0)
        self.assertEqual([each.room for each in page.rooms], ["c0", "c1"])

    def test_the_start_counts_only_rooms_of_those_who_answer(self) -> None:
        self.done(self.lists["a"].stop())
        page = self.done(self.lists["c"].page(1, 10), 1.0)
        self.assertEqual([each.room for each in page.rooms], ["c1"])

    def test_a_page_that_ends_with_the_rooms_of_a_host(self) -> None:
        """There is a next one as long as there is a host that was not asked."""
        for lists in self.lists.values():
            lists._hosts.ring = Ring(["a", "c"])
        self.assertEqual(self.pages("b", 3), [["a0", "a1", "a2"], ["c0", "c1"]])

    def test_a_host_whose_answer_cannot_be_read(self) -> None:
        self.done(self.lists["a"].stop())
        self.bus.subscribe(["rooms.list.a"], lambda message: b"[[")
        self.assertEqual(self.pages("b", 10), [["c0", "c1"]])
