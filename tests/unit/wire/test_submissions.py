"""Accepted submissions as JSON objects."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import VERSION, Batch
from kupool.wire.submissions import accepted_of, logged_of


class SubmissionTests(SynchronousTestCase):
    """Issue 16, build 3 and 6: each submission of a batch is an object of its own."""

    batch = Batch(VERSION, "b-1", 60_001, ["a", "b.r"], [7, 8], ["x", "y"])

    def test_what_is_not_known_is_left_out(self) -> None:
        rows = [msgspec.to_builtins(each) for each in logged_of(self.batch)]
        self.assertEqual(
            rows,
            [
                {"id": "b-1/0", "username": "a", "job_id": 7, "client_nonce": "x", "at": 60_001},
                {
                    "id": "b-1/1",
                    "username": "b.r",
                    "job_id": 8,
                    "client_nonce": "y",
                    "at": 60_001,
                },
            ],
        )

    def test_session_and_peer(self) -> None:
        known = msgspec.structs.replace(self.batch, sessions=["s1", "s2"], peers=["p1", "p2"])
        found = [(each.session, each.peer) for each in logged_of(known)]
        self.assertEqual(found, [("s1", "p1"), ("s2", "p2")])
        # Events have neither.
        self.assertEqual(
            msgspec.to_builtins(next(accepted_of(known))),
            {"id": "b-1/0", "username": "a", "job_id": 7, "client_nonce": "x"},
        )
