"""A broker whose subscribers are known to other nodes as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from twisted.internet.interfaces import IReactorTime

from kupool.bus.broker import Broker
from kupool.bus.calls import Deliver, Response
from kupool.bus.rabbit.foreign_calls import FIRST_NUMBER
from kupool.bus.rabbit.items import SubscriberEntry
from kupool.bus.settings import BusSettings
from kupool.bus.topics import matches


class OwnSubscriber:
    """A subscriber of this node."""

    __slots__ = ("deliver", "id", "keys", "since", "topics")

    def __init__(self, subscriber_id: str, deliver: Deliver, since: float) -> None:
        self.id = subscriber_id
        self.deliver = deliver
        self.since = since
        self.topics: tuple[str, ...] = ()
        self.keys: dict[str, None] = {}

    def covers(self, topic: str) -> bool:
        """Say whether it listens to a topic."""
        return topic in self.topics or any(matches(p, topic) for p in self.topics)

    def entry(self) -> SubscriberEntry:
        """Return it as other nodes are told of it."""
        return SubscriberEntry(self.id, self.since, list(self.topics), list(self.keys))


class SharedBroker(Broker):
    """A broker that says who comes and goes here, and takes in who listens elsewhere.

    ``added`` is told what a subscriber of this node listens to in addition; ``removed``
    what it no longer does, by its id, the topics (None: all) and whether it is gone.
    ``answered`` gets the answers to the calls of other nodes.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: BusSettings | None = None,
        *,
        wall: Callable[[], float],
        random: Random | None = None,
    ) -> None:
        super().__init__(clock, settings, wall=wall, random=random)
        self.added: Callable[[SubscriberEntry], object] = _nothing
        self.removed: Callable[[str, list[str] | None, bool], object] = _nothing
        self.answered: Callable[[str, int, Response], object] = _nothing
        #: The subscribers of this node, by id.
        self.own: dict[str, OwnSubscriber] = {}
        self._now = wall

    def subscribe(
        self,
        subscriber_id: str,
        topics: Iterable[object],
        deliver: Deliver,
        keys: Iterable[str] = (),
        *,
        since: float | None = None,
    ) -> tuple[str, ...]:
        """Let a subscriber of this node have what fits some topics, wherever published."""
        new_keys = tuple(keys)
        found = super().subscribe(subscriber_id, topics, deliver, new_keys, since=since)
        own = self.own.get(subscriber_id)
        if own is None:
            since = self._now() if since is None else since
            own = self.own[subscriber_id] = OwnSubscriber(subscriber_id, deliver, since)
        more = [topic for topic in found if topic not in own.topics]
        more_keys = [key for key in new_keys if key not in own.keys]
        own.topics = found
        own.keys.update(dict.fromkeys(more_keys))
        if more or more_keys:
            self.added(SubscriberEntry(subscriber_id, own.since, more or [found[0]], more_keys))
        return found

    def unsubscribe(
        self, subscriber_id: str, topics: Iterable[object] | None = None
    ) -> tuple[str, ...]:
        """Let a subscriber have no more of some topics, by default of all."""
        left = super().unsubscribe(subscriber_id, topics)
        own = self.own.get(subscriber_id)
        if own is not None:
            less = [topic for topic in own.topics if topic not in left]
            own.topics = left
            if not left:
                del self.own[subscriber_id]
                self.removed(subscriber_id, None, False)
            elif less:
                self.removed(subscriber_id, less, False)
        return left

    def remove(self, subscriber_id: str) -> None:
        """Forget a subscriber that is gone; what it has not answered goes to others."""
        own = self.own.pop(subscriber_id, None)
        super().remove(subscriber_id)
        if own is not None:
            self.removed(subscriber_id, None, True)

    def add_elsewhere(
        self,
        subscriber_id: str,
        topics: Iterable[str],
        deliver: Deliver,
        keys: Iterable[str],
        *,
        since: float,
    ) -> tuple[str, ...]:
        """Let a subscriber of another node have what fits some topics.

        Raises :class:`ValueError` for a pattern that is none. It leaves, in part or whole,
        as one of this node does.
        """
        return super().subscribe(subscriber_id, topics, deliver, keys, since=since)

    def keep_to_itself(self) -> None:
        """Tell the other nodes nothing more."""
        self.added = self.removed = self.answered = _nothing

    def answer(self, subscriber_id: str, number: int, response: Response) -> None:
        """Take what a subscriber says to a call, of this node or of another."""
        if number >= FIRST_NUMBER:
            self.answered(subscriber_id, number, response)
        else:
            super().answer(subscriber_id, number, response)


def _nothing(*_: object) -> None:
    """Nobody is told."""


__all__ = ["OwnSubscriber", "SharedBroker"]
