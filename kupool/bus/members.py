"""Who is there: the members of a topic are its subscribers, and a watch tells who they are.

A member that unsubscribes is gone at once. One that is lost goes on being a member for some
time, so that it knows before the others do: it is told that it is not heard any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.bus.calls import Subscriber

#: The most members of one topic that a watch tells of: those who came first.
MAX_MEMBERS = 1000

#: Seconds for which a member counts as one that was not heard of; and after which it knows.
#: The others drop it later than it stops counting on them.
SILENCE = 4.0
STEP_DOWN = 3.0


class TopicMember(NamedTuple):
    """A subscriber of a topic, with the keys that it declared, sorted."""

    id: str
    keys: tuple[str, ...]


#: Is told all members of a topic, whenever they are others; None when they are not known, or
#: when those who are on this side of the bus may count as gone on the other. Never while
#: something is published. What it raises is logged.
MembersTold = Callable[[tuple[TopicMember, ...] | None], object]


class _WatchedTopic:
    """A watched topic: its members as of the last look, and what each watch was told last."""

    def __init__(self) -> None:
        self.members: dict[str, TopicMember] = {}
        self.watches: dict[object, tuple[MembersTold, tuple[TopicMember, ...] | None]] = {}


class TopicWatches:
    """Tells watches about the subscribers of a broker: ``listening`` returns those of a topic.

    While nobody watches, no timer is set.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, listening: Callable[[str], Sequence[Subscriber]]
    ) -> None:
        self._clock = clock
        self._listening = listening
        self._topics: dict[str, _WatchedTopic] = {}
        self._complete = True
        #: Until when those who are here are sure to count as members everywhere.
        self._heard_until = inf
        #: Members that are lost, and until when they are members.
        self._lost: dict[str, tuple[TopicMember, float]] = {}
        self._soon: IDelayedCall | None = None
        self._later: IDelayedCall | None = None

    # -- who wants to know

    def watch(self, topic: str, told: MembersTold) -> Callable[[], None]:
        """Tell of the members of a topic from now on; returns what ends that."""
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
        """Tell nobody any more."""
        self._topics.clear()
        self._lost.clear()
        for timer in (self._soon, self._later):
            if timer is not None and timer.active():
                timer.cancel()
        self._soon = self._later = None

    @property
    def lease(self) -> float:
        """For how many seconds those who are here are sure to count as members everywhere; 0 or
        less where they may not.
        """
        return self._heard_until - self._clock.seconds()

    # -- what the broker knows

    def changed(self) -> None:
        """Somebody has begun to listen to more, or to less."""
        if self._topics and self._soon is None:
            self._soon = self._clock.callLater(0, self._look)

    def lost(self, subscriber_id: str, seconds: float) -> None:
        """A subscriber is about to be removed that is a member for so many seconds yet."""
        if seconds <= 0:
            return
        for watched in self._topics.values():
            member = watched.members.get(subscriber_id)
            if member is not None:
                self._lost[subscriber_id] = member, self._clock.seconds() + seconds

    def complete(self, complete: bool) -> None:
        """Say whether all subscribers are known that there are. While they are not, the members
        are those of before, as long as those who are here count as members.
        """
        self._complete = complete
        self.changed()

    def heard(self, until: float) -> None:
        """Those who are here have been heard everywhere, and count as members until then, in
        seconds of the clock.
        """
        before, self._heard_until = self.lease, until
        if before <= 0:
            self.changed()
        elif self._topics and (self._later is None or not self._later.active()):
            self._look_later()

    # -- telling

    def _look(self) -> None:
        self._soon = None
        now = self._clock.seconds()
        self._lost = {i: (m, until) for i, (m, until) in self._lost.items() if until > now}
        known = self.lease > 0
        if known and not self._complete:
            self._look_later()
            return
        if not known:
            self._lost.clear()  # whoever is there afterwards has been heard of anew
        for topic, watched in list(self._topics.items()):
            there = {s.id: TopicMember(s.id, tuple(sorted(s.keys))) for s in self._listening(topic)}
            # In the order in which they came, whatever has broken meanwhile.
            still = {i: m for i, m in watched.members.items() if i in there or i in self._lost}
            watched.members = there = still | there
            members = tuple(there.values())[:MAX_MEMBERS] if known else None
            for key, (told, last) in list(watched.watches.items()):
                if members != last and key in watched.watches:
                    watched.watches[key] = told, members
                    self._tell(told, members)
        self._look_later()

    def _look_later(self) -> None:
        """Look again when something ends."""
        if self._later is not None and self._later.active():
            self._later.cancel()
        self._later = None
        ends = [until for _, until in self._lost.values()]
        if self.lease > 0:
            ends.append(self._heard_until)
        first = min(ends, default=inf)
        if self._topics and first < inf:
            seconds = max(0.0, first - self._clock.seconds())
            self._later = self._clock.callLater(seconds, self._look_now)

    def _look_now(self) -> None:
        self._later = None
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        self._look()

    def _tell(self, told: MembersTold, members: tuple[TopicMember, ...] | None) -> None:
        try:
            told(members)
        except BaseException:
            self._log.failure("Who watches the members of a topic could not be told")


__all__ = [
    "MAX_MEMBERS",
    "SILENCE",
    "STEP_DOWN",
    "MembersTold",
    "TopicMember",
    "TopicWatches",
]
