"""Live channels by name, for those who speak to clients and for the server itself.

::

    live = LiveService(clock, Hub(clock), ChannelRules(rules), wall=time.time, ...)
    session = live.connect(subscriber)           # a client has connected
    outcome = await session.subscribe("news", SubscribeWishes(recoverable=True))
    ...                                          # write the reply
    outcome.subscription.start()                 # publications follow
    await live.publish("news", NewPublication(data=b"1"))
    session.disconnect()                         # the client has gone
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kupool.live.hub import Hub
from kupool.live.interfaces import IChannelStore, LiveSubscriber, MayUse
from kupool.live.publications import ClientDetails, NewPublication, PublishedRecord
from kupool.live.rules import ChannelRule, ChannelRules
from kupool.live.wishes import (
    ChannelFound,
    HistoryFound,
    HistoryWishes,
    PresenceCounts,
    SubscribeOutcome,
    SubscribeWishes,
)


@dataclass(frozen=True)
class LiveLimits:
    """The limits of live channels.

    Channels that one client may subscribe to; channels in all; publications that one call of
    :meth:`LiveService.history` returns; bytes of one publication's data and tags; publications that
    are recovered in a reply; and event ids that are remembered, for so many seconds.
    """

    channels_per_client: int = 128
    channels: int = 100_000
    history_per_call: int = 300
    publication_bytes: int = 65_536
    recovered_per_reply: int = 300
    remembered_events: int = 100_000
    remembered_seconds: float = 300.0


class LiveSession:
    """What one client does with the channels; what it may do is checked here."""

    def subscribe(self, channel: str, wishes: SubscribeWishes) -> Deferred[SubscribeOutcome]:
        """Subscribe to a channel; call ``start`` of the subscription when the reply is written.

        Fails with :class:`InvalidChannelName`, :class:`UnknownChannel`,
        :class:`ChannelForbidden`, :class:`AlreadySubscribed`, :class:`LiveLimitExceeded`,
        :class:`HistoryUnavailable`, and :class:`SubscriptionCancelled` if it was unsubscribed
        meanwhile.
        """
        raise NotImplementedError

    def unsubscribe(self, channel: str) -> bool:
        """Unsubscribe from a channel; returns whether the client was subscribed."""
        raise NotImplementedError

    def publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish as :meth:`LiveService.publish` does, if the client may.

        Fails with :class:`ChannelForbidden`, too.
        """
        raise NotImplementedError

    def history(self, channel: str, wishes: HistoryWishes) -> Deferred[HistoryFound]:
        """Read the history as :meth:`LiveService.history` does, if the client may."""
        raise NotImplementedError

    def presence(self, channel: str) -> Sequence[ClientDetails]:
        """Return who is subscribed, as :meth:`LiveService.presence` does, if the client may."""
        raise NotImplementedError

    def presence_stats(self, channel: str) -> PresenceCounts:
        """Count who is subscribed, if the client may."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """End all subscriptions: the client has gone. May be called again."""
        raise NotImplementedError


class LiveService:
    """All live channels of a process.

    ``wall`` returns seconds since the epoch. ``make_epoch`` returns a random text that no stream
    had before. ``may`` says what clients may do. ``durable`` makes the store of a durable channel
    from its rule; without it there is none.
    """

    def __init__(
        self,
        clock: IReactorTime,
        hub: Hub,
        rules: ChannelRules,
        *,
        wall: Callable[[], float],
        make_epoch: Callable[[], str],
        may: MayUse,
        durable: Callable[[ChannelRule], IChannelStore] | None = None,
        limits: LiveLimits = LiveLimits(),
    ) -> None:
        raise NotImplementedError

    def connect(self, subscriber: LiveSubscriber) -> LiveSession:
        """Return the session of a client; its ``disconnect`` must be called at the end."""
        raise NotImplementedError

    def publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish to a channel; fires when it is kept, and in the outbox or queue of everybody.

        With an ``event_id`` that was published lately it publishes nothing, and fires with the
        result of the first time. Fails with :class:`InvalidChannelName`, :class:`UnknownChannel`,
        :class:`InvalidPublication`, :class:`LiveLimitExceeded`, and :class:`HistoryUnavailable`;
        then nobody gets it.
        """
        raise NotImplementedError

    def history(self, channel: str, wishes: HistoryWishes) -> Deferred[HistoryFound]:
        """Read the history of a channel.

        Fails with :class:`InvalidChannelName`, :class:`UnknownChannel`, :class:`NotAvailable` for a
        channel without history, :class:`UnrecoverablePosition` for a ``since`` of another epoch,
        and :class:`HistoryUnavailable`.
        """
        raise NotImplementedError

    def history_remove(self, channel: str) -> Deferred[None]:
        """Forget the history of a channel; its position stays. Fails as :meth:`history` does."""
        raise NotImplementedError

    def presence(self, channel: str) -> Sequence[ClientDetails]:
        """Return who is subscribed to a channel.

        Raises :class:`InvalidChannelName`, :class:`UnknownChannel`, and :class:`NotAvailable` for
        a channel without presence.
        """
        raise NotImplementedError

    def presence_stats(self, channel: str) -> PresenceCounts:
        """Count who is subscribed; raises as :meth:`presence` does."""
        raise NotImplementedError

    def channels(self, pattern: str = "") -> list[ChannelFound]:
        """Return the channels that have subscribers, sorted, and that a shell pattern matches."""
        raise NotImplementedError

    def sessions_of(self, user: str) -> Iterator[LiveSession]:
        """Iterate over a snapshot of the sessions of a user."""
        raise NotImplementedError

    def check_again(self, user: str | None = None) -> int:
        """End the subscriptions that their clients may no longer have, such as after a change of
        permissions; of one user, or of all. Returns how many ended.
        """
        raise NotImplementedError


__all__ = ["LiveLimits", "LiveService", "LiveSession"]
