"""The table of the operations that a client uses."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.remote.operations import OPERATIONS
from tests.fakes.remote_topics import RemoteCase

#: What does harm when it is done twice, or says that it was done before.
ONCE = {
    "topic.create",
    "topic.delete",
    "log.produce",
    "log.delay",
    "log.cancel",
    "log.commit",
    "log.abort",
    "log.redrive",
    "log.purge",
    "group.leave",
    "group.delete",
}


class TableTests(SynchronousTestCase):
    def test_what_may_be_sent_again(self) -> None:
        """Q-56: nothing else is, when an answer was lost."""
        once = {method for method, operation in OPERATIONS.items() if not operation.again}
        self.assertEqual(once, ONCE)

    def test_names(self) -> None:
        """Q-63: each has its noun, and types that can be encoded and decoded."""
        for method, operation in OPERATIONS.items():
            self.assertIn(method.partition(".")[0], ("topic", "log", "group"))
            msgspec.json.Decoder(operation.result)
            self.assertTrue(issubclass(operation.params, msgspec.Struct), method)


class HandlerTests(RemoteCase):
    def test_the_server_of_tests_has_no_others(self) -> None:
        """Q-63: a client and the server that it is tested with do not drift apart."""
        methods = set(self.server.router_methods) - {"authorize"}
        self.assertEqual(methods - set(OPERATIONS), set())
