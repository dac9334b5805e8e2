"""Membership: the members of a topic are its subscribers, and a watch reports changes of them.

A member that unsubscribes is removed at once. A member that is lost stays a member for some time.
So the lost member learns that others cannot hear it before the others remove it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.bus.calls import Subscriber
from kupool.bus.topics import matches

#: The most members of one topic that a watch reports: the earliest ones.
MAX_MEMBERS = 1000

#: Seconds without a sign of life until a lost member must know that it is lost, and until the
#: others remove it. The others wait longer.
SILENCE = 4.0
STEP_DOWN = 3.0


class TopicMember(NamedTuple):
    """A subscriber of a topic, with the keys that it declared, sorted."""

    id: str
    keys: tuple[str, ...]


#: Called with all members of a topic whenever they change. None means that they are unknown, or
#: that the members on this side of the bus may count as gone on the other side. Never called during
#: a publish. Exceptions are logged.
MembersTold = Callable[[tuple[TopicMember, ...] | None], object]


class _Lost(NamedTuple):
    """A subscriber that is gone, and the time until which it is a member of its topics."""

    member: TopicMember
    patterns: tuple[str, ...]
    until: float

    def covers(self, topic: str) -> bool:
        """Return whether it was a subscriber of a topic."""
        return any(matches(pattern, topic) for pattern in self.patterns)


def _member(subscriber: Subscriber) -> TopicMember:
    return TopicMember(subscriber.id, tuple(sorted(subscriber.keys)))


class _WatchedTopic:
    """A watched topic: its members at the last look, and what each watch was told last."""

    def __init__(self) -> None:
        self.members: dict[str, TopicMember] = {}
        self.watches: dict[object, tuple[MembersTold, tuple[TopicMember, ...] | None]] = {}


class TopicWatches:
    """Reports the subscribers of a broker to watches; ``listening`` returns those of a topic.

    Without watches no timer is set.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, listening: Callable[[str], Sequence[Subscriber]]
    ) -> None:
        self._clock = clock
        self._listening = listening
        self._topics: dict[str, _WatchedTopic] = {}
        self._complete = True
        self._held_until = -inf
        #: The time until which subscribers on this side certainly count as members everywhere.
        self._heard_until = inf
        #: Lost subscribers by id, watched or not: who watches a moment later sees them too.
        self._lost: dict[str, _Lost] = {}
        self._soon: IDelayedCall | None = None
        self._later: IDelayedCall | None = None

    # -- watches

    def watch(self, topic: str, told: MembersTold) -> Callable[[], None]:
        """Report the members of a topic from now on; returns a function that ends this."""
        watched = self._topics.setdefault(topic, _WatchedTopic())
        key = object()
        watched.watches[key] = told, None
        self.changed()

        def end() -> None:
            watched.watches.pop(key, None)
            if not watched.watches and self._topics.get(topic) is watched:
                del self._topics[topic]
            if not self._topics:
                self.close()

        return end

    def close(self) -> None:
        """End all watches."""
        self._topics.clear()
        for timer in (self._soon, self._later):
            if timer is not None and timer.active():
                timer.cancel()
        self._soon = self._later = None

    @property
    def lease(self) -> float:
        """Seconds for which subscribers on this side certainly count as members everywhere; 0 or
        less if they may not.
        """
        return self._heard_until - self._clock.seconds()

    # -- reports of the broker

    def changed(self) -> None:
        """The topics of a subscriber have changed."""
        if self._topics and self._soon is None:
            self._soon = self._clock.callLater(0, self._look)

    def lost(self, subscriber: Subscriber, seconds: float) -> None:
        """A subscriber is about to be removed; it stays a member for some seconds."""
        if seconds > 0:
            now = self._clock.seconds()
            while self._lost and (first := next(iter(self._lost.values()))).until <= now:
                del self._lost[first.member.id]
            patterns = tuple(subscriber.patterns)
            self._lost[subscriber.id] = _Lost(_member(subscriber), patterns, now + seconds)

    def complete(self, complete: bool) -> None:
        """Return whether all subscribers are known.

        If they are not, the members stay as they were, as long as those on this side count as
        members.
        """
        self._complete = complete
        self.changed()

    def hold(self, seconds: float) -> None:
        """Report no members for some seconds: some may not have come back to this broker yet."""
        self._held_until = self._clock.seconds() + seconds

    def heard(self, until: float) -> None:
        """All other nodes have heard this side; its subscribers count as members until the given
        time, in seconds of the clock.
        """
        before, self._heard_until = self.lease, until
        if before <= 0:
            self.changed()
        elif self._topics and self._later is None:
            self._look_later()

    # -- telling

    def _look(self) -> None:
        self._soon = None
        now = self._clock.seconds()
        self._lost = {i: lost for i, lost in self._lost.items() if lost.until > now}
        known = self.lease > 0
        if known and (not self._complete or now < self._held_until):
            self._look_later()
            return
        if not known:
            self._lost.clear()  # members after that have been heard again
        for topic, watched in list(self._topics.items()):
            there = {i: lost.member for i, lost in self._lost.items() if lost.covers(topic)}
            there |= {s.id: _member(s) for s in self._listening(topic)}
            # In the order in which they subscribed, whatever was lost meanwhile.
            still = {i: m for i, m in watched.members.items() if i in there}
            watched.members = there = still | there
            members = tuple(there.values())[:MAX_MEMBERS] if known else None
            for key, (told, last) in list(watched.watches.items()):
                if members != last and key in watched.watches:
                    watched.watches[key] = told, members
                    self._tell(told, members)
        self._look_later()

    def _look_later(self) -> None:
        """Look again when a lost member's time, the lease or the hold ends."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        ends = [lost.until for lost in self._lost.values()]
        if self.lease > 0:
            ends.append(self._heard_until)
        if self._held_until > self._clock.seconds():
            ends.append(self._held_until)
        first = min(ends, default=inf)
        if self._topics and first < inf:
            seconds = max(0.0, first - self._clock.seconds())
            self._later = self._clock.callLater(seconds, self._look_now)

    def _look_now(self) -> None:
        self._later = None
        if self._soon is not None:
            self._soon.cancel()
        self._look()

    def _tell(self, told: MembersTold, members: tuple[TopicMember, ...] | None) -> None:
        try:
            told(members)
        except BaseException:
            self._log.failure("A watch of the members of a topic failed")


__all__ = [
    "MAX_MEMBERS",
    "SILENCE",
    "STEP_DOWN",
    "MembersTold",
    "TopicMember",
    "TopicWatches",
]
