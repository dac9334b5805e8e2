"""Names of topics and patterns; :mod:`kupool.patterns` says what a pattern covers. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from kupool.patterns import Trie, covers, is_pattern, matches, overlaps

#: The longest topic, in characters, and the most levels it may have.
MAX_LENGTH = 255
MAX_LEVELS = 16

#: The most topics that are remembered as valid.
MAX_KNOWN = 1024

#: A topic of ASCII, as most are: the rules of :func:`topic_name` at a tenth of their cost.
_LEVEL = r"[!-)+-\-/-=?-~]+"
_is_plain = re.compile(rf"{_LEVEL}(?:\.{_LEVEL}){{0,{MAX_LEVELS - 1}}}").fullmatch


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
