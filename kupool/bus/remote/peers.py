"""The state of each connection on the bus: its subscribers and its publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import count

from twisted.internet.defer import Deferred

from kupool.bus.remote.shares import Share
from kupool.bus.settings import PeerLimits

#: Ended subscribers with open calls; above this number, those without open calls are removed.
PARTED = 16


class BusPeer:
    """One connection on the bus.

    ``publisher`` identifies the publisher as far as the bus can know: the ids of its messages are
    separate from those of others. ``shares`` are those of its user and address. A subscriber has a
    name, which the peer chooses, and a number, which is never used again.
    """

    def __init__(self, publisher: str, shares: tuple[Share, ...]) -> None:
        self.publisher = publisher
        #: The hash of the publisher, of which each message id is a continuation.
        self._hash = blake2b(f"{len(publisher)}:{publisher}".encode(), digest_size=12)
        self.shares = shares
        #: The owners whose share of the buffer an unreliable message takes.
        self.owners = tuple(share.owner for share in shares)
        #: The number of each subscriber, by its name.
        self.names: dict[str, int] = {}
        #: Whether it ever had a subscriber: then it may have calls to reply to.
        self.has_listened = False
        #: Callers that wait for all outcomes.
        self.settled: Deferred[None] | None = None
        #: The size of the data of each publish, and the function that ends it without an outcome.
        self._sizes: dict[int, int] = {}
        self._ends: dict[int, Callable[[], None]] = {}
        self._numbers = count()
        #: The topics and keys of each subscriber, by its name.
        self._topics: dict[str, set[str]] = {}
        self._keys: dict[str, set[str]] = {}
        self._held = 0
        self._next_number = 0
        #: Ended subscribers that still have calls to answer.
        self._parted: set[int] = set()
        self._most_parted = PARTED

    # -- publishes

    @property
    def publishing(self) -> int:
        """How many publishes have no outcome yet."""
        return len(self._sizes)

    def refuses_call(self, limits: PeerLimits, size: int) -> str:
        """Return which limit one more publish of this many bytes would exceed; empty if none."""
        if len(self._sizes) >= limits.publishing:
            return "open calls of one session"
        for share in self.shares:
            if share.is_user:
                most, most_bytes = limits.user_calls, limits.user_calls_bytes
            else:
                most, most_bytes = limits.address_calls, limits.address_calls_bytes
            if most and share.calls >= most:
                return f"open calls of one {share.kind}"
            if most_bytes and share.size + size > most_bytes:
                return f"data in open calls of one {share.kind}"
        return ""

    def message_id(self, own: str) -> str:
        """Return the bus's id for a message that has an id of its publisher's own.

        No other publisher's message has this id. If the same publisher sends the message again, the
        id is the same, so a subscriber that has handled it recognizes it.
        """
        found = self._hash.copy()
        found.update(own.encode())
        return found.hexdigest()

    def begin(self, size: int) -> int:
        """Count a publish of this many bytes; returns its number."""
        number = next(self._numbers)
        self._sizes[number] = size
        for share in self.shares:
            share.calls += 1
            share.size += size
        return number

    def opened(self, number: int, end: Callable[[], None]) -> None:
        """Record the function that ends a publish, unless it has an outcome already."""
        if number in self._sizes:
            self._ends[number] = end

    def finished(self, number: int) -> bool:
        """A publish has its outcome, or will get none; returns False if that was known."""
        size = self._sizes.pop(number, None)
        if size is None:
            return False
        self._ends.pop(number, None)
        for share in self.shares:
            share.calls -= 1
            share.size -= size
        settled = self.settled
        if settled is not None and not self._sizes:
            self.settled = None
            settled.callback(None)
        return True

    def end_publishes(self) -> int:
        """End all publishes without an outcome; returns how many there were."""
        numbers = list(self._sizes)
        for number in numbers:
            self._ends.get(number, _nothing)()
            self.finished(number)
        return len(numbers)

    # -- subscribers

    def refuses_subscriber(
        self, limits: PeerLimits, name: str, topics: set[str], keys: set[str]
    ) -> str:
        """Return which limit a subscriber with more topics would exceed; empty if none."""
        known = len(self.names) + len(self._parted)
        if name not in self.names and known >= limits.subscribers:
            return "subscribers of one session"
        more = len(topics - self._topics.get(name, set())) + len(keys - self._keys.get(name, set()))
        if self._held + more > limits.topics:
            return "topics of one session"
        for share in self.shares:
            if reason := share.refuses_topics(limits, more):
                return reason
        return ""

    def topics_of(self, name: str) -> frozenset[str]:
        """Return the topics of a subscriber."""
        return frozenset(self._topics.get(name, ()))

    def number_of(self, name: str) -> int:
        """Return the number of a subscriber; a new one is recorded by :meth:`subscribed`."""
        return self.names.get(name, self._next_number)

    def subscribed(self, name: str, topics: Iterable[str], keys: Iterable[str]) -> None:
        """A subscriber has subscribed to topics and declared keys."""
        self.has_listened = True
        if name not in self.names:
            self.names[name] = self._next_number
            self._next_number += 1
        self._topics.setdefault(name, set()).update(topics)
        self._keys.setdefault(name, set()).update(keys)
        self._count()

    def unsubscribed(self, name: str, left: Iterable[str], knows: Callable[[int], bool]) -> None:
        """A subscriber has only these topics left; without any, its name is free again.

        ``knows`` returns whether the subscriber of a number may still answer calls.
        """
        topics = set(left)
        if topics:
            self._topics[name] = topics
        else:
            number = self.names.pop(name)
            del self._topics[name], self._keys[name]
            if knows(number):
                self._parted.add(number)
            if len(self._parted) > self._most_parted:
                self._parted = {n for n in self._parted if knows(n)}
                self._most_parted = PARTED + 2 * len(self._parted)
        self._count()

    def leave(self) -> list[int]:
        """Remove all subscribers; returns their numbers."""
        numbers = [*self.names.values(), *self._parted]
        self.names.clear()
        self._parted.clear()
        self._topics.clear()
        self._keys.clear()
        self._count()
        return numbers

    def _count(self) -> None:
        held = sum(map(len, self._topics.values())) + sum(map(len, self._keys.values()))
        for share in self.shares:
            share.topics += held - self._held
        self._held = held


def _nothing() -> None:
    """Do nothing: this publish gets its outcome soon."""


__all__ = ["BusPeer"]
