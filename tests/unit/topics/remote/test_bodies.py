"""Records as JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.records import NewRecord
from kupool.topics.remote.bodies import ReadBody, decode_record, decode_records, encode_record


class BodyTests(SynchronousTestCase):
    def encoded(self, record: NewRecord) -> object:
        return json.loads(bytes(encode_record(record)))

    def test_text(self) -> None:
        """Q-03: defaults are left out."""
        self.assertEqual(self.encoded(NewRecord(b"x")), {"value": "x"})
        full = NewRecord("é".encode(), b"k", {"a": "b"}, 7)
        wanted = {"value": "é", "key": "k", "headers": {"a": "b"}, "timestamp": 7}
        self.assertEqual(self.encoded(full), wanted)

    def test_bytes(self) -> None:
        """Q-03: if one of both is no text, both are base64."""
        self.assertEqual(self.encoded(NewRecord(b"\xff")), {"value": "/w==", "base64": True})
        wanted = {"value": "YQ==", "key": "/w==", "base64": True}
        self.assertEqual(self.encoded(NewRecord(b"a", b"\xff")), wanted)

    @given(st.binary(), st.none() | st.binary())
    def test_there_and_back(self, value: bytes, key: bytes | None) -> None:
        """Q-03: every byte comes back."""
        body = json.loads(bytes(encode_record(NewRecord(value, key))))
        record = decode_record(ReadBody(offset=1, timestamp=2, **body))
        self.assertEqual((record.value, record.key), (value, key))

    def test_what_is_no_base64(self) -> None:
        """Q-62."""
        for value, key in (("?", None), ("YQ==", "?"), ("YQ", None), ("é", None)):
            body = ReadBody(offset=0, timestamp=0, value=value, key=key, base64=True)
            with self.assertRaises(ValueError):
                decode_record(body)

    def test_offsets(self) -> None:
        """Q-62: they may have gaps, and only grow."""
        bodies = [ReadBody(offset=each, timestamp=0) for each in (3, 5, 6)]
        found = decode_records(bodies, start=3, end=7)
        self.assertEqual([each.offset for each in found], [3, 5, 6])
        for start, end in ((4, 7), (3, 6)):
            with self.assertRaisesRegex(ValueError, "a record at offset"):
                decode_records(bodies, start=start, end=end)
        with self.assertRaisesRegex(ValueError, "offset 5, expected 7"):
            decode_records(list(reversed(bodies)), start=3, end=9)
