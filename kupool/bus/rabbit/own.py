"""The subscribers of this node, as other nodes are told of them."""

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
        """Say whether it listens to a topic."""
        return topic in self.topics or any(matches(p, topic) for p in self.topics)

    def entry(self) -> SubscriberEntry:
        """Return it as other nodes are told of it."""
        return SubscriberEntry(self.id, self.since, list(self.topics), list(self.keys))


@implementer(IBrokerWatcher)
class OwnSubscribers:
    """Keeps them, and says what changes.

    ``added`` is told what a subscriber of this node listens to in addition; ``removed``
    what it no longer does, by its id, the topics (None: all), and, where it is gone, for how
    long it is a member yet; else None.
    ``answered`` gets the answers to the calls of other nodes. All until :meth:`stop`.
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
        """Tell the other nodes nothing more."""
        self._stopped = True

    # -- what the broker says

    def subscribed(
        self,
        subscriber_id: str,
        topics: tuple[str, ...],
        keys: tuple[str, ...],
        *,
        deliver: Deliver,
        since: float,
    ) -> None:
        """A subscriber of this node has these topics, and declares these keys in addition."""
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
        """A subscriber has these topics left; one of another node is passed over."""
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
        """A subscriber is gone; one of another node is passed over."""
        if self._by_id.pop(subscriber_id, None) is not None and not self._stopped:
            self._removed(subscriber_id, None, linger)

    def answered(self, subscriber_id: str, number: int, response: Response) -> None:
        """A subscriber has answered a call of another node."""
        if not self._stopped:
            self._answered(subscriber_id, number, response)


__all__ = ["OwnSubscriber", "OwnSubscribers"]
