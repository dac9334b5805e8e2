"""Patterns of dotted names, and a trie that finds the values of a name. Pure.

A name has levels, separated by dots. In a pattern ``*`` stands for one level, and ``>``, as the
last one, for one or more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


def levels_of(name: str) -> str:
    """Return a name with a namespace, or a pattern of such names, as patterns see it: a colon ends
    a level as well.
    """
    return name.replace(":", ":.")


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


__all__ = ["Trie", "covers", "is_pattern", "levels_of", "matches", "overlaps"]
