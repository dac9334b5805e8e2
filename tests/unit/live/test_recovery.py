"""What a client gets that subscribes again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.history import MemoryHistory
from kupool.live.publications import StreamPosition
from kupool.live.recovery import Recovery, recover, recover_newest
from tests.fakes.live import new, offsets


class Case(SynchronousTestCase):
    newest_only = False

    def setUp(self) -> None:
        self.store = self.make(10)

    def make(self, published: int) -> MemoryHistory:
        store = MemoryHistory(
            StreamPosition(0, "e"),
            Clock().seconds,
            lambda: 0.0,
            size=5,
            newest_only=self.newest_only,
        )
        for each in range(published):
            store.append(new(each))
        return store

    def expect(self, found: Recovery, **expected: Any) -> None:
        shown = {
            **found._asdict(),
            "publications": offsets(found.publications),
            "missed": None if found.missed is None else found.missed.missed,
        }
        self.assertEqual({name: shown[name] for name in expected}, expected)


class HistoryTests(Case):
    """W-75: all of it, or the truth about it."""

    def recover(
        self, offset: int, epoch: str = "e", limit: int = 100, *, partial: bool = False
    ) -> Recovery:
        since = StreamPosition(offset, epoch)
        return self.successResultOf(
            Deferred.fromCoroutine(recover(self.store, since, limit=limit, partial=partial))
        )

    def test_everything(self) -> None:
        for offset, found in ((5, [6, 7, 8, 9, 10]), (8, [9, 10]), (10, [])):
            self.expect(
                self.recover(offset),
                recovered=True,
                publications=found,
                position=StreamPosition(offset, "e"),
                at=10,
                missed=None,
            )

    def test_the_first_part(self) -> None:
        """The rest follows, so it is recovered as well."""
        self.expect(self.recover(5, limit=2), recovered=True, publications=[6, 7], at=7)

    def test_too_much_is_lost(self) -> None:
        self.expect(
            self.recover(2),
            recovered=False,
            publications=[],
            position=StreamPosition(10, "e"),
            at=10,
            missed=8,
        )

    def test_what_is_left(self) -> None:
        self.expect(
            self.recover(2, limit=2, partial=True),
            recovered=False,
            publications=[6, 7],
            position=StreamPosition(5, "e"),
            at=7,
            missed=3,
        )

    def test_nothing_is_left(self) -> None:
        self.store.forget()
        for partial in (False, True):
            self.expect(
                self.recover(2, partial=partial),
                recovered=False,
                publications=[],
                position=StreamPosition(10, "e"),
                at=10,
                missed=8,
            )

    def test_another_stream(self) -> None:
        """Nobody knows what is missing: another epoch, or an offset that never was."""
        for offset, epoch in ((8, "f"), (11, "e"), (0, "f")):
            self.expect(
                self.recover(offset, epoch), recovered=False, publications=[], at=10, missed=None
            )
            self.expect(
                self.recover(offset, epoch, partial=True),
                recovered=False,
                publications=[6, 7, 8, 9, 10],
                position=StreamPosition(5, "e"),
                missed=None,
            )

    def test_a_client_without_an_epoch(self) -> None:
        self.store = self.make(3)
        self.expect(self.recover(0, ""), recovered=True, publications=[1, 2, 3])


class NewestTests(Case):
    """W-75: a channel that has only one value."""

    newest_only = True

    def recover(self, offset: int, epoch: str) -> Recovery:
        return self.successResultOf(
            Deferred.fromCoroutine(recover_newest(self.store, StreamPosition(offset, epoch)))
        )

    def test_the_newest(self) -> None:
        for offset, epoch in ((0, ""), (3, "e"), (10, "f"), (99, "f")):
            self.expect(
                self.recover(offset, epoch),
                recovered=True,
                publications=[10],
                position=StreamPosition(9, "e"),
                at=10,
            )

    def test_the_client_has_it(self) -> None:
        self.expect(self.recover(10, "e"), recovered=True, publications=[], at=10)

    def test_there_is_none(self) -> None:
        """It is recovered only at the end of the stream."""
        self.store.forget()
        self.expect(self.recover(10, "e"), recovered=True, publications=[])
        self.expect(self.recover(9, "e"), recovered=False, publications=[], at=10)
