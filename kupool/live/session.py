"""What one client does with live channels; what it may do is checked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from twisted.internet.defer import Deferred, fail

from kupool.live.backlog import ClientBacklog
from kupool.live.channel import LiveChannel
from kupool.live.failures import (
    AlreadySubscribed,
    ChannelForbidden,
    ClientsMayNotPublish,
    InvalidWish,
    LiveError,
    LiveLimitExceeded,
    SubscriptionCancelled,
)
from kupool.live.interfaces import LiveSubscriber, MayUse
from kupool.live.publications import ClientDetails, NewPublication, PublishedRecord, StreamPosition
from kupool.live.recovery import Recovery, recover, recover_newest
from kupool.live.rules import QUEUE_PROFILES, ChannelKind, ChannelRule, QueuePolicy
from kupool.live.subscription import DeliveryWishes, LiveSubscription, Phase
from kupool.live.table import ChannelTable
from kupool.live.wishes import (
    HistoryFound,
    HistoryWishes,
    PresenceCounts,
    SubscribeOutcome,
    SubscribeWishes,
)
from kupool.timing.timers import Timers


@dataclass(frozen=True)
class LiveLimits:
    """The limits of live channels.

    Channels that one client may subscribe to; channels in all; publications that one call of
    ``history`` returns; bytes of one publication's data and tags; publications that are recovered
    in a reply; messages and bytes that a client may ask for as the queue of a subscription; and
    event ids that are remembered, for so many seconds; and devices whose sequences are remembered.
    """

    channels_per_client: int = 128
    channels: int = 100_000
    history_per_call: int = 300
    publication_bytes: int = 65_536
    recovered_per_reply: int = 300
    queue_messages: int = 1000
    queue_bytes: int = 1024 * 1024
    remembered_events: int = 100_000
    remembered_seconds: float = 300.0
    devices: int = 10_000


class ChannelOperations(Protocol):
    """What a session does through the service, which checks all but permissions."""

    def publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish to a channel."""

    def history(self, channel: str, wishes: HistoryWishes) -> Deferred[HistoryFound]:
        """Read the history of a channel."""

    def position_at(self, channel: str, time: float) -> Deferred[StreamPosition]:
        """Find a position behind which are all publications of a time and later."""

    def presence(self, channel: str) -> Sequence[ClientDetails]:
        """Return who is subscribed."""

    def presence_stats(self, channel: str) -> PresenceCounts:
        """Count who is subscribed."""

    def gone(self, session: LiveSession) -> None:
        """A session has ended."""


class SessionMeans:
    """What all sessions of a service share."""

    __slots__ = ("limits", "may", "operations", "table", "timers")

    def __init__(
        self,
        operations: ChannelOperations,
        table: ChannelTable,
        timers: Timers,
        *,
        may: MayUse,
        limits: LiveLimits,
    ) -> None:
        self.operations = operations
        self.table = table
        self.timers = timers
        self.may = may
        self.limits = limits


