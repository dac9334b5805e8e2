"""Rules of live channels: which channels there are, and what each can do. Pure.

A name may have a namespace: the text before its first colon. Patterns are those of
:mod:`kupool.patterns`, in which a colon ends a level as well: ``users.*``, ``recovery:*``,
``workers.alice.>``. A pattern without a namespace covers no name with one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from kupool.live.failures import InvalidChannelName
from kupool.patterns import is_pattern, levels_of, matches

#: The longest name of a channel, in characters.
LONGEST_NAME = 255


class ChannelKind(Enum):
    """Where the history of a channel is."""

    #: In memory, limited by size and time; without history if its size is 0.
    MEMORY = "memory"
    #: In a partition of a topic; what was published is on disk.
    DURABLE = "durable"
    #: In memory, and only the newest publication.
    LATEST = "latest"


class QueuePolicy(Enum):
    """What happens to publications that a slow reader has no room for."""

    #: The new one is dropped.
    DROP_NEW = "drop-new"
    #: The oldest ones are dropped.
    DROP_OLDEST = "drop-oldest"
    #: They wait up to a deadline. Those that wait longer, or find no room, are dropped.
    WAIT = "wait"
    #: A newer one with the same key replaces an older one; without room, the oldest is dropped.
    LATEST = "latest"
    #: All are dropped, and read from the history when the client reads again.
    REPLAY = "replay"
    #: The client is told that it is too slow, and its connection closed.
    DISCONNECT = "disconnect"


class QueueLimits(NamedTuple):
    """The most publications and bytes of one subscription that wait for a slow reader.

    With the policy *wait* each waits up to ``deadline`` seconds.
    """

    messages: int = 100
    size: int = 256 * 1024
    deadline: float = 5.0


#: The profiles of queues, by name: for low latency, for normal use, for high throughput.
QUEUE_PROFILES = {
    "low": QueueLimits(messages=10),
    "normal": QueueLimits(messages=100),
    "high": QueueLimits(messages=1000),
}


class ChannelRule(msgspec.Struct, frozen=True, kw_only=True):
    """What the channels that a pattern covers can do.

    A durable channel is partition ``partition`` of topic ``topic``. ``history_size`` limits the
    publications of a channel in memory, and ``history_time``, in seconds, their age; a time of 0
    is no limit. ``recovery`` lets clients ask for positions and recovery, which all subscribers
    have with ``forced_recovery``, or with ``forced_positions`` positions alone. ``join_leave`` lets
    clients ask for messages about who comes and goes; with ``forced_join_leave`` all get them.
    ``publish_by_clients`` lets clients publish that may. ``most_subscribers`` of 0 is no limit.
    ``policy`` and ``queue`` are for slow readers. In a channel with history the default policy is
    *replay*, in one with only the newest value *latest*, in others *drop-oldest*.
    """

    pattern: str
    kind: ChannelKind = ChannelKind.MEMORY
    topic: str = ""
    partition: int = 0
    history_size: int = 0
    history_time: float = 0.0
    recovery: bool = True
    forced_recovery: bool = False
    forced_positions: bool = False
    presence: bool = False
    join_leave: bool = False
    forced_join_leave: bool = False
    publish_by_clients: bool = False
    most_subscribers: int = 0
    policy: QueuePolicy | None = None
    queue: str = "normal"

    @property
    def keeps_history(self) -> bool:
        """Whether publications have offsets, and can be read later."""
        return self.kind is not ChannelKind.MEMORY or self.history_size > 0

    @property
    def default_policy(self) -> QueuePolicy:
        """What happens to publications for a slow reader, unless it wants something else."""
        if self.policy is not None:
            return self.policy
        if self.kind is ChannelKind.LATEST:
            return QueuePolicy.LATEST
        return QueuePolicy.REPLAY if self.keeps_history else QueuePolicy.DROP_OLDEST

    def check(self) -> None:
        """Raise :class:`ValueError` for the first field that is not valid."""
        check_pattern(self.pattern)
        if self.queue not in QUEUE_PROFILES:
            known = ", ".join(QUEUE_PROFILES)
            raise ValueError(f"queue: expected one of {known}, not {self.queue!r}")
        if (self.kind is ChannelKind.DURABLE) != bool(self.topic):
            raise ValueError("topic: a durable channel needs one, and others have none")
        if self.topic and is_pattern(self.pattern):
            raise ValueError("pattern: a partition is one channel, so its rule names that channel")
        if self.policy is QueuePolicy.REPLAY and not self.keeps_history:
            raise ValueError("policy: a channel without history cannot replay")
        numbers = (self.partition, self.history_size, self.history_time, self.most_subscribers)
        if not all(number >= 0 for number in numbers):
            raise ValueError("a number of a rule is below 0")


def namespace_of(name: str) -> str:
    """Return the namespace of a channel; empty if it has none."""
    return name.partition(":")[0] if ":" in name else ""


def check_channel(name: object) -> str:
    """Return the name of a channel; raises :class:`InvalidChannelName`."""
    if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and _is_plain(name):
        return name
    raise InvalidChannelName(name)


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable()


def check_pattern(pattern: str) -> None:
    """Raise :class:`ValueError` unless a pattern of channels is valid."""
    try:
        check_channel(pattern)
    except InvalidChannelName as error:
        raise ValueError(str(error)) from None
    levels = levels_of(pattern).split(".")
    if ">" in levels[:-1]:
        raise ValueError(f"pattern {pattern}: '>' can only be the last level")


def covers_channel(pattern: str, name: str) -> bool:
    """Return whether a pattern covers a channel; a ``*`` in the name is only text."""
    if (":" in pattern) != (":" in name):
        return False
    return matches(levels_of(pattern), levels_of(name))


class ChannelRules:
    """The rules of all channels; of those that cover a name, the first one counts.

    Raises :class:`ValueError` for a rule that is not valid.
    """

    def __init__(self, rules: Sequence[ChannelRule]) -> None:
        for rule in rules:
            rule.check()
        self._rules = tuple((levels_of(rule.pattern), rule) for rule in rules)
        logs = {(rule.pattern, rule.topic, rule.partition) for rule in rules if rule.topic}
        self._channels = Counter((topic, partition) for _, topic, partition in logs)

    def __iter__(self) -> Iterator[ChannelRule]:
        """Iterate over the rules, the first that counts first."""
        return (rule for _, rule in self._rules)

    def shares_log(self, rule: ChannelRule) -> bool:
        """Return whether a durable channel has its partition together with other channels."""
        return self._channels[rule.topic, rule.partition] > 1

    def of(self, name: str) -> ChannelRule | None:
        """Return the rule of a channel; None if there is none, so the channel is unknown."""
        levels, has_namespace = levels_of(name), ":" in name
        for pattern, rule in self._rules:
            if (":" in pattern) == has_namespace and matches(pattern, levels):
                return rule
        return None


__all__ = [
    "LONGEST_NAME",
    "QUEUE_PROFILES",
    "ChannelKind",
    "ChannelRule",
    "ChannelRules",
    "QueueLimits",
    "QueuePolicy",
    "check_channel",
    "check_pattern",
    "covers_channel",
    "namespace_of",
]
