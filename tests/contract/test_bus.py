"""What every bus does, in one process or over a network.

A form is added by a subclass of :class:`BusContract` that makes buses and lets time pass:
on a fake clock where it can, else in earnest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import sqrt
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kupool.bus import (
    Answer,
    BusSettings,
    IBus,
    Kind,
    Message,
    Model,
    NotMine,
    Outcome,
    Refusal,
)
from kupool.bus.broker import Broker
from kupool.bus.local import LocalBus
from kupool.bus.members import SILENCE
from kupool.bus.rabbit.bus import MeshBus
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.compatible import COMPATIBLE, CompatibleCodec
from kupool.bus.remote.service import BusService
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.testing import MemoryNetwork
from kupool.net.transport.protocols import FACTORIES, CodecFactory
from kupool.wire.framing import FRAME, INT32, LINE
from tests.fakes.bus_exchange import Exchange, MemoryCarrier

#: A mixin has the methods of a test case from the class that it is mixed into.
_Base: Any = TestCase if TYPE_CHECKING else object


class Heard:
    """A handler that notes what it gets, and answers with its name or as it is told."""

    def __init__(self, name: str = "", answer: Any = None) -> None:
        self.name = name
        self.answer = answer
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> Any:
        self.messages.append(message)
        if isinstance(self.answer, type) and issubclass(self.answer, Exception):
            raise self.answer("said so")
        if callable(self.answer):
            return self.answer(message)
        return self.name.encode() if self.answer is None else self.answer

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.messages]


def silent(message: Message) -> Deferred[bytes]:
    """A handler that never answers."""
    return Deferred()


class BusContract(_Base):
    """A-61: the suite; mixed into a TestCase by each form."""

    settings = BusSettings()

    #: Seconds that something may take beside what it is to take: more where time is real.
    slack = 0.0

    #: Calls that are shared out evenly, a multiple of 250. 10,000 where the choice is made, fewer
    #: where only the way to it is another. tests/faults/test_bus_kills.py has 10,000 over sockets.
    shared_calls = 1000

    # -- what a form provides

    async def open_bus(self) -> Any:
        """Return a participant of the test's one bus; the first call makes that bus."""
        raise NotImplementedError

    async def passes(self, seconds: float) -> None:
        """Let time pass, and all happen that is to happen meanwhile."""
        raise NotImplementedError

    def now(self) -> float:
        raise NotImplementedError

    def alarm(self, seconds: float) -> Deferred[None]:
        """Return a Deferred that fires in so many seconds."""
        raise NotImplementedError

    # -- helpers

    async def result(self, deferred: Deferred[Any], most: float = 10.0) -> Any:
        """Wait for a result; fails when it is not there in time."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        end = self.now() + most
        await self.passes(0)
        while not found and self.now() < end:
            await self.passes(0.01)
        self.assertEqual(len(found), 1, "no outcome")
        return found[0]

    async def becomes(self, expected: Any, value: Callable[[], Any], note: object = "") -> None:
        """Wait until a value is as expected, and make sure that it stays so."""
        end = self.now() + 0.1 + 5 * self.slack
        await self.passes(0)
        while value() != expected and self.now() < end:
            await self.passes(0.01)
        await self.passes(0.05)
        self.assertEqual(value(), expected, note)

    async def ends_in_time(self, publish: Any, *args: Any) -> Outcome:
        """Publish with half a second; the outcome comes within 100 ms of the deadline."""
        start = self.now()
        waiting = publish(*args, 0.5)
        # It is the order that counts: what holds up the test as well is not the bus's fault.
        too_late = self.alarm(0.6)
        outcome: Outcome = await self.result(waiting)
        self.assertFalse(too_late.called, outcome)
        self.assertGreaterEqual(self.now() - start, 0.499)
        await self.result(too_late)
        return outcome

    async def listen(self, bus: Any, handler: Any, *topics: Any, **options: Any) -> Any:
        done = bus.subscribe(topics or ("t",), handler, **options)
        return await self.result(done)

    async def open_log_errors(self, count: int) -> None:
        logged = self.flushLoggedErrors(ValueError)
        self.assertEqual(len(logged), count)

    # -- the interface

    async def test_interface(self) -> None:
        """A-61: one interface."""
        verifyObject(IBus, await self.open_bus())

    async def test_arguments(self) -> None:
        """A-23, A-11: what cannot be right is said at once; 10 ms is the shortest time."""
        bus = await self.open_bus()
        for call in (
            lambda: bus.publish_reliable_random("text", "t"),
            lambda: bus.publish_reliable_random(b"", "t", 0.009),
            lambda: bus.publish_reliable_random(b"", "t", 3601),
            lambda: bus.publish_reliable_random(b"", "t", float("nan")),
            lambda: bus.publish_reliable_random(b"", "a.*"),
            lambda: bus.publish_unreliable_all(b"", "a..b"),
            lambda: bus.publish_unreliable_all(b"", -1),
            lambda: bus.publish_unreliable_all(b"", ""),
            lambda: bus.publish_unreliable_all(b"x" * (self.settings.max_data + 1), "t"),
            lambda: bus.publish_unreliable_all(b"", "t", headers={"a": "x" * 2048}),
            lambda: bus.publish_unreliable_all(b"", "t", headers={"a": "\n"}),
            lambda: bus.subscribe("t", Heard()),
            lambda: bus.subscribe([], Heard()),
            lambda: bus.subscribe(["a.>.b"], Heard()),
            lambda: bus.subscribe(["t"], Heard(), keys=["\n"]),
        ):
            with self.assertRaises(ValueError):
                call()

    # -- members

    async def test_members(self) -> None:
        """A-61, issue 13: the members of a topic are its subscribers, wherever they are."""
        bus, other = await self.open_bus(), await self.open_bus()
        told: list[Any] = []

        def keys() -> Any:
            return None if not told or told[-1] is None else [m.keys for m in told[-1]]

        await self.result(bus.watch("crew", told.append))
        await self.becomes([], keys)
        here, there, nobody = Heard(), Heard(), Heard()
        await self.listen(other, there, "crew", keys=["b", "a"])
        await self.becomes([("a", "b")], keys)
        await self.listen(bus, here, "crew", "else", keys=["c"])
        await self.listen(bus, nobody, "else", keys=["d"])
        await self.becomes([("a", "b"), ("c",)], keys)
        self.assertEqual(len({member.id for member in told[-1]}), 2)
        await self.result(other.unsubscribe(there))
        await self.becomes([("c",)], keys)
        await self.result(bus.unsubscribe(here, ["crew"]))
        await self.becomes([], keys)
        await self.result(bus.unwatch(told.append))
        before = len(told)
        await self.listen(other, there, "crew", keys=["e"])
        await self.passes(0.1 + self.slack / 2)
        self.assertEqual(len(told), before)
        await self.result(bus.unwatch(told.append))

    async def test_a_watch_of_what_is_no_topic(self) -> None:
        bus = await self.open_bus()
        for topic in ("a.*", "", "a..b"):
            with self.assertRaises(ValueError):
                bus.watch(topic, print)

    async def test_who_watches_is_told_all_that_matters_whatever_another_raises(self) -> None:
        bus = await self.open_bus()
        told: list[Any] = []

        def fail(members: Any) -> None:
            raise ValueError

        await self.result(bus.watch("crew", fail))
        await self.result(bus.watch("crew", told.append))
        await self.becomes([()], lambda: told)
        await self.listen(bus, Heard(), "crew", keys=["a"])
        await self.becomes(2, lambda: len(told))
        await self.open_log_errors(2)

    # -- reliable, to a random one

    async def test_answer(self) -> None:
        """A-02, A-18, A-25: one call, one answer, with bytes and a status."""
        bus, other = await self.open_bus(), await self.open_bus()
        large = bytes(range(256)) * (self.settings.max_data // 256)
        for data, answer in (
            (b"", Answer(b"", 0)),
            ("名".encode(), Answer("答".encode(), 7)),
            (large, Answer(large[::-1], -1)),
        ):
            handler = Heard(answer=answer)
            await self.listen(other, handler)
            outcome = await self.result(bus.publish_reliable_random(data, "t"))
            self.assertEqual(outcome.kind, Kind.ANSWERED)
            self.assertEqual((outcome.data, outcome.status), answer)
            self.assertEqual(handler.data, [data])
            self.assertTrue(outcome.subscriber)
            await self.result(other.unsubscribe(handler))

    async def test_kinds_of_handlers(self) -> None:
        """A-18: a handler answers with bytes, nothing, a Deferred or a coroutine."""
        bus = await self.open_bus()
        late: list[Deferred[bytes]] = []

        def deferred(message: Message) -> Deferred[bytes]:
            late.append(Deferred())
            return late[-1]

        async def coroutine(message: Message) -> bytes:
            return await deferred(message)

        for answer in (b"x", deferred, coroutine):
            handler = Heard(answer=answer)
            await self.listen(bus, handler)
            waiting = bus.publish_reliable_random(b"", "t")
            await self.passes(0.1)
            if callable(answer):
                late.pop().callback(b"x")
            self.assertEqual((await self.result(waiting)).data, b"x")
            await self.result(bus.unsubscribe(handler))
        await self.listen(bus, Heard(answer=lambda message: None))
        outcome = await self.result(bus.publish_reliable_random(b"", "t"))
        self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, b""))

    async def test_even(self) -> None:
        """A-19: of 10,000 calls each of 4 subscribers gets 25 % within 2 %, none twice."""
        bus = await self.open_bus()
        handlers = [Heard(str(n)) for n in range(4)]
        for handler in handlers:
            await self.listen(await self.open_bus(), handler)
        answers: Counter[bytes] = Counter()
        for _ in range(self.shared_calls // 250):
            waiting = [bus.publish_reliable_random(b"%d" % n, "t", 30.0) for n in range(250)]
            for deferred in waiting:
                answers[(await self.result(deferred)).data] += 1
        # 2 % of 10,000. Chance alone leaves this range once in 200,000 tests.
        margin = 2 * sqrt(self.shared_calls)
        for handler in handlers:
            self.assertEqual(len(handler.messages), answers[handler.name.encode()])
            self.assertApproximates(len(handler.messages), self.shared_calls / 4, margin)
        self.assertEqual(answers.total(), self.shared_calls)

    async def test_failing_subscriber(self) -> None:
        """A-20, A-16: after an exception another is asked, and told that it is."""
        bus, other = await self.open_bus(), await self.open_bus()
        bad, good = Heard(answer=ValueError), Heard("good")
        await self.listen(bus, bad)
        await self.listen(other, good)
        for _ in range(20):
            outcome = await self.result(bus.publish_reliable_random(b"", "t"))
            self.assertEqual(outcome.data, b"good")
        self.assertTrue(bad.messages)
        self.assertEqual({m.redelivered for m in bad.messages}, {False})
        again = [m for m in good.messages if m.redelivered]
        self.assertEqual(len(again), len(bad.messages))
        self.assertEqual(len(good.messages), 20)
        await self.open_log_errors(len(bad.messages))

    async def test_silent_subscriber(self) -> None:
        """A-20: who does not answer within a third of the time gets company."""
        bus, other = await self.open_bus(), await self.open_bus()
        lazy, good = Heard(answer=silent), Heard("good")
        await self.listen(bus, lazy)
        waiting = bus.publish_reliable_random(b"", "t", 3.0)
        await self.passes(0.3)
        await self.listen(other, good)
        await self.passes(0.3)
        self.assertEqual(good.messages, [])
        self.assertEqual((await self.result(waiting)).data, b"good")
        (message,) = good.messages
        self.assertTrue(message.redelivered)
        self.assertLessEqual(message.timeout, 2.01)
        self.assertGreater(message.timeout, 1.9 - self.slack)
        self.assertEqual(len(lazy.messages), 1)

    async def test_late_answer_of_the_first(self) -> None:
        """A-20, A-22: the first may still answer when another has been asked."""
        bus = await self.open_bus()
        late: Deferred[bytes] = Deferred()
        lazy, other = Heard(answer=lambda m: late), Heard(answer=silent)
        await self.listen(bus, lazy)
        waiting = bus.publish_reliable_random(b"", "t", 3.0)
        await self.passes(0.1)
        await self.listen(bus, other)
        await self.passes(1.0)
        self.assertEqual(len(other.messages), 1)
        late.callback(b"late")
        self.assertEqual((await self.result(waiting)).data, b"late")

    async def test_timeout(self) -> None:
        """A-21, A-22: the deadline is kept to within 100 ms; an answer after it is nothing."""
        bus, other = await self.open_bus(), await self.open_bus()
        late: Deferred[bytes] = Deferred()
        await self.listen(other, Heard(answer=lambda m: late))
        outcome = await self.ends_in_time(bus.publish_reliable_random, b"", "t")
        self.assertEqual(outcome.kind, Kind.TIMEOUT)
        if not late.called:
            late.callback(b"too late")
        await self.passes(0.1)
        status = await self.result(bus.status())
        self.assertEqual(status.calls, 0)
        self.assertEqual(status.subscribers[0].unanswered, 0)

    async def test_default_timeout(self) -> None:
        """A-23: three seconds, unless the settings say something else."""
        self.assertEqual(BusSettings().timeout, 3.0)
        bus = await self.open_bus()
        await self.listen(bus, Heard(answer=silent))
        start = self.now()
        outcome = await self.result(bus.publish_reliable_random(b"", "t"))
        self.assertEqual(outcome.kind, Kind.TIMEOUT)
        taken = self.now() - start
        self.assertGreater(taken, self.settings.timeout - 0.01)
        self.assertLess(taken, self.settings.timeout + 0.11 + self.slack)

    async def test_waits_for_a_subscriber(self) -> None:
        """A-24, A-14: what nobody is there for waits, and costs nothing; then it is done."""
        bus, other = await self.open_bus(), await self.open_bus()
        waiting = [bus.publish_reliable_random(b"%d" % n, "a.b", 4.0) for n in range(20)]
        await self.passes(0.7)
        handler = Heard("x")
        await self.listen(other, handler, "a.*")
        for deferred in waiting:
            self.assertEqual((await self.result(deferred)).data, b"x")
        self.assertEqual(sorted(handler.data), sorted(b"%d" % n for n in range(20)))
        self.assertEqual({m.redelivered for m in handler.messages}, {False})
        self.assertLess(max(m.timeout for m in handler.messages), 3.4)

    async def test_no_subscriber(self) -> None:
        """A-12, A-22: nobody came until the deadline; also where the last one has left."""
        bus, other = await self.open_bus(), await self.open_bus()
        for model in (bus.publish_reliable_random, bus.publish_reliable_specific):
            outcome = await self.result(model(b"", "t", 0.2))
            self.assertEqual(outcome.kind, Kind.NO_SUBSCRIBER)
        handler = Heard("x")
        await self.listen(other, handler)
        await self.result(bus.publish_reliable_random(b"", "t"))
        await self.result(other.unsubscribe(handler))
        for model in (bus.publish_reliable_random, bus.publish_reliable_specific):
            outcome = await self.result(model(b"", "t", 0.2))
            self.assertEqual(outcome.kind, Kind.NO_SUBSCRIBER)
        self.assertEqual(len(handler.messages), 1)

    async def test_handler_exception(self) -> None:
        """A-16: an exception is an error to the publisher, at once, and nothing else."""
        bus, other = await self.open_bus(), await self.open_bus()
        await self.listen(other, Heard(answer=ValueError), "bad")
        await self.listen(other, Heard("good"), "good")
        start = self.now()
        for publish in (bus.publish_reliable_random, bus.publish_reliable_specific):
            outcome = await self.result(publish(b"", "bad"))
            self.assertEqual(outcome.kind, Kind.REFUSED)
            self.assertIn("internal error, reference ", outcome.reason)
            self.assertNotIn("said so", outcome.reason)
        self.assertLess(self.now() - start, 0.5 + self.slack)
        outcome = await self.result(bus.publish_reliable_random(b"", "good"))
        self.assertEqual(outcome.data, b"good")
        await self.open_log_errors(2)

    async def test_refusal(self) -> None:
        """A-22: who refuses has answered: nobody else is asked."""
        bus, other = await self.open_bus(), await self.open_bus()
        handlers = [Heard(answer=Refusal), Heard(answer=Refusal)]
        await self.listen(bus, handlers[0])
        await self.listen(other, handlers[1])
        outcome = await self.result(bus.publish_reliable_random(b"", "t"))
        self.assertEqual((outcome.kind, outcome.reason), (Kind.REFUSED, "said so"))
        self.assertEqual(sum(len(h.messages) for h in handlers), 1)

    async def test_answer_that_is_too_large(self) -> None:
        """A-25: it is an error, and costs the subscriber nothing else."""
        bus, other = await self.open_bus(), await self.open_bus()
        sizes = [self.settings.max_data + 1, 10 * self.settings.max_data, 1]
        await self.listen(other, Heard(answer=lambda m: b"x" * sizes.pop(0)))
        for _ in range(2):
            outcome = await self.result(bus.publish_reliable_random(b"", "t"))
            self.assertEqual(outcome.kind, Kind.REFUSED)
            self.assertIn("too large", outcome.reason)
        outcome = await self.result(bus.publish_reliable_random(b"", "t"))
        self.assertEqual(outcome.data, b"x")

    async def test_answers_of_a_wrong_type(self) -> None:
        """Issue 13, A-25: fail in the same way, whatever form the bus has."""
        bus, other = await self.open_bus(), await self.open_bus()
        answers: list[Any] = ["text", 7, bytearray(b"x"), [b"x"], True]
        odd = [("text", 0), (b"x", 1.5), (b"x", True), (b"x", None), (b"x", 2**63), (None, 0)]
        answers += [Answer(data, status) for data, status in odd]  # type: ignore[arg-type]
        await self.listen(other, Heard(answer=lambda m: answers.pop(0)))
        for _ in range(5):
            outcome = await self.result(bus.publish_reliable_random(b"", "t"))
            self.assertEqual(outcome.kind, Kind.REFUSED)
            self.assertIn("internal error, reference ", outcome.reason)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 5)
        for _ in odd:
            outcome = await self.result(bus.publish_reliable_random(b"", "t"))
            self.assertEqual(
                (outcome.kind, outcome.reason), (Kind.REFUSED, "an answer that cannot be sent")
            )

    async def test_bytes_of_another_class(self) -> None:
        """Issue 13, A-25: are bytes on their way, in both directions."""

        class Mine(bytes):
            pass

        bus, other = await self.open_bus(), await self.open_bus()
        handler = Heard(answer=lambda m: Mine(b"\xff"))
        await self.listen(other, handler)
        outcome = await self.result(bus.publish_reliable_random(Mine(b"x"), "t"))
        self.assertEqual((outcome.data, type(outcome.data)), (b"\xff", bytes))
        self.assertEqual([(m.data, type(m.data)) for m in handler.messages], [(b"x", bytes)])

    async def test_long_refusal(self) -> None:
        """Issue 13: what a handler says costs nobody a connection, however long it is."""
        bus, other = await self.open_bus(), await self.open_bus()
        said: list[Any] = [Refusal("\0" * 200_000), Refusal("short")]

        def refuse(message: Message) -> bytes:
            raise said.pop(0)

        await self.listen(other, Heard(answer=refuse))
        first = await self.result(bus.publish_reliable_random(b"", "t"))
        self.assertEqual((first.kind, first.reason), (Kind.REFUSED, "\0" * 1000))
        second = await self.result(bus.publish_reliable_random(b"", "t"))
        self.assertEqual((second.kind, second.reason), (Kind.REFUSED, "short"))

    async def test_a_message_that_fits_no_wire(self) -> None:
        """Issue 13: is refused where it is published, at once, and the bus goes on."""
        bus, other = await self.open_bus(), await self.open_bus()
        handler = Heard("x")
        topic = '"' * 255
        await self.listen(other, handler, topic)
        large = b"\xff" * self.settings.max_data
        headers = {chr(0x4E00 + n): "" for n in range(680)}
        for publish in (bus.publish_reliable_specific, bus.publish_unreliable_all):
            start = self.now()
            try:
                outcome = await self.result(publish(large, topic, headers=headers))
            except ValueError as error:
                self.assertIn(" bytes as JSON, at most ", str(error))
            else:  # only this connection's framing has no room for it
                self.assertEqual(outcome.kind, Kind.REFUSED)
                self.assertIn("too large", outcome.reason)
            self.assertLess(self.now() - start, 0.1 + self.slack)
        outcome = await self.result(bus.publish_reliable_random(large[:100], topic))
        self.assertEqual(outcome.data, b"x")
        self.assertEqual([len(m.data) for m in handler.messages], [100])

    async def test_headers(self) -> None:
        """A-17: headers, topic, model and the time that is left reach the handler."""
        bus, other = await self.open_bus(), await self.open_bus()
        handler = Heard("x")
        await self.listen(other, handler)
        headers = {"trace-id": "abc", "content-type": "text/plain", "x": "名"}
        await self.result(bus.publish_reliable_specific(b"1", "t", 2.0, key="k", headers=headers))
        await self.result(bus.publish_unreliable_all(b"2", "t", headers=headers))
        await self.becomes([b"1", b"2"], lambda: handler.data)
        first, second = handler.messages
        self.assertEqual([first.headers, second.headers], [headers, headers])
        self.assertEqual((first.key, first.topic), ("k", "t"))
        self.assertIs(first.model, Model.RELIABLE_SPECIFIC)
        self.assertIs(second.model, Model.UNRELIABLE_ALL)
        self.assertLessEqual(first.timeout, 2.0)
        self.assertGreater(first.timeout, 1.9 - self.slack)
        self.assertEqual(second.timeout, 0)

    async def test_cancel(self) -> None:
        """A-22: a call that is cancelled has that for its outcome, and is forgotten."""
        bus = await self.open_bus()
        handler = Heard(answer=silent)
        await self.listen(bus, handler)
        waiting = bus.publish_reliable_random(b"", "t", 0.5)
        await self.passes(0.1)
        waiting.cancel()
        failure = await self.result(waiting)
        self.assertTrue(failure.check(CancelledError))
        await self.passes(0.6)
        self.assertEqual((await self.result(bus.status())).calls, 0)

    async def test_slow_subscriber(self) -> None:
        """A-15: one that has much to do delays nobody."""
        bus, other = await self.open_bus(), await self.open_bus()
        await self.listen(bus, Heard(answer=silent), "slow")
        quick = Heard("quick")
        await self.listen(other, quick, "quick")
        slow = [bus.publish_reliable_random(b"x" * 1000, "slow", 1.0) for _ in range(200)]
        start = self.now()
        outcome = await self.result(bus.publish_reliable_random(b"", "quick"))
        self.assertEqual(outcome.data, b"quick")
        self.assertLess(self.now() - start, 0.2 + self.slack)
        for deferred in slow:
            self.assertEqual((await self.result(deferred)).kind, Kind.TIMEOUT)

    # -- reliable, to the one that can

    async def test_specific(self) -> None:
        """A-26: all get it, the first answer counts."""
        bus, other = await self.open_bus(), await self.open_bus()
        owner, lazy, stranger = Heard("owner"), Heard(answer=silent), Heard(answer=NotMine)
        await self.listen(bus, lazy)
        await self.listen(bus, stranger)
        await self.listen(other, owner)
        outcome = await self.result(bus.publish_reliable_specific(b"1", "t"))
        self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, b"owner"))
        for handler in (owner, lazy, stranger):
            await self.becomes([b"1"], lambda handler=handler: handler.data)

    async def test_specific_timeout(self) -> None:
        """A-27: nobody answers: timeout."""
        bus, other = await self.open_bus(), await self.open_bus()
        await self.listen(bus, Heard(answer=NotMine))
        await self.listen(other, Heard(answer=silent))
        outcome = await self.ends_in_time(bus.publish_reliable_specific, b"", "t")
        self.assertEqual(outcome.kind, Kind.TIMEOUT)

    async def test_not_mine(self) -> None:
        """A-28: when all say that it is not theirs, the publisher hears it at once."""
        bus, other = await self.open_bus(), await self.open_bus()
        handlers = [Heard(answer=NotMine) for _ in range(4)]
        for handler in handlers[:2]:
            await self.listen(bus, handler)
        for handler in handlers[2:]:
            await self.listen(other, handler)
        for publish in (bus.publish_reliable_specific, bus.publish_reliable_random):
            start = self.now()
            outcome = await self.result(publish(b"", "t"))
            self.assertEqual(outcome.kind, Kind.NO_SUBSCRIBER)
            self.assertLess(self.now() - start, 0.2 + self.slack)
        for handler in handlers:
            self.assertEqual(len(handler.messages), 2)

    async def test_specific_for_one_that_comes_later(self) -> None:
        """A-29: who comes within the time gets it, too; nobody gets it twice."""
        bus, other = await self.open_bus(), await self.open_bus()
        first, second = Heard(answer=silent), Heard("second")
        await self.listen(bus, first)
        waiting = bus.publish_reliable_specific(b"", "a.b", 2.0)
        await self.listen(bus, first, "a.b", "a.*")
        await self.passes(0.5)
        self.assertEqual(len(first.messages), 1)
        await self.listen(other, second, "a.>")
        self.assertEqual((await self.result(waiting)).data, b"second")
        self.assertEqual((len(first.messages), len(second.messages)), (1, 1))

    async def test_keys(self) -> None:
        """A-30, A-26: on topics that say so a key's owner alone is asked; elsewhere all."""
        bus, other = await self.open_bus(), await self.open_bus()
        owner, stranger = Heard("owner"), Heard(answer=NotMine)
        await self.listen(bus, stranger, "direct.x", "t")
        await self.listen(other, owner, "direct.x", "t", keys=["bob"])
        outcome = await self.result(bus.publish_reliable_specific(b"1", "direct.x", key="bob"))
        self.assertEqual(outcome.data, b"owner")
        self.assertEqual(stranger.messages, [])
        for topic, key in (("direct.x", "eve"), ("direct.x", ""), ("t", "bob")):
            outcome = await self.result(bus.publish_reliable_specific(b"2", topic, key=key))
            self.assertEqual(outcome.data, b"owner")
        self.assertEqual(len(stranger.messages), 3)

    # -- unreliable

    async def test_unreliable_all(self) -> None:
        """A-31: everybody gets it, once, in order, and nobody answers."""
        bus, other = await self.open_bus(), await self.open_bus()
        handlers = [Heard(answer=ValueError), Heard("b"), Heard("c")]
        await self.listen(bus, handlers[0])
        for handler in handlers[1:]:
            await self.listen(other, handler, "t", "*", ">")
        for n in range(50):
            outcome = await self.result(bus.publish_unreliable_all(b"%d" % n, "t"))
            self.assertEqual(outcome, Outcome(Kind.SENT, receivers=3))
        for handler in handlers:
            wanted = [b"%d" % n for n in range(50)]
            await self.becomes(wanted, lambda handler=handler: handler.data)
        await self.open_log_errors(50)

    async def test_unreliable_random(self) -> None:
        """A-33: one gets it, evenly."""
        bus, other = await self.open_bus(), await self.open_bus()
        handlers = [Heard("a"), Heard("b")]
        await self.listen(bus, handlers[0])
        await self.listen(other, handlers[1])
        for n in range(400):
            outcome = await self.result(bus.publish_unreliable_random(b"%d" % n, "t"))
            self.assertEqual(outcome, Outcome(Kind.SENT, receivers=1))
        wanted = sorted(b"%d" % n for n in range(400))
        await self.becomes(wanted, lambda: sorted(handlers[0].data + handlers[1].data))
        self.assertGreater(min(len(handler.data) for handler in handlers), 120)

    async def test_buffer(self) -> None:
        """A-32, A-34, A-35: kept three seconds for the first that comes, then dropped."""
        self.assertEqual(BusSettings().buffer_time, 3.0)
        kept = self.settings.buffer_time
        bus, other = await self.open_bus(), await self.open_bus()
        for publish in (bus.publish_unreliable_all, bus.publish_unreliable_random):
            outcome = await self.result(publish(b"old", "a.b"))
            self.assertEqual(outcome, Outcome(Kind.SENT, receivers=0))
        await self.passes(kept * 2 / 3)
        await self.result(bus.publish_unreliable_all(b"new", "a.b"))
        await self.result(bus.publish_unreliable_random(b"newer", "a.b"))
        await self.passes(kept * 0.4)
        handler, second = Heard(), Heard()
        await self.listen(other, handler, "a.>")
        await self.listen(bus, second, "a.b")
        await self.becomes([b"new", b"newer"], lambda: handler.data)
        self.assertEqual(second.data, [])
        status = await self.result(bus.status())
        (topic,) = [t for t in status.topics if t.topic == "a.b"]
        self.assertEqual(topic.buffered, 0)
        self.assertEqual(topic.counts["buffered"], 4)
        self.assertEqual((topic.counts["expired"], topic.counts["delivered"]), (2, 2))

    # -- subscriptions

    async def test_subscribing_twice(self) -> None:
        """A-04: delivers once."""
        bus, other = await self.open_bus(), await self.open_bus()
        handler = Heard("x")
        first = await self.listen(other, handler, "t", "t")
        second = await self.listen(other, handler, "t", "u.*")
        self.assertEqual(first.id, second.id)
        self.assertEqual(second.topics, ("t", "u.*"))
        await self.result(bus.publish_unreliable_all(b"1", "t"))
        await self.result(bus.publish_reliable_specific(b"2", "t"))
        await self.becomes([b"1", b"2"], lambda: handler.data)

    async def test_unsubscribe(self) -> None:
        """A-03: removes exactly that subscriber, from one topic or from all."""
        bus, other = await self.open_bus(), await self.open_bus()
        stays, goes, theirs = Heard("stays"), Heard("goes"), Heard("theirs")
        for handler, where in ((stays, bus), (goes, bus), (theirs, other)):
            await self.listen(where, handler, "a", "b", "c.>")

        async def reaches(topic: str, *names: str) -> None:
            data = topic.encode()
            await self.result(bus.publish_unreliable_all(data, topic))
            await self.becomes(
                set(names), lambda: {h.name for h in (stays, goes, theirs) if data in h.data}
            )

        await self.result(bus.unsubscribe(goes, ["a"]))
        await self.result(bus.unsubscribe(goes, ["nothing"]))
        await reaches("a", "stays", "theirs")
        await reaches("b", "stays", "goes", "theirs")
        await self.result(bus.unsubscribe(goes))
        await self.result(bus.unsubscribe(goes))
        await reaches("c.x", "stays", "theirs")
        status = await self.result(bus.status())
        self.assertEqual(len(status.subscribers), 2)

    async def test_a_new_handler(self) -> None:
        """Issue 13: gets messages of its own topics, not those on their way to the one before."""
        bus, other = await self.open_bus(), await self.open_bus()
        old, new = Heard("old"), Heard("new")
        await self.listen(other, old, "pay", "pay.>")
        waiting = []
        for n in range(20):
            bus.publish_unreliable_all(b"%d" % n, "pay.more")
            waiting.append(bus.publish_reliable_random(b"%d" % n, "pay", 0.5))
        other.unsubscribe(old)
        await self.listen(other, new, "mail")
        for call in waiting:
            outcome = await self.result(call)
            self.assertIn(outcome.kind, (Kind.ANSWERED, Kind.NO_SUBSCRIBER, Kind.TIMEOUT))
            self.assertIn(outcome.data, (b"old", b""))
        self.assertEqual(new.messages, [])
        outcome = await self.result(bus.publish_reliable_random(b"", "mail"))
        self.assertEqual(outcome.data, b"new")

    async def test_topics(self) -> None:
        """A-11: names with levels, patterns, and integers."""
        bus, other = await self.open_bus(), await self.open_bus()
        handlers = {p: Heard(p) for p in ("a.b.c", "a.*.c", "a.>", "*", "7", ">", "a.b")}
        for pattern, handler in handlers.items():
            await self.listen(other, handler, 7 if pattern == "7" else pattern)
        for topic, fits in (
            ("a.b.c", {"a.b.c", "a.*.c", "a.>", ">"}),
            ("a.x.c", {"a.*.c", "a.>", ">"}),
            ("a", {"*", ">"}),
            ("a.b", {"a.b", "a.>", ">"}),
            (7, {"7", "*", ">"}),
        ):
            for handler in handlers.values():
                handler.messages.clear()
            await self.result(bus.publish_unreliable_all(b"", topic))
            await self.becomes(fits, lambda: {p for p, h in handlers.items() if h.messages}, topic)

    # -- what it knows of itself

    async def test_status(self) -> None:
        """A-37: topics with counts and their last 100 messages, subscribers since when."""
        bus, other = await self.open_bus(), await self.open_bus()
        subscription = await self.listen(other, Heard("x"), "a.*", "t")
        for n in range(120):
            await self.result(bus.publish_reliable_random(b"%d" % n, "a.b"))
        await self.result(bus.publish_unreliable_all(b"y" * 100, "nobody"))
        status = await self.result(bus.status())
        (subscriber,) = status.subscribers
        self.assertEqual(subscriber.id, subscription.id)
        self.assertEqual(subscriber.topics, ("a.*", "t"))
        self.assertEqual(subscriber.unanswered, 0)
        self.assertGreater(subscriber.since, 1_700_000_000)
        topics = {topic.topic: topic for topic in status.topics}
        self.assertEqual(topics["a.b"].counts, {"published": 120, "answered": 120})
        recent = topics["a.b"].recent
        self.assertEqual([r.start for r in recent], [b"%d" % n for n in range(20, 120)])
        self.assertEqual({(r.model, r.outcome) for r in recent}, {("reliable-random", "answered")})
        self.assertEqual(topics["nobody"].buffered, 1)
        (kept,) = topics["nobody"].recent
        self.assertEqual((kept.size, kept.outcome), (100, "buffered"))
        self.assertEqual(status.counts["published"], 121)

    async def test_trace(self) -> None:
        """A-60: published, offered, answered; found by the message's or a trace's id."""
        bus, other = await self.open_bus(), await self.open_bus()
        handler = Heard("x")
        subscription = await self.listen(other, handler)
        await self.result(bus.publish_reliable_random(b"", "t"))
        steps = await self.result(bus.trace(handler.messages[0].id))
        self.assertEqual([s.event for s in steps], ["published", "offered", "answered"])
        self.assertEqual(steps[1].subscriber, subscription.id)
        headers = {"trace-id": "my trace"}
        await self.result(bus.publish_reliable_random(b"", "none", 0.1, headers=headers))
        await self.result(bus.publish_unreliable_all(b"", "none", headers=headers))
        await self.passes(self.settings.buffer_time + 0.1)
        steps = await self.result(bus.trace("my trace"))
        self.assertEqual(
            [s.event for s in steps],
            ["published", "no subscriber", "published", "buffered", "expired"],
        )
        self.assertEqual(await self.result(bus.trace("unknown")), ())

    async def test_close(self) -> None:
        """A-22: whoever waits when a bus is closed is told; it can be closed twice."""
        bus = await self.open_bus()
        handler = Heard(answer=silent)
        await self.listen(bus, handler)
        waiting = [bus.publish_reliable_random(b"", t) for t in ("t", "nobody")]
        await self.passes(0.1)
        await self.result(bus.close())
        for deferred in waiting:
            self.assertEqual((await self.result(deferred, 0.2)).kind, Kind.REFUSED)
        for publish in (bus.publish_reliable_random, bus.publish_unreliable_all):
            outcome = await self.result(publish(b"", "t"))
            self.assertEqual(outcome.kind, Kind.REFUSED)
        await self.result(bus.close())


