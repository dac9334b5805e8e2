"""The body of a log entry."""

from __future__ import annotations

import json
import sqlite3

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import (
    VERSION,
    Batch,
    BatchHead,
    PoisonBatch,
    decode_batch,
    decode_head,
    encode_batch,
)
from tests.fakes import release_0_batches
from tests.servers.running_daemon import ROOT


def batch(**changes: object) -> bytes:
    fields = {
        "v": VERSION,
        "batch": "n-1",
        "at": 1_700_000_059_999,
        "usernames": ["a", "b.rig"],
        "job_ids": [1, 2],
        "client_nonces": ["x", "y"],
    }
    return json.dumps({**fields, **changes}).encode()


class BatchTests(SynchronousTestCase):
    """K-80: a batch is read back as written, or is poison, with the reason."""

    @given(st.lists(st.tuples(st.text(), st.integers(0, 2**53), st.text()), max_size=8))
    def test_round_trip(self, rows: list[tuple[str, int, str]]) -> None:
        written = Batch(
            VERSION, "id", 5, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
        )
        body = encode_batch(written)
        self.assertEqual(decode_batch(body), written)
        self.assertEqual(decode_head(body), BatchHead(VERSION, "id", 5, written.usernames))

    def test_minute_is_that_of_acceptance(self) -> None:
        """K-69: the UTC minute, rounded down."""
        self.assertEqual(decode_head(batch()).minute, 1_700_000_059 // 60 * 60)
        self.assertEqual(decode_head(batch(at=59_999)).minute, 0)
        self.assertEqual(decode_head(batch(at=60_000)).minute, 60)

    def test_a_batch_that_is_no_note(self) -> None:
        """Its entry says nothing about further jobs."""
        body = encode_batch(Batch(1, "n-1", 60_000, ["a"], [1], ["x"]))
        self.assertEqual(
            body,
            b'{"v":1,"batch":"n-1","at":60000,"usernames":["a"],"job_ids":[1],'
            b'"client_nonces":["x"]}',
        )
        self.assertEqual(decode_batch(body).jobs_until, 0)

    def test_poison_says_why(self) -> None:
        cases = {
            b"": "not a batch",
            b"nonsense": "not a batch",
            b"[1]": "not a batch",
            b"[" * 100_000: "not a batch",
            b'{"v":1,"batch":"\xff"}': "not a batch",
            batch(v=2): "batch version 2, expected 1",
            batch(usernames="a"): "not a batch",
            batch(at="now"): "not a batch",
        }
        for body, reason in cases.items():
            for read in (decode_batch, decode_head):
                with self.assertRaises(PoisonBatch) as caught:
                    read(body)
                self.assertIn(reason, str(caught.exception))

    def test_columns_of_different_lengths(self) -> None:
        broken = [(column, []) for column in ("usernames", "job_ids", "client_nonces")]
        broken += [("sessions", ["s"]), ("peers", ["p"] * 3)]
        for column, values in broken:
            with self.assertRaises(PoisonBatch) as caught:
                decode_batch(batch(**{column: values}))
            self.assertIn("different lengths", str(caught.exception))

    @given(st.binary(max_size=300))
    def test_no_bytes_raise_anything_else(self, body: bytes) -> None:
        for read in (decode_batch, decode_head):
            try:
                read(body)
            except PoisonBatch:
                continue
            self.fail(f"{body!r} was taken for a batch")


class NeighbourTests(SynchronousTestCase):
    """Issue 16, build 3: neighbouring releases read each other's batches."""

    def bodies(self) -> list[bytes]:
        """Return the log of the release before, as it left it."""
        log = sqlite3.connect(":memory:")
        log.executescript((ROOT / "tests/data/release_0/log.sql").read_text())
        return [body for (body,) in log.execute("SELECT body FROM entries ORDER BY position")]

    def test_the_release_before_reads_what_is_written_now(self) -> None:
        """Whether the optional columns are there or not, it sees the same batch."""
        for body in self.bodies():
            now = decode_batch(body)
            count = len(now.usernames)
            now.sessions, now.peers = ["ab" * 16] * count, ["192.0.2.1:5"] * count
            written = encode_batch(now)
            self.assertIn(b'"sessions":["abab', written)
            self.assertEqual(
                release_0_batches.decode_batch(written), release_0_batches.decode_batch(body)
            )
            self.assertEqual(
                release_0_batches.decode_head(written), release_0_batches.decode_head(body)
            )

    def test_what_the_release_before_wrote_is_read_now(self) -> None:
        bodies = self.bodies()
        self.assertEqual(len(bodies), 29)
        for body in bodies:
            then = release_0_batches.decode_batch(body)
            now = decode_batch(body)
            self.assertEqual(
                [then.v, then.batch, then.at, then.usernames, then.job_ids, then.client_nonces],
                [now.v, now.batch, now.at, now.usernames, now.job_ids, now.client_nonces],
            )
            self.assertEqual((now.sessions, now.peers), ([], []))
            self.assertEqual(encode_batch(now), body)
