"""What a node sends to the others: how it is packed, and how much may wait."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.messages import Message, Model
from kupool.bus.rabbit.carrier import EVERYBODY
from kupool.bus.rabbit.items import Beat, Bye, Items, Tell, TellAll, encode, unpack
from kupool.bus.rabbit.outgoing import Outgoing
from kupool.bus.rabbit.settings import MeshSettings


class Carrier:
    """Notes what it is to carry: the address, what it is, and for how long it is of use."""

    def __init__(self) -> None:
        self.writable = True
        self.sent: list[tuple[str, list[Items | None], float]] = []
        self.drops: list[str] = []

    def send(self, address: str, body: bytes, seconds: float) -> None:
        self.sent.append((address, list(unpack(body)), seconds))

    def drop(self, why: str) -> None:
        self.drops.append(why)


def message(data: bytes = b"", name: str = "id") -> Message:
    return Message(name, "t", data, Model.UNRELIABLE_ALL, {})


class OutgoingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.carrier = Carrier()
        self.outgoing = self.make()

    def make(self, nodes: int = 4, **limits: Any) -> Outgoing:
        settings = MeshSettings(**limits)
        return Outgoing(self.clock, cast(Any, self.carrier), settings, lambda: nodes)

    def sent(self) -> list[tuple[str, list[Items | None]]]:
        self.clock.advance(0)
        sent = [(address, items) for address, items, _ in self.carrier.sent]
        self.carrier.sent.clear()
        return sent

    def test_one_message_to_each_in_each_turn(self) -> None:
        """A-31: all items for one node leave in one message, in order."""
        self.outgoing.add("a", Beat(1))
        self.outgoing.add("b", Beat(2))
        self.outgoing.add("a", Bye())
        self.assertEqual(self.carrier.sent, [])
        self.assertEqual(self.sent(), [("a", [Beat(1), Bye()]), ("b", [Beat(2)])])
        self.assertEqual((self.outgoing.size, self.sent()), (0, []))

    def test_what_everybody_gets_keeps_its_place(self) -> None:
        """A-31: what came before it leaves before it, what comes after it after it."""
        self.outgoing.add("a", Beat(1))
        self.outgoing.add(EVERYBODY, Beat(2))
        self.outgoing.add(EVERYBODY, Beat(3))
        self.outgoing.add("a", Beat(4))
        expected = [("a", [Beat(1)]), (EVERYBODY, [Beat(2), Beat(3)]), ("a", [Beat(4)])]
        self.assertEqual(self.sent(), expected)

    def test_how_long_it_is_of_use(self) -> None:
        """A message is, for as long as something in it; by default for as long as any is."""
        self.outgoing.add("a", Beat(1), 0.5)
        self.outgoing.add("a", Beat(2), 2.0)
        self.outgoing.add("a", Beat(3), 1.0)
        self.outgoing.add("b", Beat(4))
        self.outgoing.tell("c", "c", "s", message())
        self.outgoing.add("d", Beat(5), 0.5)
        self.clock.advance(0)
        found = [seconds for _, _, seconds in self.carrier.sent]
        self.assertEqual(found, [2.0, 10.0, 10.0, 0.5])

    def test_unreliable_messages_to_few_and_to_many(self) -> None:
        """A-31: to those that have a subscriber, or to all where more than half have one."""
        for told, fanout in ((1, False), (2, False), (3, True)):
            one = message()
            for name in "abc"[:told]:
                self.outgoing.tell(name, name, "s1", one)
                self.outgoing.tell(name, name, "s2", one)
            both = ["s1", "s2"]
            if fanout:
                subscribers = dict.fromkeys("abc"[:told], both)
                self.assertEqual(self.sent(), [(EVERYBODY, [TellAll(one, subscribers)])])
            else:
                expected = [(name, [Tell(one, both)]) for name in "abc"[:told]]
                self.assertEqual(self.sent(), expected)

    def test_half_of_the_nodes(self) -> None:
        """A-31: of two other nodes two are more than half, of three as well, of four not."""
        for nodes, fanout in ((2, True), (3, True), (4, False)):
            self.outgoing, one = self.make(nodes), message()
            for name in "ab":
                self.outgoing.tell(name, name, "s", one)
            addresses = [EVERYBODY] if fanout else ["a", "b"]
            self.assertEqual([address for address, _ in self.sent()], addresses)

    def test_two_nodes(self) -> None:
        """A-31: to the only other node nothing goes by fanout."""
        self.outgoing = self.make(nodes=1)
        self.outgoing.tell("a", "a", "s", message())
        self.assertEqual(self.sent(), [("a", [Tell(message(), ["s"])])])

    def test_equal_messages_are_two(self) -> None:
        one, other = message(), message()
        for each in (one, other):
            self.outgoing.tell("a", "a", "s", each)
        self.assertEqual(self.sent(), [("a", [Tell(one, ["s"]), Tell(other, ["s"])])])

    def test_order_between_messages_and_the_rest(self) -> None:
        self.outgoing.tell("a", "a", "s", message(b"1"))
        self.outgoing.add("a", Beat(1))
        self.outgoing.tell("a", "a", "s", message(b"2"))
        (sent,) = self.sent()
        self.assertEqual([type(item) for item in sent[1]], [Tell, Beat, Tell])

    def test_large_messages_are_split(self) -> None:
        """A-31: a message of RabbitMQ holds so many bytes, or one item that is larger."""
        self.outgoing = self.make(max_batch=250)
        for _ in range(4):
            self.outgoing.tell("a", "a", "s", message(b"x" * 100))
        self.outgoing.tell("a", "a", "s", message(b"x" * 300))
        sizes = [[len(cast(Tell, item).message.data) for item in items] for _, items in self.sent()]
        self.assertEqual(sizes, [[100], [100], [100], [100], [300]])
        self.outgoing = self.make(max_batch=500)
        for _ in range(4):
            self.outgoing.tell("a", "a", "s", message(b"x" * 100))
        self.assertEqual([len(items) for _, items in self.sent()], [3, 1])

    def test_as_many_as_fit(self) -> None:
        piece = len(encode(Tell(message(b"x" * 100), ["s"])))
        for most, counts in ((2 * piece, [2, 2]), (2 * piece - 1, [1, 1, 1, 1])):
            self.outgoing = self.make(max_batch=most)
            for _ in range(4):
                self.outgoing.add("a", Tell(message(b"x" * 100), ["s"]))
            self.assertEqual([len(items) for _, items in self.sent()], counts)

    def test_how_much_waits(self) -> None:
        """A-13: data counts once for a message to many, with 200 bytes; so do 40 for each name."""
        self.outgoing = self.make(max_unsent=1000)
        self.assertFalse(self.outgoing.full(1000))
        self.assertTrue(self.outgoing.full(1001))
        one = message(b"x" * 100)
        self.outgoing.tell("a", "a", "s", one)
        self.assertEqual(self.outgoing.size, 100 + 200 + 40)
        self.outgoing.tell("b", "b", "s", one)
        self.assertEqual(self.outgoing.size, 100 + 200 + 2 * 40)
        left = 1000 - self.outgoing.size
        self.assertEqual([self.outgoing.full(left), self.outgoing.full(left + 1)], [False, True])
        self.sent()
        self.assertFalse(self.outgoing.full(1000))

    def test_nothing_is_taken(self) -> None:
        """A-13: it waits, up to twice the limit; over that the connection is given up."""
        self.outgoing = self.make(max_unsent=1000)
        self.carrier.writable = False
        for _ in range(2):
            self.outgoing.tell("a", "a", "s", message(b"x" * 500))
        self.clock.advance(0)
        self.assertLessEqual(self.outgoing.size, 2000)
        self.assertEqual((self.carrier.sent, self.carrier.drops), ([], []))
        self.outgoing.tell("a", "a", "s", message(b"x" * 500))
        self.clock.advance(0)
        self.assertEqual((len(self.carrier.drops), self.outgoing.size), (1, 0))
        self.carrier.writable = True
        self.outgoing.flush()
        self.assertEqual(self.sent(), [])

    def test_as_much_as_may_wait(self) -> None:
        """A-13: exactly twice the limit still waits; each item counts with its bytes."""
        piece = len(encode(Beat(1)))
        self.outgoing = self.make(max_unsent=piece)
        self.carrier.writable = False
        for _ in range(2):
            self.outgoing.add("a", Beat(1))
            self.clock.advance(0)
        self.assertEqual((self.outgoing.size, self.carrier.drops), (2 * piece, []))
        self.outgoing.add("a", Beat(1))
        self.clock.advance(0)
        self.assertEqual(self.carrier.drops, ["RabbitMQ accepts no data on this connection"])

    def test_taken_again(self) -> None:
        self.carrier.writable = False
        self.outgoing.add("a", Beat(1))
        self.clock.advance(0)
        self.carrier.writable = True
        self.outgoing.flush()
        self.assertEqual(self.sent(), [("a", [Beat(1)])])

    def test_forgotten(self) -> None:
        self.outgoing.add("a", Beat(1))
        self.outgoing.tell("a", "a", "s", message())
        self.outgoing.clear()
        self.assertEqual((self.outgoing.size, self.sent()), (0, []))