class FakeTime(_Base):
    """Time as the tests have it, for forms that take their clock from outside."""

    def setUp(self) -> None:
        self.clock = self.make_clock()
        self.random = Random(2017)

    def make_clock(self) -> Clock:
        return Clock()

    def wall(self) -> float:
        return 1_800_000_000.0 + self.clock.seconds()

    def now(self) -> float:
        return self.clock.seconds()

    def alarm(self, seconds: float) -> Deferred[None]:
        return deferLater(self.clock, seconds)

    async def passes(self, seconds: float) -> None:
        end = self.clock.seconds() + seconds
        self.settle()
        while (left := end - self.clock.seconds()) > 1e-9:
            self.clock.advance(min(0.01, left))
            self.settle()

    def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(200):
            calls = self.clock.getDelayedCalls()
            if not calls or calls[0].getTime() > self.clock.seconds():
                return
            self.clock.advance(0)
        raise AssertionError("there is no end to it")


class LocalBusTests(FakeTime, BusContract, TestCase):
    """A-61: in one process."""

    settings = BusSettings(direct=("direct.*",))
    shared_calls = 10_000

    def setUp(self) -> None:
        super().setUp()
        self.bus = LocalBus(self.clock, self.settings, wall=self.wall, random=self.random)

    async def open_bus(self) -> LocalBus:
        return self.bus


