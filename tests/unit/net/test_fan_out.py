"""Publications on their way to many: order, parts, limits, and newer ones in place of older."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.net.fan_out import FanOut
from kupool.session.outbox import EventPolicy
from kupool.session.publication import ForEach, Publication
from kupool.timing.chunks import CHUNK
from kupool.wire.framing import LINE, Framing


class Heard:
    """A recipient that notes what it is sent; ``room`` events may wait for it."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.framing: Framing = LINE._replace(encode=_as_it_is)
        self.sends = True
        self.heard: list[bytes] = []
        self._room = room

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        self.heard.append(data)

    def send_latest(self, key: str, encoded: bytes) -> None:
        self.heard.append(encoded)

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        self._room -= 1
        if self._room >= 0:
            self.heard.append(encoded)
        return self._room >= 0


def _as_it_is(payload: bytes) -> bytes:
    return payload


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.fan_out: FanOut[Heard] = FanOut(4)
        self.done: list[bytes] = []

    def send(self, text: bytes, to: list[Heard], key: str | None = None, **how: Any) -> int:
        policy = how.pop("policy", EventPolicy.DROP_NEW)
        publication = Publication(how.pop("payload", text), key, policy)
        return self.fan_out.send(publication, to, done=lambda: self.done.append(text), **how)

    def run_out(self, budget: int = CHUNK) -> list[int]:
        """Run until nothing is pending; returns to how many something was sent each time."""
        ran = []
        while self.fan_out.pending:
            ran.append(self.fan_out.run(budget))
            self.assertLessEqual(ran[-1], budget)
        return ran


class OrderTests(Case):
    """Issue 13: each publication reaches all before the next one reaches any."""

    def test_few_are_sent_at_once(self) -> None:
        everybody = [Heard() for _ in range(CHUNK)]
        self.assertEqual(self.send(b"a", everybody), CHUNK)
        self.assertFalse(self.fan_out.pending)
        self.assertTrue(all(each.heard == [b"a"] for each in everybody))
        self.assertEqual(self.done, [b"a"])

    def test_many_in_parts(self) -> None:
        everybody = [Heard() for _ in range(10_000)]
        self.assertEqual(self.send(b"a", everybody), CHUNK)
        self.assertEqual(self.done, [])
        self.assertEqual(self.run_out(), [CHUNK] * 19)
        self.assertTrue(all(each.heard == [b"a"] for each in everybody))
        self.assertEqual(self.done, [b"a"])

    def test_a_small_audience_does_not_overtake_a_large_one(self) -> None:
        everybody = [Heard() for _ in range(2 * CHUNK)]
        self.send(b"a", everybody)
        self.assertEqual(self.send(b"b", everybody[-1:]), 0)
        self.assertEqual(everybody[-1].heard, [])
        self.run_out()
        self.assertEqual(everybody[-1].heard, [b"a", b"b"])
        self.assertEqual(self.done, [b"a", b"b"])

    def test_the_budget_is_the_callers(self) -> None:
        everybody = [Heard() for _ in range(25)]
        self.assertEqual(self.send(b"a", everybody, budget=0), 0)
        self.assertEqual(self.run_out(10), [10, 10, 5])
        self.assertEqual(self.send(b"b", everybody, budget=10), 10)
        self.send(b"c", everybody)
        self.assertEqual(self.run_out(10), [10, 10, 10, 10])
        self.assertTrue(all(each.heard == [b"a", b"b", b"c"] for each in everybody))

    def test_what_is_published_on_the_way_comes_after(self) -> None:
        """Also within the last part, and within one that was sent at once."""
        everybody = [Heard() for _ in range(3)]

        def make(recipient: Any) -> bytes:
            if recipient is everybody[0]:
                self.send(b"b", everybody)
            return b"a"

        for budget in (0, CHUNK):
            self.send(b"a", everybody, payload=ForEach(make), budget=budget)
            self.run_out()
            self.assertEqual([each.heard[-2:] for each in everybody], [[b"a", b"b"]] * 3)

    def test_nobody(self) -> None:
        everybody = [Heard() for _ in range(2 * CHUNK)]
        self.send(b"a", everybody)
        self.send(b"nobody", [])
        self.assertEqual(self.done, [b"nobody"])

    def test_where_is_asked_in_each_ones_turn(self) -> None:
        everybody = [Heard() for _ in range(CHUNK + 2)]
        wanted = set(everybody)
        self.send(b"a", everybody, where=wanted.__contains__)
        wanted.discard(everybody[-1])
        self.run_out()
        self.assertEqual([each.heard for each in everybody[-2:]], [[b"a"], []])


