"""The hub: channels that fan publications out to their subscribers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from kupool.live.interfaces import IChannel
from kupool.net.fan_out import LIMIT, FanOut
from kupool.session.connection import Connection
from kupool.session.publication import ForEach, Payload, Publication, Recipient
from kupool.timing.round_robin import RoundRobin


class Channel:
    """A channel: its subscribers, and the publications being sent to them.

    Subscribers get publications in order, in the order in which they subscribed. A channel
    with up to :data:`~kupool.timing.chunks.CHUNK` subscribers is served within the call. A
    larger one continues in later turns: ``wake`` is called with the channel, whose
    :meth:`run` must then be called. At most ``limit`` publications may be pending.

    Publications are not kept for later subscribers.
    """

    __slots__ = ("_fan_out", "_left", "_subscribers", "_wake", "queued")

    def __init__(self, wake: Callable[[Channel], object], *, limit: int = LIMIT) -> None:
        #: Whether it waits for its turn; set by its scheduler.
        self.queued = False
        self._wake = wake
        self._fan_out: FanOut[Recipient] = FanOut(limit)
        self._subscribers: dict[Recipient, None] = {}
        #: Not empty once a subscriber has left while something was pending.
        self._left: list[bool] = []

    def __len__(self) -> int:
        """Return the number of subscribers."""
        return len(self._subscribers)

    def __iter__(self) -> Iterator[Recipient]:
        """Iterate over a snapshot of the subscribers."""
        return iter(list(self._subscribers))

    def __contains__(self, recipient: object) -> bool:
        """Return whether a recipient is subscribed."""
        return recipient in self._subscribers

    @property
    def dropped(self) -> int:
        """Number of messages that subscribers did not get, as :class:`FanOut` counts them."""
        return self._fan_out.dropped

    def subscribe(self, recipient: Recipient) -> None:
        """Subscribe a recipient to publications from now on.

        The caller unsubscribes it when it ends. A recipient that has already ended is
        ignored.
        """
        if recipient.sends:
            self._subscribers.setdefault(recipient)

    def unsubscribe(self, recipient: Recipient) -> None:
        """Unsubscribe a recipient; it gets no pending publication either."""
        self._subscribers.pop(recipient, None)
        if not self._left:
            self._left.append(True)

    def publish(self, publication: Publication) -> Deferred[None]:
        """Send a publication to all subscribers; fires when it is in every outbox.

        Of publications with the same key only the newest is pending: an older one is sent
        no further, and its Deferred fires. An exception in an encoding affects only its
        subscriber.
        """
        done: Deferred[None] = Deferred()
        if self._fan_out.idle:
            self._left.clear()
        self._fan_out.send(
            publication,
            list(self._subscribers),
            newest=True,
            where=self._subscribers.__contains__,
            changed=self._left,
            done=lambda: done.callback(None),
        )
        if self._fan_out.pending:
            self._wake(self)
        return done

    # -- its turns

    @property
    def ready(self) -> bool:
        """Whether something is pending."""
        return self._fan_out.pending

    def run(self, budget: int) -> int:
        """Send to up to ``budget`` subscribers; returns the number of sends."""
        return self._fan_out.run(budget)


class Hub:
    """Makes channels, which share each reactor turn.

    All channels together send one chunk per turn.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._turns = RoundRobin(clock)

    def channel(self, *, limit: int = LIMIT) -> Channel:
        """Return a new channel with at most ``limit`` pending publications."""
        return Channel(self._turns.wake, limit=limit)

    def latest(self, name: str) -> LatestChannel:
        """Return a new channel whose subscribers want only the newest message."""
        return LatestChannel(self.channel(), name)


@implementer(IChannel)
class LatestChannel:
    """A channel whose subscribers want only the newest message; ``name`` is its key.

    A slow reader gets only the newest message when it reads again, and delays no other
    subscriber: see :meth:`kupool.session.connection.Connection.send_latest`.
    """

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name

    def __len__(self) -> int:
        return len(self._channel)

    def subscribe(self, connection: Connection) -> None:
        """Subscribe a connection from now on; one that has ended is ignored."""
        self._channel.subscribe(connection)

    def unsubscribe(self, connection: Connection) -> None:
        """Unsubscribe a connection."""
        self._channel.unsubscribe(connection)

    def publish(self, payload: Payload) -> Deferred[None]:
        """Send the same payload to all subscribers, encoded once for each framing."""
        return self._channel.publish(Publication(payload, self._name))

    def publish_each(self, make: Callable[[Any], bytes]) -> Deferred[None]:
        """Send each subscriber a payload of its own."""
        return self._channel.publish(Publication(ForEach(make), self._name))


__all__ = ["Channel", "Hub", "LatestChannel"]
