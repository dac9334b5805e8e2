"""Filters of subscriptions."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.failures import InvalidWish
from kupool.live.filters import MOST_NODES, MOST_VALUES, PublicationFilter, tag_test
from kupool.live.publications import NewPublication


def wants(tags: dict[str, str], **node: Any) -> bool:
    return tag_test(json.dumps(node).encode())(tags)


class TagTests(SynchronousTestCase):
    """W-66: filters by tags are evaluated at the server."""

    def test_comparisons(self) -> None:
        tags = {"region": "eu-west", "n": "10", "text": "ten"}
        for cmp, key, value, expected in (
            ("eq", "region", "eu-west", True),
            ("eq", "region", "eu", False),
            ("eq", "absent", "", False),
            ("neq", "region", "eu", True),
            ("neq", "region", "eu-west", False),
            ("neq", "absent", "x", True),
            ("sw", "region", "eu", True),
            ("sw", "absent", "", False),
            ("ew", "region", "west", True),
            ("ew", "region", "eu", False),
            ("ct", "region", "-", True),
            ("gt", "n", "9", True),
            ("gt", "n", "10", False),
            ("gte", "n", "10.0", True),
            ("lt", "n", "9", False),
            ("lte", "n", "1e1", True),
            ("gt", "text", "1", False),
            ("lt", "text", "1", False),
            ("gt", "absent", "-1", False),
        ):
            self.assertIs(wants(tags, key=key, cmp=cmp, val=value), expected, (cmp, key, value))

    def test_presence_and_sets(self) -> None:
        tags = {"a": "1"}
        self.assertEqual([wants(tags, key=k, cmp="ex") for k in "ab"], [True, False])
        self.assertEqual([wants(tags, key=k, cmp="nex") for k in "ab"], [False, True])
        for vals, among in ((["1", "2"], True), (["2"], False), ([], False)):
            self.assertIs(wants(tags, key="a", cmp="in", vals=vals), among)
            self.assertIs(wants(tags, key="a", cmp="nin", vals=vals), not among)
        self.assertTrue(wants(tags, key="b", cmp="nin", vals=["1"]))

    @given(st.lists(st.booleans(), min_size=1, max_size=5))
    def test_combinations(self, parts: list[bool]) -> None:
        nodes = [{"key": "a", "cmp": "ex" if part else "nex"} for part in parts]
        self.assertIs(wants({"a": ""}, op="and", nodes=nodes), all(parts))
        self.assertIs(wants({"a": ""}, op="or", nodes=nodes), any(parts))
        self.assertIs(wants({"a": ""}, op="not", nodes=nodes[:1]), not parts[0])

    def test_wrong_filters(self) -> None:
        deep: Any = {"key": "a", "cmp": "ex"}
        for _ in range(8):
            deep = {"op": "not", "nodes": [deep]}
        one = {"key": "a", "cmp": "ex"}
        for wrong in (
            [],
            {"key": 7},
            {},
            {"key": "a"},
            {"key": "a", "cmp": "like"},
            {"key": "a", "cmp": "gt", "val": "x"},
            {"key": "a", "cmp": "gt", "val": "nan"},
            {"op": "xor", "nodes": [one]},
            {"op": "and"},
            {"op": "not", "nodes": [one, one]},
            {"op": "or", "nodes": [one] * MOST_NODES},
            {"key": "a", "cmp": "in", "vals": ["x"] * (MOST_VALUES + 1)},
            deep,
        ):
            with self.assertRaises(InvalidWish):
                tag_test(json.dumps(wrong).encode())
        for text in (b"", b"{", b"[" * 100_000, b"\xff"):
            with self.assertRaises(InvalidWish):
                tag_test(text)


class PublicationTests(SynchronousTestCase):
    """W-66: devices, event types and a minimum priority."""

    def test_each_and_all(self) -> None:
        publication = NewPublication(
            data=b"1", device="d", event_type="t", priority=2, tags={"a": "1"}
        )
        has_a, has_b = (tag_test(b'{"key":"%s","cmp":"ex"}' % key) for key in (b"a", b"b"))
        for fields, expected in (
            ({}, True),
            ({"min_priority": 2}, True),
            ({"min_priority": 3}, False),
            ({"devices": ["d", "e"]}, True),
            ({"devices": ["e"]}, False),
            ({"event_types": ["t"]}, True),
            ({"event_types": ["u"]}, False),
            ({"tags": has_a}, True),
            ({"tags": has_b}, False),
            ({"tags": has_a, "devices": ["e"]}, False),
        ):
            found = PublicationFilter(**fields)  # type: ignore[arg-type]
            self.assertIs(found.wants(publication), expected, fields)
            self.assertIs(found.wants_everything, not fields)
