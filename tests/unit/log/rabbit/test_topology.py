"""What the log has in RabbitMQ, without a broker."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError, BrokerRefused
from kupool.log.rabbit.topology import Declared, Topology, declare
from tests.fakes.rabbit_broker import (
    RabbitBroker,
    RabbitChannel,
    RabbitConnection,
    Stored,
    StoredQueue,
)


class TopologyTests(SynchronousTestCase):
    def test_names(self) -> None:
        """K-79: all names come from the name of the queue."""
        topology = Topology("q", groups=("stats", "alerts"))
        self.assertEqual(topology.queues, ("q", "q.alerts"))
        self.assertEqual(
            (topology.exchange, topology.stream, topology.dead_letters), ("q", "q.stream", "q.dead")
        )

    def test_retention(self) -> None:
        """K-76: segments are small enough for the bound to be kept."""
        arguments = Topology(max_age="7D", max_bytes=80_000_000).stream_arguments()
        self.assertEqual(
            arguments,
            {
                "x-queue-type": "stream",
                "x-max-age": "7D",
                "x-max-length-bytes": 80_000_000,
                "x-stream-max-segment-size-bytes": 10_000_000,
            },
        )
        self.assertEqual(Topology().stream_arguments(), {"x-queue-type": "stream"})
        self.assertEqual(Topology(max_age="7D").stream_arguments()["x-max-age"], "7D")
        usual = Topology(max_bytes=100_000_000_000).stream_arguments()
        self.assertEqual(usual["x-stream-max-segment-size-bytes"], 500_000_000)
        least = Topology(max_bytes=7).stream_arguments()
        self.assertEqual(least["x-stream-max-segment-size-bytes"], 1)

    def test_dead_letters(self) -> None:
        """K-79, K-80: what the broker gives up is always in one of two queues."""
        routed = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q.dead"}
        classic = {"x-queue-type": "classic", **routed}
        self.assertEqual(Topology("q", kind="classic").queue_arguments(), classic)
        quorum = {
            "x-queue-type": "quorum",
            **routed,
            "x-delivery-limit": 10_000,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        self.assertEqual(Topology("q").queue_arguments(), quorum)

    def test_usual_names(self) -> None:
        """K-79: a durable quorum queue for the counts, unless the settings say otherwise."""
        self.assertEqual(Topology(), Topology("kupool_submissions", "quorum", ("stats",), "", 0))


class DeclareTests(SynchronousTestCase):
    """K-79: what is missing is created, and what is there is never changed."""

    def setUp(self) -> None:
        self.broker = RabbitBroker()
        self.connection = RabbitConnection(self.broker, "test")
        self.broker.connections.append(self.connection)
        self.topology = Topology("q", groups=("stats", "alerts"))

    def declaring(self, topology: Topology | None = None) -> Deferred[Declared]:
        connection: Any = self.connection
        return Deferred.fromCoroutine(declare(connection, topology or self.topology))

    def refusal(self, topology: Topology | None = None) -> str:
        return str(self.failureResultOf(self.declaring(topology), BrokerRefused).value)

    def test_everything_is_missing(self) -> None:
        declared = self.successResultOf(self.declaring())
        queues = ("q.dead", "q.stream", "q", "q.alerts")
        self.assertEqual(declared, Declared(dict.fromkeys(queues, 0), queues))
        self.assertEqual(tuple(self.broker.queues), queues)
        arguments = {name: queue.arguments for name, queue in self.broker.queues.items()}
        self.assertEqual(arguments["q.dead"], {"x-queue-type": "quorum"})
        self.assertEqual(arguments["q.stream"], {"x-queue-type": "stream"})
        self.assertEqual(arguments["q"], self.topology.queue_arguments())
        self.assertEqual(arguments["q.alerts"], self.topology.queue_arguments())
        self.assertEqual(self.broker.exchanges, {"q": ["q.stream", "q", "q.alerts"]})
        self.assertEqual([c for c in self.connection.channels if c.is_open], [])

    def test_everything_is_there(self) -> None:
        """It says how many messages wait in each queue."""
        self.successResultOf(self.declaring())
        self.broker.put("q", "", Stored("a", {}, b""))
        self.broker.put("", "q", Stored("b", {}, b""))
        declared = self.successResultOf(self.declaring())
        self.assertEqual(
            declared, Declared({"q.dead": 0, "q.stream": 1, "q": 2, "q.alerts": 1}, ())
        )
        self.assertEqual([c for c in self.connection.channels if c.is_open], [])

    def test_one_is_missing(self) -> None:
        """It is created and bound, and the others keep what they have."""
        self.successResultOf(self.declaring())
        self.broker.put("q", "", Stored("a", {}, b""))
        self.broker.delete("q.alerts")
        declared = self.successResultOf(self.declaring())
        self.assertEqual(declared.made, ("q.alerts",))
        self.assertEqual(declared.waiting["q"], 1)
        self.assertEqual(self.broker.exchanges, {"q": ["q.stream", "q", "q.alerts"]})

    def test_a_queue_of_the_other_kind(self) -> None:
        """The text names the setting that fits, and nothing is created."""
        for here, there in (("quorum", "classic"), ("classic", "quorum")):
            self.broker.queues.clear()
            other = Topology("q", there)
            self.broker.queues["q"] = StoredQueue(other.queue_arguments())
            why = self.refusal(Topology("q", here))
            self.assertIn(f"queue 'q' is there as a {there} queue of KuPool", why)
            self.assertIn(f"set --mq-kind={there}", why)
            self.assertEqual((list(self.broker.queues), self.broker.exchanges), (["q"], {}))
            self.assertEqual([c for c in self.connection.channels if c.is_open], [])

    def test_a_queue_of_somebody_else(self) -> None:
        self.broker.queues["q"] = StoredQueue({})
        why = self.refusal()
        self.assertIn("queue 'q' is there and is not one of KuPool's", why)
        self.assertEqual(list(self.broker.queues), ["q"])

    def test_an_exchange_of_another_kind(self) -> None:
        """It would not copy entries to every queue; nothing is created."""
        self.broker.exchanges["q"] = []
        self.broker.other_kinds["q"] = "direct"
        self.assertIn("exchange 'q' exists with another type: 'direct'", self.refusal())
        self.assertEqual(self.broker.queues, {})

    def test_a_stream_with_other_limits(self) -> None:
        """The limits of a stream are never changed."""
        self.successResultOf(self.declaring())
        why = self.refusal(Topology("q", max_age="7D"))
        self.assertEqual(why, "RabbitMQ at broker:5672: queue 'q.stream' has other arguments")

    def test_another_error(self) -> None:
        """A broker that fails is not taken for one that has nothing."""
        for name in ("look_at", "declare_exchange"):

            async def broken(*_: object) -> None:
                raise BrokerError("internal error", 541)

            patched = self.patch(RabbitChannel, name, broken)
            error = self.failureResultOf(self.declaring(), BrokerError)
            self.assertEqual(str(error.value), "internal error")
            self.assertEqual(self.broker.queues, {})
            patched.restore()
