"""The subscribers of this node, and the changes that other nodes are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zope.interface import implementer

from kupool.bus.calls import Deliver, Response
from kupool.bus.rabbit.items import SubscriberEntry
from kupool.bus.topics import matches
from kupool.bus.watching import IBrokerWatcher


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
        """Return whether it is subscribed to a topic."""
        return topic in self.topics or any(matches(p, topic) for p in self.topics)

    def entry(self) -> SubscriberEntry:
        """Return the entry that other nodes get about it."""
        return SubscriberEntry(self.id, self.since, list(self.topics), list(self.keys))


@implementer(IBrokerWatcher)
class OwnSubscribers:
    """Keeps the subscribers of this node, and reports their changes.

    ``added`` is called with the topics that a subscriber of this node has added. ``removed`` is
    called with a subscriber's id and the topics that it has removed (None: all); if the subscriber
    is gone, also with the seconds for which it stays a member, else with None. ``answered`` gets
    the answers to calls of other nodes. All this lasts until :meth:`stop`.
    """

    def __init__(
        self,
        *,
        added: Callable[[SubscriberEntry], object],
        removed: Callable[[str, list[str] | None, float | None], object],
        answered: Callable[[str, int, Response], object],
    ) -> None:
        self._added = added
        self._removed = removed
        self._answered = answered
        self._stopped = False
        self._by_id: dict[str, OwnSubscriber] = {}

    def __iter__(self) -> Iterator[OwnSubscriber]:
        return iter(list(self._by_id.values()))

    def get(self, subscriber_id: str) -> OwnSubscriber | None:
        """Return a subscriber of this node by its id."""
        return self._by_id.get(subscriber_id)

    def stop(self) -> None:
        """Stop telling the other nodes."""
        self._stopped = True

    # -- reports of the broker

    def subscribed(
        self,
        subscriber_id: str,
        topics: tuple[str, ...],
        keys: tuple[str, ...],
        *,
        deliver: Deliver,
        since: float,
    ) -> None:
        """A subscriber of this node has these topics, and has declared these further keys."""
        own = self._by_id.get(subscriber_id)
        if own is None:
            own = self._by_id[subscriber_id] = OwnSubscriber(subscriber_id, deliver, since)
        more = [topic for topic in topics if topic not in own.topics]
        more_keys = [key for key in keys if key not in own.keys]
        own.topics = topics
        own.keys.update(dict.fromkeys(more_keys))
        if (more or more_keys) and not self._stopped:
            entry = SubscriberEntry(subscriber_id, own.since, more or [topics[0]], more_keys)
            self._added(entry)

    def unsubscribed(self, subscriber_id: str, left: tuple[str, ...]) -> None:
        """A subscriber has only these topics left; a subscriber of another node is ignored."""
        own = self._by_id.get(subscriber_id)
        if own is None:
            return
        less = [topic for topic in own.topics if topic not in left]
        own.topics = left
        if not left:
            del self._by_id[subscriber_id]
        if not self._stopped and (less or not left):
            self._removed(subscriber_id, less if left else None, None)

    def removed(self, subscriber_id: str, linger: float = 0.0) -> None:
        """A subscriber is gone; a subscriber of another node is ignored."""
        if self._by_id.pop(subscriber_id, None) is not None and not self._stopped:
            self._removed(subscriber_id, None, linger)

    def answered(self, subscriber_id: str, number: int, response: Response) -> None:
        """A subscriber has answered a call of another node."""
        if not self._stopped:
            self._answered(subscriber_id, number, response)


__all__ = ["OwnSubscriber", "OwnSubscribers"]