class BoundTests(Case):
    """Issue 13: so many publications wait, and no more."""

    def test_those_that_may_be_dropped_are(self) -> None:
        everybody = [Heard() for _ in range(CHUNK + 1)]
        for n in range(6):
            self.send(b"%d" % n, everybody)
        self.assertEqual(self.fan_out.dropped, 2 * len(everybody))
        self.assertEqual(self.done, [b"4", b"5"])
        self.run_out()
        self.assertTrue(all(each.heard == [b"0", b"1", b"2", b"3"] for each in everybody))

    def test_one_that_may_not_waits_for_nobody(self) -> None:
        everybody = [Heard() for _ in range(CHUNK + 1)]
        for n in range(6):
            self.send(b"%d" % n, everybody, policy=None)
            # What waits is bounded: all before it was sent, in one long turn.
            self.assertEqual(len(everybody[-1].heard), 0 if n < 4 else 4)
        self.run_out()
        self.assertTrue(all(each.heard == [b"%d" % n for n in range(6)] for each in everybody))
        self.assertEqual(self.fan_out.dropped, 0)

    def test_drops_of_slow_readers_are_counted(self) -> None:
        everybody = [Heard(room=1), Heard(), Heard(room=0)]
        for text in (b"a", b"b"):
            self.send(text, everybody)
        self.assertEqual(self.fan_out.dropped, 3)


class NewestTests(Case):
    """Issue 13: of a key only the newest is on its way."""

    def setUp(self) -> None:
        super().setUp()
        self.everybody = [Heard() for _ in range(3 * CHUNK)]

    def newest(self, text: bytes, key: str = "k", to: list[Heard] | None = None) -> int:
        return self.send(text, self.everybody if to is None else to, key, newest=True)

    def test_the_older_one_goes_no_further(self) -> None:
        self.newest(b"a")
        self.assertEqual(self.newest(b"b"), 0)
        self.assertEqual(self.done, [b"a"])
        self.assertEqual(self.fan_out.dropped, 2 * CHUNK)
        self.run_out()
        self.assertEqual(self.done, [b"a", b"b"])
        self.assertTrue(all(each.heard == [b"a", b"b"] for each in self.everybody[:CHUNK]))
        self.assertTrue(all(each.heard == [b"b"] for each in self.everybody[CHUNK:]))

    def test_nobody_waits_for_longer_than_it_takes_to_reach_all(self) -> None:
        """However often there is a newer one: those that were left out come first."""
        for n in range(9):
            self.newest(b"%d" % n)
            self.fan_out.run(CHUNK if n else 0)
        self.assertEqual({len(each.heard) for each in self.everybody}, {3})

    def test_many_in_one_turn_send_one_part(self) -> None:
        sent = sum(self.newest(b"%d" % n) for n in range(100))
        self.assertEqual(sent, CHUNK)
        self.run_out()
        self.assertEqual({each.heard[-1] for each in self.everybody}, {b"99"})

    def test_those_who_left_meanwhile_get_neither(self) -> None:
        self.newest(b"a")
        self.newest(b"b", to=self.everybody[:-1])
        self.run_out()
        self.assertEqual(self.everybody[-1].heard, [])

    def test_other_keys_and_events_are_left_alone(self) -> None:
        self.newest(b"a1", "a")
        self.newest(b"b1", "b")
        self.send(b"event", self.everybody, newest=True)
        self.newest(b"a2", "a")
        self.run_out()
        self.assertEqual(self.everybody[-1].heard, [b"b1", b"event", b"a2"])
        self.assertEqual(self.done, [b"a1", b"b1", b"event", b"a2"])

    def test_a_newer_one_within_the_end_of_the_older(self) -> None:
        """Issue 13: whoever is told that it has ended may publish the next."""
        ended: list[str] = []

        def done() -> None:
            ended.append("a")
            self.newest(b"c")

        self.fan_out.send(Publication(b"a", "k"), self.everybody, newest=True, done=done)
        self.newest(b"b")
        self.run_out()
        self.assertEqual(ended, ["a"])
        self.assertEqual({each.heard[-1] for each in self.everybody}, {b"c"})
        self.assertFalse(self.fan_out.pending)

    def test_what_has_ended_is_let_go_at_once(self) -> None:
        """Without the help of the collector, which runs rarely in a large process."""
        gc.disable()
        self.addCleanup(gc.enable)
        for newest in (False, True):
            made: list[weakref.ref[Any]] = []
            for _ in range(3):

                def make(recipient: Any) -> bytes:
                    return b"x"

                made.append(weakref.ref(make))
                self.send(b"", self.everybody, "k", payload=ForEach(make), newest=newest)
                del make
            self.run_out()
            self.assertEqual([ref() for ref in made], [None] * 3)

    def test_nothing_is_kept_of_what_has_ended(self) -> None:
        for n in range(10):
            self.newest(b"x", f"key {n}")
            self.run_out()
        self.assertEqual(self.fan_out.dropped, 0)
        self.assertIs(self.fan_out._latest, None)

    def test_those_that_were_replaced_count_as_no_more_on_their_way(self) -> None:
        for n in range(10):
            self.newest(b"%d" % n)
        self.send(b"event", self.everybody)
        self.run_out()
        self.assertEqual(self.everybody[-1].heard, [b"9", b"event"])
