"""The observer that applications start from."""

from __future__ import annotations

import json

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.net.interfaces import IConnectionObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.observer import Observer
from kupool.net.transport.protocols import LineFactory
from tests.fakes.peers import PeerTransport, ping_router


class ObserverTests(SynchronousTestCase):
    def test_every_connection_gets_the_router_and_ends_at_once(self) -> None:
        observer = Observer(ping_router())
        self.assertTrue(verifyObject(IConnectionObserver, observer))
        manager = ConnectionManager(Clock(), observer, ServerSettings())
        for count in (1, 2):
            transport = PeerTransport()
            protocol = LineFactory(manager).buildProtocol(None)
            protocol.makeConnection(transport)
            protocol.dataReceived(b'{"id":7,"method":"ping"}\n')
            self.assertEqual(json.loads(transport.taken()), {"id": 7, "result": True})
            self.assertEqual(manager.accepted, count)
            protocol.readConnectionLost()
            self.assertTrue(transport.disconnecting)
            protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(len(manager), 0)
