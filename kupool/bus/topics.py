"""Names of topics, patterns, and a trie that finds the subscribers of a topic. Pure."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from functools import lru_cache
from typing import Generic, TypeVar

#: The longest topic, in characters, and the most levels it may have.
MAX_LENGTH = 255
MAX_LEVELS = 16

#: The most topics that are remembered as valid.
MAX_KNOWN = 1024

#: A topic of ASCII, as most are: the rules of :func:`topic_name` at a tenth of their cost.
_LEVEL = r"[!-)+-\-/-=?-~]+"
_is_plain = re.compile(rf"{_LEVEL}(?:\.{_LEVEL}){{0,{MAX_LEVELS - 1}}}").fullmatch

T = TypeVar("T", bound=Hashable)


def topic_name(topic: object) -> str:
    """Return a topic as text; raises :class:`ValueError` if it is invalid.

    An integer of 0 or more is the topic of its decimal digits.
    """
    return _known_name(topic) if type(topic) is str else _topic_name(topic)


def _topic_name(topic: object) -> str:
    if type(topic) is str and len(topic) <= MAX_LENGTH and _is_plain(topic):
        return topic
    name = _name(topic)
    for level in name.split("."):
        if level in ("*", ">"):
            raise ValueError(f"topic {name!r}: a wildcard cannot be published to")
    return name


#: The rules are not applied again to a topic that was valid a moment ago: every message has one.
_known_name = lru_cache(maxsize=MAX_KNOWN)(_topic_name)


def pattern_name(pattern: object) -> str:
    """Return the pattern of a subscription as text; raises :class:`ValueError`."""
    name = _name(pattern)
    if ">" in name.split(".")[:-1]:
        raise ValueError(f"topic {name!r}: '>' can only be the last level")
    return name


def _name(topic: object) -> str:
    if isinstance(topic, int) and not isinstance(topic, bool) and topic >= 0:
        topic = str(topic)
    if not isinstance(topic, str) or not topic:
        raise ValueError(f"topic {topic!r} is neither a name nor a number of 0 or more")
    if len(topic) > MAX_LENGTH:
        raise ValueError(f"topic {topic[:20]!r}...: more than {MAX_LENGTH} characters")
    if not topic.isprintable() or " " in topic:
        raise ValueError(f"topic {topic!r}: a space or a character that cannot be printed")
    levels = topic.split(".")
    if len(levels) > MAX_LEVELS or not all(levels):
        raise ValueError(f"topic {topic!r}: levels are 1 to {MAX_LEVELS}, and not empty")
    for level in levels:
        if len(level) > 1 and ("*" in level or ">" in level):
            raise ValueError(f"topic {topic!r}: a wildcard stands for a whole level")
    return topic


def is_pattern(name: str) -> bool:
    """Return whether a valid pattern contains a wildcard."""
    return "*" in name or ">" in name


def matches(pattern: str, topic: str) -> bool:
    """Return whether a valid pattern covers a topic."""
    wanted, levels = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(levels) <= len(wanted):
            return False
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        w in ("*", level) for w, level in zip(wanted, levels, strict=True)
    )


def covers(wide: str, narrow: str) -> bool:
    """Return whether a valid pattern covers every topic that another one covers."""
    if narrow.split(".")[-1] == ">" and wide.split(".")[-1] != ">":
        return False
    return matches(wide, narrow)


def overlaps(one: str, other: str) -> bool:
    """Return whether two valid patterns both cover some topic."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


class _Node(Generic[T]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, None] = {}


class Trie(Generic[T]):
    """Finds the values whose patterns cover a topic."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, value: T) -> None:
        """Add a value under a valid pattern; a second time changes nothing."""
        node = self._root
        for level in pattern.split("."):
            node = node.children.setdefault(level, _Node())
        node.values[value] = None

    def remove(self, pattern: str, value: T) -> None:
        """Remove a value from a valid pattern; harmless if it is not there."""
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for level in pattern.split("."):
            below = node.children.get(level)
            if below is None:
                return
            path.append((node, level))
            node = below
        node.values.pop(value, None)
        while path and not node.values and not node.children:
            node, level = path.pop()
            del node.children[level]

    def match(self, topic: str) -> tuple[T, ...]:
        """Return each value whose pattern covers a topic, once."""
        found: dict[T, None] = {}
        nodes = [self._root]
        for level in topic.split("."):
            below = []
            for node in nodes:
                children = node.children
                if (tail := children.get(">")) is not None:
                    found.update(tail.values)
                if (child := children.get(level)) is not None:
                    below.append(child)
                if (child := children.get("*")) is not None:
                    below.append(child)
            nodes = below
        for node in nodes:
            found.update(node.values)
        return tuple(found)

    def __bool__(self) -> bool:
        return bool(self._root.children)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the patterns that have values."""
        nodes = [("", self._root)]
        while nodes:
            name, node = nodes.pop()
            if node.values:
                yield name
            nodes += [(f"{name}.{k}" if name else k, n) for k, n in node.children.items()]


__all__ = [
    "MAX_LENGTH",
    "MAX_LEVELS",
    "Trie",
    "covers",
    "is_pattern",
    "matches",
    "overlaps",
    "pattern_name",
    "topic_name",
]