class LiveSession:
    """What one client does with the channels; what it may do is checked here.

    A client that is ``permitted`` may do everything.
    """

    __slots__ = ("_backlog", "_ended", "_means", "_permitted", "_subscriptions", "subscriber")

    def __init__(
        self, means: SessionMeans, subscriber: LiveSubscriber, *, permitted: bool = False
    ) -> None:
        self.subscriber = subscriber
        self._permitted = permitted
        self._means = means
        self._backlog = ClientBacklog(subscriber.peer, means.timers)
        self._subscriptions: dict[str, LiveSubscription] = {}
        self._ended = False

    @property
    def subscriptions(self) -> list[LiveSubscription]:
        """The subscriptions of the client, those that have not started included."""
        return list(self._subscriptions.values())

    @property
    def ended(self) -> bool:
        """Whether the client has gone."""
        return self._ended

    def subscription(self, channel: str) -> LiveSubscription | None:
        """Return the subscription to a channel, if there is one."""
        return self._subscriptions.get(channel)

    # -- subscriptions

    def subscribe(self, channel: str, wishes: SubscribeWishes) -> Deferred[SubscribeOutcome]:
        """Subscribe to a channel; call ``start`` of the subscription when the reply is written.

        Fails with :class:`InvalidChannelName`, :class:`UnknownChannel`,
        :class:`ChannelForbidden`, :class:`AlreadySubscribed`, :class:`LiveLimitExceeded`,
        :class:`InvalidWish`, :class:`HistoryUnavailable`, and :class:`SubscriptionCancelled` if
        it was unsubscribed meanwhile.
        """
        try:
            opened = self._open(channel, wishes)
        except LiveError as error:
            return fail(error)
        subscription = self._make(opened, wishes)
        self._subscriptions[channel] = subscription
        return Deferred.fromCoroutine(self._begin(opened, subscription, wishes))

    def _open(self, name: str, wishes: SubscribeWishes) -> LiveChannel:
        """Check everything, and return the channel."""
        means = self._means
        rule = means.table.rule(name)
        if self._ended:
            raise SubscriptionCancelled(name)
        if not wishes.permitted:
            self._must("subscribe", name)
        self._check(rule, wishes)
        if name in self._subscriptions:
            raise AlreadySubscribed(name)
        most = means.limits.channels_per_client
        if len(self._subscriptions) >= most:
            raise LiveLimitExceeded(f"you are subscribed to {most} channels already")
        found = means.table.find(name)
        if rule.most_subscribers and found is not None and len(found) >= rule.most_subscribers:
            raise LiveLimitExceeded(
                f"channel {name} has {rule.most_subscribers} subscribers already"
            )
        return means.table.open(name)

    def _check(self, rule: ChannelRule, wishes: SubscribeWishes) -> None:
        """Raise :class:`InvalidWish` for what cannot be served."""
        limits, queue = self._means.limits, wishes.queue
        if wishes.policy is QueuePolicy.REPLAY and not rule.keeps_history:
            raise InvalidWish("the channel has no history that could be replayed")
        if not 0 <= wishes.max_rate < inf:
            raise InvalidWish("max_rate: expected a number of 0 or more")
        if queue is not None and not (
            0 < queue.messages <= limits.queue_messages
            and 0 < queue.size <= limits.queue_bytes
            and 0 < queue.deadline < inf
        ):
            raise InvalidWish(
                f"the queue: expected up to {limits.queue_messages} messages of together up to "
                f"{limits.queue_bytes} bytes"
            )

    def _make(self, channel: LiveChannel, wishes: SubscribeWishes) -> LiveSubscription:
        rule, subscriber = channel.rule, self.subscriber
        subscription = LiveSubscription(
            channel,
            subscriber,
            self._backlog,
            DeliveryWishes(
                wishes.policy or rule.default_policy,
                wishes.queue or QUEUE_PROFILES[rule.queue],
                max_rate=wishes.max_rate,
                wanted=wishes.wanted,
            ),
            details=ClientDetails(
                subscriber.client_id,
                subscriber.user,
                subscriber.connection_info,
                wishes.channel_info,
            ),
            now=self._means.timers.now(),
        )
        notices = rule.join_leave or rule.forced_join_leave
        asked = rule.forced_join_leave or (rule.join_leave and wishes.join_leave)
        subscription.permitted = wishes.permitted
        subscription.in_presence = _decided(wishes.emit_presence, rule.presence)
        subscription.emits_notices = _decided(wishes.emit_join_leave, notices)
        subscription.wants_notices = _decided(wishes.push_join_leave, asked)
        return subscription

    async def _begin(
        self, channel: LiveChannel, subscription: LiveSubscription, wishes: SubscribeWishes
    ) -> SubscribeOutcome:
        recoverable, positioned = _granted(channel.rule, wishes)
        try:
            position = await channel.add(subscription)
            found = Recovery(position, [], position.offset, recovered=False)
            if wishes.recover is not None and recoverable:
                found = await self._recover(channel, wishes.recover, wishes)
        except Exception:
            self._drop(channel, subscription)
            raise
        if subscription.phase is not Phase.NEW:
            raise SubscriptionCancelled(channel.name)
        subscription.at = found.at
        wanted = wishes.wanted
        return SubscribeOutcome(
            subscription,
            positioned=positioned,
            recoverable=recoverable,
            position=found.position,
            publications=[
                each for each in found.publications if wanted is None or wanted.wants(each)
            ],
            was_recovering=wishes.recover is not None,
            recovered=found.recovered,
            missed=found.missed,
        )

    async def _recover(
        self, channel: LiveChannel, since: StreamPosition, wishes: SubscribeWishes
    ) -> Recovery:
        store = channel.store
        if store is None:
            return Recovery(since, [], 0, recovered=False)
        if channel.rule.kind is ChannelKind.LATEST:
            return await recover_newest(store, since)
        limit = self._means.limits.recovered_per_reply
        if wishes.in_reply is not None:
            limit = max(1, min(limit, wishes.in_reply))
        return await recover(store, since, limit=limit, partial=wishes.partial)

    def unsubscribe(self, channel: str) -> bool:
        """Unsubscribe from a channel; returns whether the client was subscribed."""
        subscription = self._subscriptions.get(channel)
        found = self._means.table.find(channel)
        if subscription is None or found is None:
            return False
        self._drop(found, subscription)
        return True

    def end(self, channel: str, reason: str) -> bool:
        """End a subscription, and tell the client why; returns whether there was one."""
        ended = self.unsubscribe(channel)
        if ended:
            self.subscriber.unsubscribed(channel, reason)
        return ended

    def check_again(self) -> int:
        """End the subscriptions that the client may no longer have; returns how many."""
        return sum(
            self.end(each.channel, "forbidden")
            for each in self.subscriptions
            if not each.permitted and not self._may("subscribe", each.channel)
        )

    def lost_subscriptions(self) -> list[LiveSubscription]:
        """Return the subscriptions that no channel has: there should be none."""
        table = self._means.table
        return [
            each
            for each in self._subscriptions.values()
            if (found := table.find(each.channel)) is None or each not in found
        ]

    def end_lost(self) -> None:
        """End the subscriptions that no channel has: the client has to subscribe again."""
        for each in self.lost_subscriptions():
            del self._subscriptions[each.channel]
            each.end()
            self.subscriber.unsubscribed(each.channel, "insufficient")

    def disconnect(self) -> None:
        """End all subscriptions: the client has gone. May be called again."""
        if self._ended:
            return
        self._ended = True
        for channel in list(self._subscriptions):
            self.unsubscribe(channel)
        self._means.operations.gone(self)

    def _drop(self, channel: LiveChannel, subscription: LiveSubscription) -> None:
        if self._subscriptions.get(channel.name) is subscription:
            del self._subscriptions[channel.name]
            channel.remove(subscription)
            self._means.table.settle(channel)

    # -- the rest

    def publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish as :meth:`LiveService.publish` does, if the client may.

        Fails with :class:`ChannelForbidden` and :class:`ClientsMayNotPublish`, too.
        """
        try:
            rule = self._means.table.rule(channel)
            if not rule.publish_by_clients:
                raise ClientsMayNotPublish(channel)
            self._must("publish", channel)
        except LiveError as error:
            return fail(error)
        return self._means.operations.publish(channel, new)

    def history(self, channel: str, wishes: HistoryWishes) -> Deferred[HistoryFound]:
        """Read the history as :meth:`LiveService.history` does, if the client may."""
        try:
            self._means.table.rule(channel)
            self._must("history", channel)
        except LiveError as error:
            return fail(error)
        return self._means.operations.history(channel, wishes)

    def position_at(self, channel: str, time: float) -> Deferred[StreamPosition]:
        """Find a position as :meth:`LiveService.position_at` does, if the client may subscribe."""
        try:
            self._means.table.rule(channel)
            self._must("subscribe", channel)
        except LiveError as error:
            return fail(error)
        return self._means.operations.position_at(channel, time)

    def presence(self, channel: str) -> Sequence[ClientDetails]:
        """Return who is subscribed, as :meth:`LiveService.presence` does, if the client may."""
        self._means.table.rule(channel)
        self._must("presence", channel)
        return self._means.operations.presence(channel)

    def presence_stats(self, channel: str) -> PresenceCounts:
        """Count who is subscribed, if the client may."""
        self._means.table.rule(channel)
        self._must("presence", channel)
        return self._means.operations.presence_stats(channel)

    def _may(self, action: str, channel: str) -> bool:
        user, role = self.subscriber.user, self.subscriber.role
        return self._permitted or self._means.may(user, role, action, channel)

    def _must(self, action: str, channel: str) -> None:
        if not self._may(action, channel):
            raise ChannelForbidden(action, channel)


def _decided(wish: bool | None, rule: bool) -> bool:
    return rule if wish is None else wish


def _granted(rule: ChannelRule, wishes: SubscribeWishes) -> tuple[bool, bool]:
    """Return whether a subscription is recoverable, and whether it has positions."""
    if not rule.keeps_history:
        return False, False
    asked = wishes.recoverable or wishes.recover is not None
    forced = _decided(wishes.force_recovery, rule.forced_recovery)
    recoverable = forced or (rule.recovery and asked)
    wanted = rule.recovery and wishes.positioned
    positioned = _decided(wishes.force_positions, rule.forced_positions) or wanted
    return recoverable, recoverable or positioned


__all__ = ["ChannelOperations", "LiveLimits", "LiveSession", "SessionMeans"]
