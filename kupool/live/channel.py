"""A live channel: its subscriptions, its history, and who is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from kupool.live.broadcasts import BroadcastFigures
from kupool.live.fanned import FannedNotice, FannedRecord
from kupool.live.hub import Channel, Hub
from kupool.live.interfaces import IChannelStore
from kupool.live.publications import (
    ClientDetails,
    HistoryPart,
    NewPublication,
    PublishedRecord,
    StreamPosition,
    published,
)
from kupool.live.rules import ChannelRule
from kupool.live.subscription import LiveSubscription, Phase
from kupool.timing.waiting import Waiters, after


class ChannelOwner(Protocol):
    """What a channel tells its owner, and asks it."""

    @property
    def broadcasts(self) -> BroadcastFigures:
        """Figures of the broadcasts of all channels."""

    def now(self) -> float:
        """Return the seconds of a clock that is never set."""

    def count_drops(self, reason: str, count: int) -> None:
        """Count publications that subscribers did not get."""

    def end_insufficient(self, subscription: LiveSubscription) -> None:
        """End a subscription that cannot go on."""

    def attended(self, channel: str, *, first: bool) -> None:
        """A channel has got its first subscription, or lost its last one."""


class LiveChannel:
    """One channel; without a ``store`` it keeps no history.

    ``wall`` returns seconds since the epoch. ``last`` is the position behind all that was fanned
    out: an offset, or a running number in a channel without history. ``broadcasts`` has figures of
    what was fanned out.
    """

    __slots__ = (
        "_fan",
        "_followed",
        "_hub",
        "_opening",
        "_overloaded",
        "_owner",
        "_position",
        "_sending",
        "_users",
        "_wall",
        "broadcasts",
        "last",
        "name",
        "rule",
        "store",
    )

    def __init__(
        self,
        name: str,
        rule: ChannelRule,
        hub: Hub,
        owner: ChannelOwner,
        *,
        wall: Callable[[], float],
        store: IChannelStore | None = None,
    ) -> None:
        self.name = name
        self.rule = rule
        self.store = store
        self.last = 0
        #: There are none before the first subscription.
        self.broadcasts: BroadcastFigures | None = None
        self._hub = hub
        self._owner = owner
        self._wall = wall
        #: The fan-out; most channels have no subscriber most of the time.
        self._fan: Channel | None = None
        #: How many started subscriptions each user has, if the channel has presence.
        self._users: dict[str, int] | None = None
        #: Fires when the newest publication is in every outbox; None if it is.
        self._sending: Deferred[None] | None = None
        #: Whether a publication was dropped since then.
        self._overloaded = False
        self._followed = store is None
        self._position = StreamPosition(0, "")
        #: Those who wait until the store is followed.
        self._opening: Waiters[StreamPosition] | None = None

    def __len__(self) -> int:
        """Return the number of subscriptions, those that have not started included."""
        return 0 if self._fan is None else len(self._fan)

    def __iter__(self) -> Iterator[LiveSubscription]:
        """Iterate over a snapshot of the subscriptions."""
        for each in self._fan or ():
            if isinstance(each, LiveSubscription):
                yield each

    def __contains__(self, subscription: object) -> bool:
        """Return whether a subscription is one of its."""
        return self._fan is not None and subscription in self._fan

    @property
    def keeps_history(self) -> bool:
        """Whether publications have offsets, and can be read later."""
        return self.store is not None

    # -- subscriptions

    def add(self, subscription: LiveSubscription) -> Deferred[StreamPosition]:
        """Add a subscription that has not started.

        Fires with the position behind everything that was fanned out, when the channel gets what is
        published. Fails with :class:`HistoryUnavailable`; then it has to be removed.
        """
        if self._fan is None:
            self._fan = self._hub.channel()
            self.broadcasts = self.broadcasts or BroadcastFigures()
        self._fan.subscribe(subscription)
        if len(self._fan) == 1:
            self._owner.attended(self.name, first=True)
        if self._followed:
            return succeed(StreamPosition(self.last, self._position.epoch))
        if self._opening is None:
            self._opening = Waiters()
            waiter = self._opening.wait()
            self._follow()
            return waiter
        return self._opening.wait()

    def remove(self, subscription: LiveSubscription) -> None:
        """Remove a subscription, and tell the others if they know of it."""
        if self._fan is None or subscription not in self._fan:
            return
        started = subscription.phase is not Phase.NEW
        subscription.end()
        self._fan.unsubscribe(subscription)
        if started and subscription.in_presence:
            self._count_user(subscription.details.user, -1)
        if not len(self._fan):
            self._fan = None
            self._unfollow()
            self._owner.attended(self.name, first=False)
        elif started and subscription.emits_notices:
            self._fan.publish(FannedNotice(self.name, subscription.details, leaves=True))

    def started(self, subscription: LiveSubscription) -> None:
        """Tell others of a subscription that has started; called by it."""
        if subscription.in_presence:
            self._count_user(subscription.details.user, 1)
        if subscription.emits_notices and self._fan is not None:
            self._fan.publish(FannedNotice(self.name, subscription.details, leaves=False))

    def _follow(self) -> None:
        """Get what is published from now on."""
        if self.store is not None:
            following: Deferred[StreamPosition] = self.store.follow(self._fan_out, self._skip)
            following.addBoth(self._opened)

    def _opened(self, result: StreamPosition | Failure) -> None:
        opening, self._opening = self._opening, None
        if isinstance(result, StreamPosition):
            self._position = result
            self.last = max(self.last, result.offset)
            self._followed = True
            if self._fan is None:
                self._unfollow()
        if opening is not None:
            opening.tell(result)

    def _unfollow(self) -> None:
        if self.store is not None and self._followed:
            self.store.unfollow()
            self._followed = False

    # -- publications

    def publish(self, new: NewPublication) -> Deferred[PublishedRecord]:
        """Keep a publication, and hand it to all; fires when it is in every outbox or queue.

        Fails with :class:`HistoryUnavailable`; then nobody gets it.
        """
        if self.store is None:
            record = published(new, 0, self._wall())
            self._fan_out(record)
            return self._when_sent(record)
        kept: Deferred[PublishedRecord] = self.store.append(new)
        return kept.addCallback(self._when_sent)

    def _when_sent(self, record: PublishedRecord) -> Deferred[PublishedRecord]:
        # Fan-outs end in their order: the newest is the last one.
        if self._sending is None:
            return succeed(record)
        return after(self._sending).addCallback(lambda _: record)

    def _fan_out(self, record: PublishedRecord) -> Deferred[None] | None:
        """Hand a publication to all subscriptions; returns a Deferred if that takes long."""
        previous = self.last
        self.last = record.offset or previous + 1
        fan = self._fan  # the last subscriber may leave while it gets this
        if fan is None:
            return None
        dropped, started = fan.dropped, self._owner.now()
        fanned = FannedRecord(self.name, record, previous, self.last)
        sent = fan.publish(fanned)
        if sent.called:
            if fan.dropped > dropped:
                self._overload()
            else:
                self._count_broadcast(fanned, started)
            return None
        self._sending = sent
        sent.addCallback(self._sent, sent, fanned, started)
        return after(sent)

    def _count_broadcast(self, fanned: FannedRecord, started: float) -> None:
        seconds = self._owner.now() - started
        for figures in self._figures:
            figures.add(fanned.reached, fanned.failed, seconds)

    @property
    def _figures(self) -> Iterator[BroadcastFigures]:
        if self.broadcasts is not None:
            yield self.broadcasts
        yield self._owner.broadcasts

    def _overload(self) -> None:
        """Too much is being fanned out: subscribers learn, behind all that, what they missed."""
        for figures in self._figures:
            figures.overflowed += 1
        if self._sending is not None and not self._overloaded:
            self._overloaded = True
            self._sending.addCallback(self._tell_overload)

    def _tell_overload(self, _: None) -> None:
        if self._sending is not None:  # an emergency was let through meanwhile
            self._sending.addCallback(self._tell_overload)
        else:
            self._skip(self.last)

    def _skip(self, offset: int) -> None:
        """Go on behind publications that are lost; subscribers learn how many there were."""
        self.last = max(self.last, offset)
        self._overloaded = False
        for subscription in self:
            subscription.catch_up()

    def _sent(self, _: None, sent: Deferred[None], fanned: FannedRecord, started: float) -> None:
        self._count_broadcast(fanned, started)
        if self._sending is sent:
            self._sending = None

    # -- history

    def after(self, offset: int, limit: int) -> Deferred[HistoryPart]:
        """Read the history after an offset; for its subscriptions."""
        if self.store is None:
            return succeed(HistoryPart((), self._position))
        part: Deferred[HistoryPart] = self.store.after(offset, limit)
        return part

    def count_drops(self, reason: str, count: int) -> None:
        """Count publications that a subscription dropped."""
        for figures in self._figures:
            figures.dropped += count
        self._owner.count_drops(reason, count)

    def end_insufficient(self, subscription: LiveSubscription) -> None:
        """End a subscription that cannot go on."""
        self._owner.end_insufficient(subscription)

    # -- who is there

    def present(self) -> list[ClientDetails]:
        """Return the clients that are there."""
        return [each.details for each in self if each.in_presence and each.phase is not Phase.NEW]

    @property
    def clients_present(self) -> int:
        """The number of clients that are there."""
        return sum((self._users or {}).values())

    @property
    def users_present(self) -> int:
        """The number of users that are there; all anonymous clients are one."""
        return len(self._users or ())

    @property
    def miscounted(self) -> bool:
        """Whether the counts of who is there are wrong, which they should never be."""
        return (self._users or {}) != self._recount()

    def count_again(self) -> None:
        """Count anew who is there."""
        self._users = dict(self._recount()) or None

    def _recount(self) -> Counter[str]:
        return Counter(each.user for each in self.present())

    def _count_user(self, user: str, change: int) -> None:
        if self._users is None:
            self._users = {}
        count = self._users.get(user, 0) + change
        if count > 0:
            self._users[user] = count
        else:
            self._users.pop(user, None)
            self._users = self._users or None


__all__ = ["ChannelOwner", "LiveChannel"]
