"""The hub: channels that fan publications out to whoever has subscribed."""

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
    """Who listens to something, and what is on its way to them.

    Subscribers have what is published in order, those that came first before the others. A
    channel of up to :data:`~kupool.timing.chunks.CHUNK` subscribers is served within the call;
    a larger one in that turn and those after it, between which ``wake`` is called with the
    channel: it is to :meth:`run`. ``limit`` publications may be on their way.

    Nothing is kept for those who subscribe later.
    """

    __slots__ = ("_fan_out", "_subscribers", "_wake", "queued")

    def __init__(self, wake: Callable[[Channel], object], *, limit: int = LIMIT) -> None:
        #: Whether it waits for its turn; kept by what wakes it.
        self.queued = False
        self._wake = wake
        self._fan_out: FanOut[Recipient] = FanOut(limit)
        self._subscribers: dict[Recipient, None] = {}

    def __len__(self) -> int:
        """Return how many have subscribed."""
        return len(self._subscribers)

    def __iter__(self) -> Iterator[Recipient]:
        """Iterate over the subscribers of this moment, who may come and go meanwhile."""
        return iter(list(self._subscribers))

    def __contains__(self, recipient: object) -> bool:
        """Say whether somebody has subscribed."""
        return recipient in self._subscribers

    @property
    def dropped(self) -> int:
        """How many messages subscribers did not get, as :class:`FanOut` counts them."""
        return self._fan_out.dropped

    def subscribe(self, recipient: Recipient) -> None:
        """Let somebody have what is published from now on.

        Whoever does that unsubscribes them at their end. One that has ended is ignored.
        """
        if recipient.sends:
            self._subscribers.setdefault(recipient)

    def unsubscribe(self, recipient: Recipient) -> None:
        """Let them have nothing more, of what is on its way neither."""
        self._subscribers.pop(recipient, None)

    def publish(self, publication: Publication) -> Deferred[None]:
        """Send something to all subscribers; fires when every outbox has it.

        Of a publication with a key only the newest is on its way: an older one goes no
        further, and fires. Whatever an encoding raises costs its subscriber alone.
        """
        done: Deferred[None] = Deferred()
        self._fan_out.send(
            publication,
            list(self._subscribers),
            newest=True,
            where=self._subscribers.__contains__,
            done=lambda: done.callback(None),
        )
        if self._fan_out.pending:
            self._wake(self)
        return done

    # -- its turns

    @property
    def ready(self) -> bool:
        """Whether something is on its way."""
        return self._fan_out.pending

    def run(self, budget: int) -> int:
        """Go on sending, to up to ``budget`` subscribers; returns to how many it was."""
        return self._fan_out.run(budget)


class Hub:
    """Makes channels, which share each turn of the reactor.

    However many of them have something on its way, in a turn they send one chunk together.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._turns = RoundRobin(clock)

    def channel(self, *, limit: int = LIMIT) -> Channel:
        """Return a new channel, on which ``limit`` publications may be on their way."""
        return Channel(self._turns.wake, limit=limit)

    def latest(self, name: str) -> LatestChannel:
        """Return a new channel of which only the newest message matters."""
        return LatestChannel(self.channel(), name)


@implementer(IChannel)
class LatestChannel:
    """A channel of which only the newest message matters; ``name`` is the conflation key.

    A subscriber that reads slowly skips to the newest when it reads again, and delays
    nobody: see :meth:`kupool.session.connection.Connection.send_latest`.
    """

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name

    def __len__(self) -> int:
        return len(self._channel)

    def subscribe(self, connection: Connection) -> None:
        """Let a connection have what is published from now on; one that ended is ignored."""
        self._channel.subscribe(connection)

    def unsubscribe(self, connection: Connection) -> None:
        """Let it have nothing more."""
        self._channel.unsubscribe(connection)

    def publish(self, payload: Payload) -> Deferred[None]:
        """Send the same payload to all, encoded once for each framing."""
        return self._channel.publish(Publication(payload, self._name))

    def publish_each(self, make: Callable[[Any], bytes]) -> Deferred[None]:
        """Send each subscriber a payload of its own."""
        return self._channel.publish(Publication(ForEach(make), self._name))


__all__ = ["Channel", "Hub", "LatestChannel"]
