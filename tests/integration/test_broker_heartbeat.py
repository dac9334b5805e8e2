"""A connection to a real RabbitMQ on which nothing but heartbeats goes back and forth."""

from __future__ import annotations

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kupool.amqp.address import parse_brokers
from kupool.amqp.connection import connect
from kupool.amqp.wire import ConnectionSettings
from tests.servers.reactor import the_reactor
from tests.servers.services import rabbit

#: pika looks every heartbeat and 5 seconds whether it has received something.
LOOKS = 2 * (1 + 5) + 2


class HeartbeatTests(TestCase):
    """Q-32: a quiet connection stays, so nothing reconnects every half minute."""

    timeout = 60

    async def test_a_quiet_connection_stays(self) -> None:
        (broker,) = parse_brokers(rabbit().new_vhost())
        connection = await connect(
            the_reactor(), broker, ConnectionSettings(heartbeat=1), "a quiet one"
        )
        await deferLater(the_reactor(), LOOKS)
        self.assertTrue(connection.is_open)
        connection.close()
        await connection.ended()