class MeshBusTests(FakeTime, BusContract, TestCase):
    """A-61, A-62: across nodes, each participant with a broker of its own."""

    settings = BusSettings(direct=("direct.*",))
    shared_calls = 10_000

    def setUp(self) -> None:
        super().setUp()
        self.exchange = Exchange(self.clock)

    async def open_bus(self) -> MeshBus:
        bus = MeshBus(
            self.clock,
            MemoryCarrier(self.exchange),
            self.settings,
            wall=self.wall,
            random=self.random,
        )
        await self.result(bus.connect())
        self.addCleanup(bus.close)
        return bus


class _RemoteBusTests(FakeTime, BusContract):
    """A-61, X-11: over a network in memory, each participant with a connection of its own."""

    settings = BusSettings(direct=("direct.*",))
    framing = FRAME
    clock: MemoryNetwork

    def setUp(self) -> None:
        super().setUp()
        self.broker = Broker(self.clock, self.settings, wall=self.wall, random=self.random)
        self.manager = ConnectionManager(self.clock, BusService(self.broker), ServerSettings())
        self.manager.start()
        self.addCleanup(self.manager.stop)
        self.clock.advance(SILENCE)  # until then the members of a server before it may come back
        port = self.clock.listenTCP(0, self.make_factory())
        self.endpoint = TCP4ClientEndpoint(self.clock, "127.0.0.1", port.number)

    def make_clock(self) -> MemoryNetwork:
        return MemoryNetwork()

    def settle(self) -> None:
        self.clock.settle()

    def make_factory(self) -> Any:
        return FACTORIES[self.framing.name](self.manager)

    async def open_bus(self) -> RemoteBus:
        bus = RemoteBus(self.clock, self.endpoint, self.settings, framing=self.framing)
        await self.result(bus.connect())
        self.addCleanup(self.end, bus)
        return bus

    def end(self, bus: RemoteBus) -> None:
        ended = bus.close()
        self.settle()
        self.assertTrue(ended.called)


class RemoteBusOverFrameTests(_RemoteBusTests, TestCase):
    """A-07, A-61: over `frame`."""


class RemoteBusOverLineTests(_RemoteBusTests, TestCase):
    """A-07, A-61: over `line`."""

    framing = LINE


class RemoteBusOverInt32Tests(_RemoteBusTests, TestCase):
    """A-07, A-61: over `int32`."""

    framing = INT32


class RemoteBusOverItsPredecessorsFrameTests(_RemoteBusTests, TestCase):
    """A-08, A-61: over the compatibility codec, whose messages are smaller."""

    settings = BusSettings(direct=("direct.*",), max_data=36_000)
    framing = COMPATIBLE

    def make_factory(self) -> Any:
        return CodecFactory(self.manager, CompatibleCodec())
