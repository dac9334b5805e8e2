"""The table of the operations that a client uses."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.api.params import DelayParams, ProduceParams, RecordParams
from kupool.topics.api.table import OPERATIONS
from kupool.topics.remote.bodies import NewBody
from kupool.topics.remote.operations import REMOTE_OPERATIONS, EncodedRecordsParams

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
        once = {method for method, operation in REMOTE_OPERATIONS.items() if not operation.again}
        self.assertEqual(once, ONCE)

    def test_the_operations_of_the_server(self) -> None:
        """Q-63: what a client may ask has a handler, and nothing is left out."""
        self.assertEqual(list(REMOTE_OPERATIONS), [operation.name for operation in OPERATIONS])

    def test_results(self) -> None:
        """Q-62: each has a type that it is decoded to."""
        for operation in REMOTE_OPERATIONS.values():
            msgspec.json.Decoder(operation.result)

    def test_encoded_records(self) -> None:
        """Q-63: they are params of the operations, and no field has another name."""
        names = set(EncodedRecordsParams.__struct_fields__)
        self.assertLessEqual(
            names, {*ProduceParams.__struct_fields__, *DelayParams.__struct_fields__}
        )
        fields = set(NewBody.__struct_fields__)
        self.assertEqual(fields, set(RecordParams.__struct_fields__))
