"""Filters of subscriptions: which publications of a channel a subscriber wants. Pure.

A filter of tags is a comparison or a combination, as JSON::

    {"key": "region", "cmp": "in", "vals": ["eu", "us"]}
    {"op": "and", "nodes": [{"key": "a", "cmp": "ex"}, {"key": "n", "cmp": "gte", "val": "10"}]}

``op`` is ``and``, ``or`` or ``not`` (with one node); without it, it is a comparison. A tag that is
not there is only equal to nothing: ``neq``, ``nin`` and ``nex`` are true for it. Numbers are
compared by their values, and are not equal to any text that is no number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import isnan
from typing import Any

import msgspec

from kupool.live.failures import InvalidWish
from kupool.live.publications import NewPublication, PublicationPriority

#: The most comparisons and combinations of one filter, and the most that are within each other.
MOST_NODES = 64
MOST_DEPTH = 8

#: The most values of one comparison, devices or types, and the longest text of one.
MOST_VALUES = 1000
LONGEST_VALUE = 255

Tags = Mapping[str, str]
Test = Callable[[Tags], bool]

#: Comparisons with one text; the first argument is the tag.
_WITH_TEXT: dict[str, Callable[[str, str], bool]] = {
    "eq": str.__eq__,
    "sw": str.startswith,
    "ew": str.endswith,
    "ct": str.__contains__,
}

#: Comparisons with one number; the first argument is the tag's.
_WITH_NUMBER: dict[str, Callable[[float, float], bool]] = {
    "gt": float.__gt__,
    "gte": float.__ge__,
    "lt": float.__lt__,
    "lte": float.__le__,
}


class TagFilterNode(msgspec.Struct, frozen=True):
    """A comparison, or with an ``op`` a combination, as it is sent."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: Sequence[str] = ()
    nodes: Sequence[TagFilterNode] = ()


class PublicationFilter:
    """What a subscriber wants of a channel.

    Publications of at least ``min_priority``, from one of ``devices``, of one of ``event_types``,
    with tags for which ``tags`` is true; empty ones and None want everything.
    """

    __slots__ = ("_devices", "_event_types", "_min_priority", "_tags")

    def __init__(
        self,
        *,
        min_priority: int = PublicationPriority.NORMAL,
        devices: Collection[str] = (),
        event_types: Collection[str] = (),
        tags: Test | None = None,
    ) -> None:
        self._min_priority = min_priority
        self._devices = frozenset(devices)
        self._event_types = frozenset(event_types)
        self._tags = tags

    @property
    def wants_everything(self) -> bool:
        """Whether no publication is left out."""
        narrow = self._devices or self._event_types or self._tags is not None
        return not narrow and self._min_priority <= PublicationPriority.NORMAL

    def wants(self, publication: NewPublication) -> bool:
        """Return whether the subscriber wants a publication."""
        return (
            publication.priority >= self._min_priority
            and (not self._devices or publication.device in self._devices)
            and (not self._event_types or publication.event_type in self._event_types)
            and (self._tags is None or self._tags(publication.tags))
        )


def tag_test(filter_json: bytes) -> Test:
    """Return the test of a filter of tags in JSON; raises :class:`InvalidWish`."""
    try:
        node = msgspec.json.decode(filter_json, type=TagFilterNode)
    except (ValueError, RecursionError) as error:
        raise InvalidWish(f"the filter is not valid: {error}"[:200]) from None
    _check_size(node)
    return _test_of(node)


def _check_size(root: TagFilterNode) -> None:
    left, count = [(root, 1)], 0
    while left:
        node, depth = left.pop()
        count += 1
        if count > MOST_NODES or depth > MOST_DEPTH:
            raise InvalidWish(
                f"the filter is too large: use up to {MOST_NODES} nodes, {MOST_DEPTH} deep"
            )
        if len(node.vals) > MOST_VALUES:
            raise InvalidWish(f"the filter is too large: use up to {MOST_VALUES} vals")
        left += [(each, depth + 1) for each in node.nodes]


def _test_of(node: TagFilterNode) -> Test:
    if not node.op:
        return _comparison(node)
    if not node.nodes or (node.op == "not" and len(node.nodes) != 1):
        raise InvalidWish(f"the filter's op {node.op:.20} has too few or too many nodes")
    tests = [_test_of(each) for each in node.nodes]
    if node.op == "and":
        return lambda tags: all(test(tags) for test in tests)
    if node.op == "or":
        return lambda tags: any(test(tags) for test in tests)
    if node.op == "not":
        return lambda tags: not tests[0](tags)
    raise InvalidWish(f"the filter's op {node.op!r:.20} is none of and, or, not")


def _comparison(node: TagFilterNode) -> Test:
    key, value = node.key, node.val
    if not key:
        raise InvalidWish("a comparison of the filter has no key")
    if node.cmp == "ex":
        return lambda tags: key in tags
    if node.cmp == "nex":
        return lambda tags: key not in tags
    if node.cmp in ("in", "nin"):
        values, among = frozenset(node.vals), node.cmp == "in"
        return lambda tags: (tags.get(key) in values) is among
    if node.cmp == "neq":
        return lambda tags: tags.get(key) != value
    with_text = _WITH_TEXT.get(node.cmp)
    if with_text is not None:
        return lambda tags: key in tags and with_text(tags[key], value)
    with_number = _WITH_NUMBER.get(node.cmp)
    number = _number(value)
    if with_number is None or number is None:
        raise InvalidWish(f"the filter cannot compare by {node.cmp!r:.20} with {value!r:.40}")

    def compare(tags: Any) -> bool:
        found = _number(tags.get(key, ""))
        return found is not None and with_number(found, number)

    return compare


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if isnan(number) else number


__all__ = [
    "LONGEST_VALUE",
    "MOST_DEPTH",
    "MOST_NODES",
    "MOST_VALUES",
    "PublicationFilter",
    "TagFilterNode",
    "tag_test",
]
