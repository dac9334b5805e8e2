"""What is on its way to the broker: what is sent, what counts as kept, and what fails."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError
from kupool.amqp.publisher import RENEW_DELAY, Publisher, PublisherSettings
from kupool.log import LogUnavailable

WALL = 1_800_000_000.5


class Channel:
    """A channel that confirms, and answers looks at queues, when it is told to."""

    def __init__(self) -> None:
        #: What was published, in order: (exchange, key, id, headers, body).
        self.published: list[tuple[str, str, str, dict[str, Any], bytes]] = []
        self.confirms: list[Deferred[None]] = []
        self.looks: list[tuple[str, Deferred[int]]] = []
        self.is_open = True
        self.on_closed: Callable[[BrokerError], object] = lambda reason: None
        self.returned: Callable[[str], object] = lambda message_id: None

    @property
    def ids(self) -> list[str]:
        return [message_id for _, _, message_id, _, _ in self.published]

    async def confirm(self, returned: Callable[[str], object]) -> None:
        self.returned = returned

    def publish(
        self, exchange: str, key: str, message_id: str, headers: dict[str, Any], *, body: bytes
    ) -> Deferred[None]:
        self.published.append((exchange, key, message_id, headers, body))
        self.confirms.append(Deferred())
        return self.confirms[-1]

    def look_at(self, queue: str) -> Deferred[int]:
        self.looks.append((queue, Deferred()))
        return self.looks[-1][1]

    def close(self) -> None:
        self.is_open = False

    # -- the broker

    def keep(self, *places: int) -> None:
        """Confirm what was published at these places."""
        for place in places:
            self.confirms[place].callback(None)

    def show(self) -> int:
        """Answer all looks; returns how many there were."""
        looks, self.looks = self.looks, []
        for _, look in looks:
            look.callback(0)
        return len(looks)


class Connection:
    """A connection of which the channels are those that are opened, one after the other."""

    broker = "broker:5672"

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self.blocked = False
        self.dropped: list[str] = []

    async def channel(self) -> Channel:
        self.channels.append(Channel())
        return self.channels[-1]

    def drop(self, why: str) -> None:
        self.dropped.append(why)


class Serial(int):
    """A serial number that notes when it is compared with the last one that a look covers."""

    compared: list[int] = []

    def __add__(self, other: int) -> Serial:
        return Serial(int(self) + other)

    def __gt__(self, other: int) -> bool:
        self.compared.append(int(self))
        return int(self) > other


class PublisherCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)  # no clock of a reactor begins with 0
        self.kept: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.make()

    def make(self, **settings: Any) -> None:
        self.publisher = Publisher(
            self.clock,
            lambda: WALL,
            lambda: ("one", "two"),
            PublisherSettings(**settings),
            unavailable=LogUnavailable,
        )

    def connect(self) -> Connection:
        connection = Connection()
        up = Deferred.fromCoroutine(self.publisher.up(connection))  # type: ignore[arg-type]
        self.successResultOf(up)
        return connection

    def publish(self, *ids: str, body: bytes = b"12345") -> None:
        for entry_id in ids:
            done = self.publisher.publish("exchange", "key", entry_id, {"pool": "p"}, body=body)
            done.addCallbacks(
                lambda _, entry_id=entry_id: self.kept.append(entry_id),
                lambda failure, entry_id=entry_id: self.failed.append(
                    (entry_id, str(failure.trap(LogUnavailable) and failure.value))
                ),
            )

    def assertIdle(self) -> None:
        self.assertEqual((self.publisher.waiting, self.clock.getDelayedCalls()), (0, []))


class KeptTests(PublisherCase):
    """K-79: an entry is kept when it is confirmed and every queue was seen after it."""

    def test_what_is_sent(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a", body=b"x")
        headers = {"appended_at": 1_800_000_000_500, "pool": "p"}
        self.assertEqual(channel.published, [("exchange", "key", "a", headers, b"x")])

    def test_what_is_sent_again_is_marked(self) -> None:
        """Q-24: where that is asked for; what is sent for the first time is not."""
        for marks, expected in ((True, [("a", True), ("b", None)]), (False, [("a", None)])):
            self.make(mark_repeats=marks)
            self.connect()
            self.publish("a")
            self.publisher.down("gone")
            (channel,) = self.connect().channels
            if marks:
                self.publish("b")
            self.assertEqual(
                [(each[2], each[3].get("repeated")) for each in channel.published], expected
            )
            closing = Deferred.fromCoroutine(self.publisher.close(0.5))
            self.clock.advance(1)
            self.successResultOf(closing)

    def test_what_is_abandoned_fails(self) -> None:
        """Q-26: what waits for a stream that was deleted is not sent again for ever."""
        self.connect()
        self.publish("a")
        other = self.publisher.publish("exchange", "other", "b", {}, body=b"x")
        self.assertEqual(self.publisher.keys, {"key", "other"})
        self.publisher.abandon("key", "it was deleted")
        self.assertEqual((self.failed, self.publisher.waiting), ([("a", "it was deleted")], 1))
        self.publisher.abandon("other", "it too")
        self.assertIn("it too", str(self.failureResultOf(other, LogUnavailable).value))
        self.assertIdle()

    def test_confirmed_and_then_seen(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a")
        self.assertEqual([queue for queue, _ in channel.looks], ["one", "two"])
        channel.keep(0)
        self.assertEqual(self.kept, [])
        channel.show()
        self.assertEqual(self.kept, ["a"])
        self.assertIdle()

    def test_seen_and_then_confirmed(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a")
        channel.show()
        self.assertEqual(self.kept, [])
        channel.keep(0)
        self.assertEqual(self.kept, ["a"])
        self.assertIdle()

    def test_one_look_for_many(self) -> None:
        """A look covers what was sent before it; what came later has the next one."""
        (channel,) = self.connect().channels
        self.publish("a", "b", "c")
        channel.keep(0, 1, 2)
        self.assertEqual(channel.show(), 2)
        self.assertEqual(self.kept, ["a"])
        self.assertEqual(channel.show(), 2)
        self.assertEqual(self.kept, ["a", "b", "c"])
        self.assertEqual(channel.show(), 0)

    def test_of_what_was_seen_only_the_confirmed(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a")
        self.publish("b", "c")
        channel.show()
        channel.keep(2)
        channel.show()
        self.assertEqual(self.kept, ["c"])
        channel.keep(0, 1)
        self.assertEqual(self.kept, ["c", "a", "b"])

    def test_a_look_ends_at_what_it_does_not_cover(self) -> None:
        """What was sent after it is not gone through: there may be much of it."""
        (channel,) = self.connect().channels
        self.publisher._serial = Serial(0)
        self.publish("a", "b", "c", "d")
        channel.keep(0)
        self.patch(Serial, "compared", [])
        channel.show()
        self.assertEqual((self.kept, Serial.compared), (["a"], [1, 2]))

    def test_an_entry_that_nobody_waits_for(self) -> None:
        """It is sent and settled as any other; its caller has given up."""
        (channel,) = self.connect().channels
        done = [
            self.publisher.publish("", "q", entry_id, {}, body=b"").addErrback(
                lambda failure: failure.trap(CancelledError) and None
            )
            for entry_id in ("a", "b")
        ]
        for each in done:
            each.cancel()
        channel.keep(0)
        channel.show()
        self.assertEqual(self.publisher.waiting, 1)
        closed = Deferred.fromCoroutine(self.publisher.close(1.0))
        self.clock.advance(1.0)
        self.successResultOf(closed)
        self.assertIdle()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_all_queues_are_to_be_seen(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a")
        channel.keep(0)
        channel.looks[0][1].callback(0)
        self.assertEqual(self.kept, [])
        channel.looks[1][1].callback(0)
        self.assertEqual(self.kept, ["a"])


class ObstacleTests(PublisherCase):
    """K-79: what cannot be sent fails at once, with the reason."""

    def assertObstacle(self, why: str) -> None:
        self.failed.clear()
        self.publish("z")
        self.assertEqual((self.publisher.obstacle, self.failed), (why, [("z", why)]))

    def test_not_connected(self) -> None:
        self.assertObstacle("not connected yet")
        self.connect()
        self.assertEqual(self.publisher.obstacle, "")
        self.publisher.down("broken")
        self.assertObstacle("broken")

    def test_a_broker_that_is_blocked(self) -> None:
        connection = self.connect()
        connection.blocked = True
        self.assertObstacle("RabbitMQ at broker:5672 is low on memory or disk, and accepts nothing")
        connection.blocked = False
        self.assertEqual(self.publisher.obstacle, "")

    def test_a_broker_that_does_not_confirm(self) -> None:
        """Nothing more is taken while the oldest entry waits too long."""
        (channel,) = self.connect().channels
        self.publish("a")
        self.clock.advance(1)
        self.publish("b")
        self.clock.advance(1)
        self.assertEqual(self.publisher.obstacle, "")
        self.clock.advance(0.5)
        self.assertObstacle("RabbitMQ at broker:5672 does not confirm what is published")
        channel.keep(0)
        channel.show()
        self.assertEqual(self.publisher.obstacle, "")

    def test_too_many(self) -> None:
        self.make(entries=2)
        (channel,) = self.connect().channels
        self.publish("a")
        self.assertEqual(self.publisher.obstacle, "")
        self.publish("b")
        self.assertObstacle("too many entries wait for RabbitMQ's confirm")
        channel.keep(0)
        channel.show()
        self.assertEqual(self.publisher.obstacle, "")

    def test_too_many_bytes(self) -> None:
        """As soon as they are settled, others are taken."""
        self.make(bytes=10)
        (channel,) = self.connect().channels
        for _ in range(3):
            self.publish("a")
            self.assertEqual(self.publisher.obstacle, "")
            self.publish("b")
            self.assertObstacle("too many entries wait for RabbitMQ's confirm")
            channel.keep(-1, -2)
            channel.show()
            channel.show()
            self.assertEqual(self.publisher.obstacle, "")

    def test_as_much_as_usual(self) -> None:
        """1,000 entries or 64 MiB may be unconfirmed."""
        self.connect()
        self.publish(*(f"e{number}" for number in range(999)))
        self.assertEqual(self.publisher.obstacle, "")
        self.publish("e999")
        self.assertObstacle("too many entries wait for RabbitMQ's confirm")
        self.make()
        self.connect()
        self.publish("large", body=bytes((64 << 20) - 1))
        self.assertEqual(self.publisher.obstacle, "")
        self.publish("small", body=b"x")
        self.assertObstacle("too many entries wait for RabbitMQ's confirm")

    def test_what_is_not_sent_yet(self) -> None:
        """A broker is not silent about what it was not asked."""
        self.make(stalled=0.5)
        (channel,) = self.connect().channels
        self.assertEqual(self.publisher.obstacle, "")
        channel.on_closed(BrokerError("gone"))
        self.publish("a")
        self.clock.advance(0.6)
        self.assertEqual(self.publisher.obstacle, "")

    def test_closed(self) -> None:
        self.connect()
        self.successResultOf(Deferred.fromCoroutine(self.publisher.close(1)))
        self.assertObstacle("the log is closed")


class AgainTests(PublisherCase):
    """K-79: what was sent and is not confirmed is sent again, in order, until it is."""

    def test_on_the_next_connection(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a", "b", "c")
        channel.keep(0)
        channel.show()
        self.publisher.down("broken")
        self.assertEqual((self.kept, self.failed), (["a"], []))
        (again,) = self.connect().channels
        self.assertEqual(again.ids, ["b", "c"])
        channel.keep(1, 2)  # what the old channel says is too late
        self.assertEqual(self.kept, ["a"])
        again.keep(0, 1)
        again.show()
        again.show()
        self.assertEqual(self.kept, ["a", "b", "c"])
        self.assertIdle()

    def test_a_confirm_of_the_connection_before(self) -> None:
        """It does not count for the next: the queues may be others."""
        (channel,) = self.connect().channels
        self.publish("a")
        channel.keep(0)
        self.publisher.down("broken")
        (again,) = self.connect().channels
        channel.show()
        again.show()
        self.assertEqual(self.kept, [])
        again.keep(0)
        self.assertEqual(self.kept, ["a"])

    def test_a_late_confirm_of_the_connection_before(self) -> None:
        """It does not count either, whether the queues are seen on the next one or not."""
        (channel,) = self.connect().channels
        self.publish("a", "b")
        self.publisher.down("broken")
        (again,) = self.connect().channels
        channel.keep(0)
        again.show()
        channel.keep(1)
        self.assertEqual(self.kept, [])
        again.keep(0, 1)
        again.show()
        self.assertEqual(self.kept, ["a", "b"])

    def test_a_look_of_the_connection_before(self) -> None:
        """It covers nothing that is sent on the next one: each is seen there as well."""
        (channel,) = self.connect().channels
        self.publish("a")
        channel.show()
        self.publisher.down("broken")
        (again,) = self.connect().channels
        again.keep(0)
        self.assertEqual(self.kept, [])
        self.assertEqual(again.show(), 2)
        self.assertEqual(self.kept, ["a"])

    def test_a_late_look_of_the_connection_before(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a")
        self.publisher.down("broken")
        (again,) = self.connect().channels
        again.keep(0)
        channel.show()
        self.assertEqual(self.kept, [])
        again.show()
        self.assertEqual(self.kept, ["a"])

    def test_a_late_refusal_of_the_connection_before(self) -> None:
        """No channel is opened for it."""
        (channel,) = self.connect().channels
        self.publish("a")
        self.publisher.down("broken")
        connection = self.connect()
        channel.confirms[0].errback(BrokerError("refused"))
        self.clock.advance(RENEW_DELAY)
        (again,) = connection.channels
        self.assertTrue(again.is_open)
        again.keep(0)
        again.show()
        self.assertEqual(self.kept, ["a"])

    def test_a_channel_that_ends_as_it_publishes(self) -> None:
        """It is asked for no look at the queues."""
        connection = self.connect()
        (channel,) = connection.channels
        publish = channel.publish

        def end(*arguments: Any, **more: Any) -> Deferred[None]:
            channel.on_closed(BrokerError("gone"))
            return publish(*arguments, **more)

        self.patch(channel, "publish", end)
        self.publish("a")
        self.assertEqual((channel.looks, connection.dropped), ([], ["gone"]))

    def test_no_age_without_a_connection(self) -> None:
        """What was sent on a connection that is lost does not wait for a confirm."""
        self.connect()
        self.publish("a")
        self.clock.advance(1)
        self.assertEqual(self.publisher._silence(), 1.0)
        self.publisher.down("broken")
        self.assertEqual(self.publisher._silence(), 0.0)

    def test_a_while_without_a_connection(self) -> None:
        """Nobody is silent who was not asked: time counts from when an entry is sent."""
        self.make(stalled=2.0, silent=10.0)
        self.connect()
        self.publish("a")
        self.publisher.down("broken")
        self.clock.pump([0.25] * 100)
        connection = self.connect()
        self.clock.pump([0.25] * 4)
        self.assertEqual((self.publisher.obstacle, connection.dropped), ("", []))

    def test_what_a_broker_refuses(self) -> None:
        """K-79: everything goes once more on a new channel, a quarter of a second later."""
        connection = self.connect()
        self.publish("a", "b")
        (channel,) = connection.channels
        with capturedLogs() as events:
            channel.confirms[0].errback(BrokerError("refused"))
        said = [formatEvent(event) for event in events]
        self.assertEqual(said, ["RabbitMQ refused an entry (BrokerError); trying again"])
        self.assertFalse(channel.is_open)
        channel.confirms[1].errback(BrokerError("refused"))
        self.clock.advance(0.125)
        self.assertEqual(len(connection.channels), 1)
        self.clock.advance(0.125)
        _, again = connection.channels
        self.assertEqual(again.ids, ["a", "b"])
        again.keep(0, 1)
        again.show()
        again.show()
        self.assertEqual((self.kept, connection.dropped), (["a", "b"], []))
        self.assertIdle()

    def test_a_connection_that_goes_after_a_refusal(self) -> None:
        """Nothing waits to open a channel then, whether one was opened or not."""
        for waited in (RENEW_DELAY, 0.0):
            connection = self.connect()
            self.publish("a")
            connection.channels[0].confirms[-1].errback(BrokerError("refused"))
            self.clock.advance(waited)
            self.publisher.down("broken")
            self.publisher.down("broken again")
            self.clock.advance(RENEW_DELAY)
            self.assertEqual(len(connection.channels), 2 if waited else 1)

    def test_a_channel_that_cannot_be_opened(self) -> None:
        """The connection ends, and the next one is tried."""
        connection = self.connect()
        self.publish("a")
        connection.channels[0].confirms[0].errback(BrokerError("refused"))
        self.patch(connection, "channel", lambda: fail(BrokerError("too many channels")))
        self.clock.advance(RENEW_DELAY)
        self.assertEqual(connection.dropped, ["no channel: too many channels"])

    def test_what_comes_while_there_is_no_channel(self) -> None:
        """It is sent on the next one, behind what was refused."""
        connection = self.connect()
        self.publish("a")
        connection.channels[0].confirms[0].errback(BrokerError("refused"))
        self.publish("b")
        self.clock.advance(RENEW_DELAY)
        self.assertEqual(connection.channels[1].ids, ["a", "b"])

    def test_a_connection_that_comes_back_meanwhile(self) -> None:
        """It has a channel of its own, and gets no second one."""
        connection = self.connect()
        self.publish("a")
        connection.channels[0].confirms[0].errback(BrokerError("refused"))
        self.publisher.down("broken")
        again = self.connect()
        self.clock.advance(RENEW_DELAY)
        self.assertEqual(len(again.channels), 1)

    def test_looks_that_all_fail(self) -> None:
        """The end of their channel says it all: nothing more is logged."""
        (channel,) = self.connect().channels
        self.publish("a")
        for _, look in channel.looks:
            look.errback(BrokerError("gone"))
        channel.looks.clear()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_connection_that_goes_meanwhile(self) -> None:
        """No channel is opened on it, and what was never sent fails."""
        connection = self.connect()
        self.publish("a")
        connection.channels[0].confirms[0].errback(BrokerError("refused"))
        self.publish("b")
        self.publisher.down("broken")
        self.assertEqual(self.failed, [("b", "broken")])
        self.clock.advance(RENEW_DELAY)
        self.assertEqual(len(connection.channels), 1)
        self.assertEqual(self.connect().channels[0].ids, ["a"])

    def test_a_channel_that_ends_with_its_confirms(self) -> None:
        """One that is closed is dealt with as such, and no refusal."""
        connection = self.connect()
        self.publish("a")
        (channel,) = connection.channels
        channel.is_open = False
        channel.confirms[0].errback(BrokerError("closed"))
        channel.on_closed(BrokerError("gone"))
        self.clock.advance(RENEW_DELAY)
        self.assertEqual((len(connection.channels), connection.dropped), (1, ["gone"]))

    def test_a_message_that_no_queue_takes(self) -> None:
        """The connection ends: with the next one what is missing is made again."""
        connection = self.connect()
        self.publish("a")
        (channel,) = connection.channels
        channel.returned("a")
        self.assertEqual(connection.dropped, ["no queue takes entry 'a'"])
        channel.keep(0)
        channel.show()
        channel.returned("a")
        channel.on_closed(BrokerError("gone"))
        self.assertEqual((self.kept, len(connection.dropped)), ([], 1))

    def test_a_broker_that_is_silent(self) -> None:
        """The connection is given up, and nothing is lost."""
        connection = self.connect()
        self.publish("a")
        self.clock.pump([0.25] * 40)
        self.assertEqual(connection.dropped, [])
        self.clock.advance(0.25)
        self.assertEqual(connection.dropped, ["no confirm for 10 s"])
        connection.channels[0].on_closed(BrokerError("gone"))
        self.assertEqual(len(connection.dropped), 1)
        self.assertEqual((self.kept, self.failed), ([], []))

    def test_a_broker_that_is_silent_while_it_is_blocked(self) -> None:
        """It said that it accepts nothing: that is no reason to give up the connection."""
        connection = self.connect()
        self.publish("a")
        connection.blocked = True
        self.clock.pump([0.25] * 60)
        self.assertEqual(connection.dropped, [])


class GivenUpTests(PublisherCase):
    """K-79: with `give_up` set, an entry fails when it is not confirmed in time."""

    def test_in_time_and_later(self) -> None:
        self.make(give_up=5.0, stalled=100.0)
        (channel,) = self.connect().channels
        self.publish("a")
        self.clock.advance(1)
        self.publish("b")
        self.clock.pump([0.25] * 15)
        self.assertEqual(self.failed, [])
        self.clock.advance(0.25)
        self.assertEqual(self.failed, [("a", "not confirmed in time: slow broker")])
        channel.keep(0, 1)
        channel.show()
        channel.show()
        self.assertEqual(self.kept, ["b"])
        self.assertIdle()

    def test_a_confirm_after_that(self) -> None:
        """It is too late, also for an entry that was seen in the queues."""
        self.make(give_up=5.0, stalled=100.0)
        (channel,) = self.connect().channels
        self.publish("a")
        channel.show()
        self.clock.pump([0.25] * 20)
        channel.keep(0)
        self.assertEqual((self.kept, len(self.failed)), ([], 1))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertIdle()

    def test_not_before_it_was_sent(self) -> None:
        """While there is no channel, no time runs."""
        self.make(give_up=1.0)
        (channel,) = self.connect().channels
        channel.on_closed(BrokerError("gone"))
        self.publish("a")
        self.clock.pump([0.25] * 8)
        self.assertEqual((self.failed, self.publisher.waiting), ([], 1))

    def test_who_appends_it_again_at_once(self) -> None:
        """The times of all entries are looked at by one timer."""
        self.make(give_up=1.0, stalled=100.0)
        self.connect()
        appended: list[Deferred[None]] = []

        def append(_: object = None) -> None:
            done = self.publisher.publish("", "q", "a", {}, body=b"")
            appended.append(done.addErrback(append))

        append()
        self.clock.pump([0.25] * 16)
        self.assertEqual(len(appended), 5)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_the_reason(self) -> None:
        self.make(give_up=1.0)
        self.connect()
        self.publish("a")
        self.publisher.down("broken")
        self.clock.pump([0.25] * 4)
        self.assertEqual(self.failed, [("a", "not confirmed in time: broken")])
        self.assertIdle()

    def test_from_the_first_time_it_was_sent(self) -> None:
        self.make(give_up=2.0)
        self.connect()
        self.publish("a")
        self.clock.pump([0.25] * 6)
        self.publisher.down("broken")
        self.connect()
        self.clock.pump([0.25] * 2)
        self.assertEqual([entry_id for entry_id, _ in self.failed], ["a"])

    def test_never_by_default(self) -> None:
        self.connect()
        self.publish("a")
        self.publisher.down("broken")
        self.clock.pump([0.25] * 1000)
        self.assertEqual((self.failed, self.publisher.waiting), ([], 1))


class CloseTests(PublisherCase):
    """K-85: a stop waits a while for what is on its way."""

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.publisher.close(3.0))

    def test_with_nothing_on_its_way(self) -> None:
        self.connect()
        self.successResultOf(self.close())
        self.assertIdle()

    def test_until_all_is_kept(self) -> None:
        (channel,) = self.connect().channels
        self.publish("a", "b")
        closed = self.close()
        channel.keep(0, 1)
        channel.show()
        self.assertNoResult(closed)
        channel.show()
        self.successResultOf(closed)
        self.assertEqual(self.kept, ["a", "b"])
        self.assertIdle()

    def test_no_longer_than_a_while(self) -> None:
        self.connect()
        self.publish("a")
        closed = self.close()
        self.clock.advance(2.9)
        self.assertNoResult(closed)
        self.clock.advance(0.1)
        self.successResultOf(closed)
        self.assertEqual(self.failed, [("a", "the log was closed before it was confirmed")])
        self.assertIdle()

    def test_on_a_new_connection(self) -> None:
        """What is on its way is sent there; a connection for nothing is not used."""
        self.connect()
        self.publish("a")
        self.publisher.down("broken")
        closed = self.close()
        (channel,) = self.connect().channels
        channel.keep(0)
        channel.show()
        self.successResultOf(closed)
        self.assertEqual(self.kept, ["a"])
        self.assertEqual(self.connect().channels, [])

    def test_while_a_channel_is_to_be_opened(self) -> None:
        connection = self.connect()
        self.publish("a")
        connection.channels[0].confirms[0].errback(BrokerError("refused"))
        closed = Deferred.fromCoroutine(self.publisher.close(RENEW_DELAY / 2))
        self.clock.advance(RENEW_DELAY / 2)
        self.successResultOf(closed)
        self.assertIdle()
