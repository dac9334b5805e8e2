"""Live channels by name, for those who speak to clients and for the server itself.

::

    sources = ChannelSources(clock, Hub(clock), time.time, make_epoch)
    live = LiveService(sources, ChannelRules(rules), may=may, limits=LiveLimits())
    session = live.connect(subscriber)           # a client has connected
    outcome = await session.subscribe("news", SubscribeWishes(recoverable=True))
    ...                                          # write the reply
    outcome.subscription.start()                 # publications follow
    await live.publish("news", NewPublication(data=b"1"))
    session.disconnect()                         # the client has gone
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec
from twisted.internet.defer import Deferred, fail

from kupool.live.alarms import LiveAlarm, LiveAlarms
from kupool.live.broadcasts import BroadcastFigures
from kupool.live.channel import LiveChannel
from kupool.live.duplicates import DuplicateCounts, RecentEvents
from kupool.live.failures import (
    ChannelForbidden,
    InvalidPublication,
    InvalidWish,
    LiveError,
    NotAvailable,
    UnrecoverablePosition,
)
from kupool.live.gate import GateLimits, PublishingGate, PublishingWay
from kupool.live.held import Publish
from kupool.live.interfaces import IChannelStore, LiveSubscriber, MayUse
from kupool.live.logged_events import LoggedEvents, LogWindow
from kupool.live.publications import (
    ClientDetails,
    HistoryPart,
    NewPublication,
    PublicationPriority,
    PublishedRecord,
    StreamPosition,
    one_line,
    published,
    replaced,
)
from kupool.live.rules import ChannelKind, ChannelRule, ChannelRules
from kupool.live.sequencing import SequencedPublishing
from kupool.live.session import LiveLimits, LiveSession, SessionMeans
from kupool.live.subscription import LiveSubscription
from kupool.live.sweep import SweptIndex
from kupool.live.table import ChannelSources, ChannelTable
from kupool.live.wishes import ChannelFound, HistoryFound, HistoryWishes, PresenceCounts
from kupool.timing.chunks import in_chunks
from kupool.timing.timers import Timers

#: Called with a channel and whether it has got its first subscription, or else lost its last one.
#: Must not raise.
WatchAttended = Callable[[str, bool], object]


class _FirstTime(NamedTuple):
    """What has become of a publication, as it is remembered for others with its event id."""

    offset: int
    time: float
    sequence: int
    replaced: bool


class LiveService:
    """All live channels of a process.

    ``may`` says what clients may do, ``behind`` how many clients have requests that wait.
    ``drops`` counts by reason what subscribers did not get, and ``publications`` what was
    published. ``broadcasts`` has figures of all channels together. Publications of clients go
    through the ``gate``; those of devices get their ``sequences``. ``alarms`` are for operators.
    """

    def __init__(
        self,
        sources: ChannelSources,
        rules: ChannelRules,
        *,
        may: MayUse,
        limits: LiveLimits,
        gate: GateLimits | None = None,
        behind: Callable[[], int] = lambda: 0,
    ) -> None:
        self.limits = limits
        self.drops: Counter[str] = Counter()
        self.publications = 0
        self._clock = clock = sources.clock
        self._wall = sources.wall
        self._table = ChannelTable(sources, rules, self, most=limits.channels)
        self._timers = Timers(clock)
        self._means = SessionMeans(self, self._table, self._timers, may=may, limits=limits)
        #: The sessions of each user, by the ids of their clients.
        self._sessions: dict[str, dict[str, LiveSession]] = {}
        #: Who is told when a channel gets its first subscription, or loses its last one.
        self._watchers: tuple[WatchAttended, ...] = ()
        self.alarms = LiveAlarms(clock)
        self.broadcasts = BroadcastFigures()
        self.sequences = SequencedPublishing(clock, self.alarms, most=limits.devices)
        self._recent: RecentEvents[_FirstTime] = RecentEvents(
            clock.seconds,
            most=limits.remembered_events,
            seconds=limits.remembered_seconds,
            troubled=lambda reason: self.alarms.note(LiveAlarm.UNCHECKED, {"reason": reason}),
        )
        self._logged = LoggedEvents(
            clock,
            sources.wall,
            LogWindow(limits.remembered_seconds, limits.remembered_events),
            take=self._remember,
            troubled=lambda reason: self.alarms.note(LiveAlarm.UNCHECKED, {"reason": reason}),
        )
        self.gate = PublishingGate(
            clock, gate or GateLimits(), PublishingWay(self._publish, self._may_merge, behind)
        )

    def stop(self) -> None:
        """Publish what is held, and end all sessions and timers."""
        self.gate.stop()
        for user in list(self._sessions):
            for session in self.sessions_of(user):
                session.disconnect()
        self._table.stop()
        self._timers.clear()
        self.alarms.stop()

    # -- clients

    def connect(self, subscriber: LiveSubscriber, *, permitted: bool = False) -> LiveSession:
        """Return the session of a client; its ``disconnect`` must be called at the end.

        A client that is ``permitted`` may do everything.
        """
        session = LiveSession(self._means, subscriber, permitted=permitted)
        self._sessions.setdefault(subscriber.user, {})[subscriber.client_id] = session
        return session

    def gone(self, session: LiveSession) -> None:
        """Forget a session; called by it."""
        subscriber = session.subscriber
        sessions = self._sessions.get(subscriber.user, {})
        if sessions.get(subscriber.client_id) is session:
            del sessions[subscriber.client_id]
            if not sessions:
                del self._sessions[subscriber.user]

    def sessions_of(self, user: str) -> Iterator[LiveSession]:
        """Iterate over a snapshot of the sessions of a user."""
        return iter(list(self._sessions.get(user, {}).values()))

    @property
    def clients(self) -> int:
        """The number of connected clients."""
        return sum(len(sessions) for sessions in self._sessions.values())

    @property
    def users(self) -> int:
        """The number of users that have clients; all anonymous ones are one user."""
        return len(self._sessions)

    def swept(self) -> Sequence[SweptIndex]:
        """Return where something could be left of clients."""
        return (
            SweptIndex("sessions", self._all_sessions, _session_gone, self._remove_session),
            SweptIndex("subscriptions", lambda: self._table, self._has_nobody, self._remove),
            SweptIndex("lost subscriptions", self._all_sessions, _losses, LiveSession.end_lost),
            SweptIndex("counts of presence", lambda: [self._table], _miscounted, _count_again),
        )

    def _all_sessions(self) -> Iterator[Iterator[LiveSession]]:
        for user in list(self._sessions):
            yield self.sessions_of(user)

    def _remove_session(self, session: LiveSession) -> None:
        session.disconnect()
        self.gone(session)

    def _has_nobody(self, subscription: LiveSubscription) -> Hashable | None:
        """Return a key for a subscription whose client does not know it."""
        details = subscription.details
        session = self._sessions.get(details.user, {}).get(details.client_id)
        if session is not None and session.subscription(subscription.channel) is subscription:
            return None
        return details.client_id, subscription.channel

    def _remove(self, subscription: LiveSubscription) -> None:
        channel = self._table.find(subscription.channel)
        if channel is not None:
            channel.remove(subscription)
            self._table.settle(channel)

    def durable_rules(self) -> list[ChannelRule]:
        """Return the rules of durable channels."""
        return [rule for rule in self._table.rules if rule.kind is ChannelKind.DURABLE]

    def now(self) -> float:
        """Return the seconds of a clock that is never set."""
        return self._clock.seconds()

    def figures_of_channels(self) -> Iterator[tuple[str, BroadcastFigures]]:
        """Yield the channels that have had subscribers, and figures of their broadcasts."""
        for channel in self._table:
            if channel.broadcasts is not None:
                yield channel.name, channel.broadcasts

    def queued(self) -> Deferred[dict[int, int]]:
        """Count what waits for slow clients, by priority; takes several turns if there are many."""
        counts = dict.fromkeys(map(int, PublicationPriority), 0)

        def count(channel: LiveChannel) -> None:
            for subscription in channel:
                for priority in counts:
                    counts[priority] += subscription.waiting_by_priority[priority]

        return in_chunks(self._clock, self._table, count).addCallback(lambda _: counts)

    def check_again(self, user: str | None = None) -> int:
        """End the subscriptions that their clients may no longer have, such as after a change of
        permissions; of one user, or of all. Returns how many ended.
        """
        users = list(self._sessions) if user is None else [user]
        return sum(session.check_again() for each in users for session in self.sessions_of(each))

    def end_insufficient(self, subscription: LiveSubscription) -> None:
        """End a subscription that cannot go on; its client has to subscribe again, recovering."""
        details = subscription.details
        session = self._sessions.get(details.user, {}).get(details.client_id)
        if session is not None and session.subscription(subscription.channel) is subscription:
            session.end(subscription.channel, "insufficient")

    # -- who listens

    def require_subscribable(self, user: str, role: str, channel: str) -> None:
        """Check whether a user may subscribe to a channel.

        Raises :class:`InvalidChannelName`, :class:`UnknownChannel` and :class:`ChannelForbidden`.
        """
        self._table.rule(channel)
        if not self._means.may(user, role, "subscribe", channel):
            raise ChannelForbidden("subscribe", channel)

    def keeps_history(self, channel: str) -> bool:
        """Return whether a channel has a history.

        Raises :class:`InvalidChannelName` and :class:`UnknownChannel`.
        """
        return self._table.rule(channel).keeps_history

    def newest_position(self, channel: str) -> StreamPosition | None:
        """Return from where a new subscriber gets the newest value of a channel.

        None if the channel is not about its newest value. Raises as
        :meth:`require_subscribable` does.
        """
        latest = self._table.rule(channel).kind is ChannelKind.LATEST
        return StreamPosition(0, "") if latest else None

    def watch_attended(self, told: WatchAttended) -> None:
        """Tell somebody when a channel gets its first subscription, and when it loses its last."""
        self._watchers += (told,)

    def attended(self, channel: str, *, first: bool) -> None:
        """Tell those who watch; called by channels."""
        for told in self._watchers:
            told(channel, first)

    def use_rules(self, rules: ChannelRules) -> int:
        """Go by other rules from now on; returns how many subscriptions that ended.

        A channel whose rule is another one begins anew. Its clients are told that they have to
        subscribe again, or that they may not any more if no rule covers it.
        """
        ended = 0
        for channel in self._table.use(rules):
            for subscription in channel:
                details = subscription.details
                session = self._sessions.get(details.user, {}).get(details.client_id)
                if session is not None:
                    known = rules.of(channel.name) is not None
                    ended += session.end(channel.name, "insufficient" if known else "forbidden")
            self._table.drop(channel)
        return ended

    def count_drops(self, reason: str, count: int) -> None:
        """Count publications that a subscriber did not get."""
        self.drops[reason] += count

    # -- publishing

    def publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish to a channel what a client or an application publishes.

        Fires when it is kept, and in the outbox or queue of everybody; or when it is ``replaced``,
        so that nobody gets it. With an ``event_id`` that was published lately it publishes
        nothing, and fires with what has become of the first one. Fails with
        :class:`InvalidChannelName`, :class:`UnknownChannel`, :class:`InvalidPublication`,
        :class:`LiveLimitExceeded`, and :class:`HistoryUnavailable`; then nobody gets it.
        """
        return self._publish_once(channel, new, self.gate.publish)

    def announce(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish what the daemon itself says, which is never held or limited.

        Fires and fails as :meth:`publish` does.
        """
        return self._publish_once(channel, new, self._publish)

    def _publish_once(
        self, channel: str, new: NewPublication, publish: Publish
    ) -> Deferred[PublishedRecord]:
        try:
            rule = self._table.rule(channel)
            new = self._checked(new)
            learning = self._learning(rule, new)
        except LiveError as error:
            return fail(error)
        if learning is not None:
            return learning.addCallback(lambda _: self._compared(channel, new, publish))
        return self._compared(channel, new, publish)

    def _learning(self, rule: ChannelRule, new: NewPublication) -> Deferred[None] | None:
        """Return what a publication waits for: its event may be in the log of its channel.

        Those without an id wait with the others, so that none overtakes another.
        """
        if rule.kind is not ChannelKind.DURABLE or self._logged.knows(rule):
            return None
        if not new.event_id and not self._logged.under_way(rule):
            return None
        if self._table.rules.shares_log(rule):
            return None  # the log does not tell to which channel an event was published
        channel = self._table.open(rule.pattern)
        learning = self._logged.learn(rule, self._store_of(channel))
        self._table.settle(channel)
        return learning

    def _remember(self, channel: str, record: PublishedRecord) -> None:
        """Remember an event of the log of a durable channel."""
        first = _FirstTime(record.offset, record.time, record.sequence, False)
        self._recent.learn((channel, record.event_id), first, self._wall() - record.time)

    def _compared(
        self, channel: str, new: NewPublication, publish: Publish
    ) -> Deferred[PublishedRecord]:
        """Publish unless the event was published lately."""
        if not new.event_id:
            return publish(channel, new)

        def first() -> Deferred[_FirstTime]:
            return publish(channel, new).addCallback(
                lambda each: _FirstTime(each.offset, each.time, each.sequence, each.replaced)
            )

        once = self._recent.once((channel, new.event_id), first)
        return once.addCallback(
            lambda first: replaced(new) if first.replaced else _again(new, first)
        )

    def _may_merge(self, channel: str) -> bool:
        """Return whether publications may be merged; everything that is for a log gets there."""
        return self._table.rule(channel).kind is not ChannelKind.DURABLE

    def _publish(self, name: str, new: NewPublication) -> Deferred[PublishedRecord]:
        try:
            channel = self._table.open(name)
        except LiveError as error:
            return fail(error)
        self.publications += 1
        done = self.sequences.publish(channel, new) if new.device else channel.publish(new)
        if not len(channel):
            done.addBoth(self._settled, channel)
        return done

    def _settled(self, result: object, channel: LiveChannel) -> object:
        self._table.settle(channel)
        return result

    def _checked(self, new: NewPublication) -> NewPublication:
        """Return a publication whose data is JSON on one line; raises InvalidPublication."""
        size = len(new.data) + sum(len(name) + len(text) for name, text in new.tags.items())
        if not new.data:
            raise InvalidPublication("the publication has no data")
        if size > self.limits.publication_bytes:
            raise InvalidPublication(
                f"the publication has {size} bytes, {self.limits.publication_bytes} are accepted"
            )
        try:
            line = one_line(new.data)
        except ValueError:
            raise InvalidPublication("the data of the publication is not JSON") from None
        return new if line is new.data else msgspec.structs.replace(new, data=line)

    @property
    def duplicates(self) -> DuplicateCounts:
        """The publications with event ids, and those that were published before."""
        return self._recent.counts

    @property
    def repeated(self) -> int:
        """How many publications were not published, as their events were published before."""
        return self._recent.repeated

    # -- history

    def history(self, channel: str, wishes: HistoryWishes) -> Deferred[HistoryFound]:
        """Read the history of a channel.

        Fails with :class:`InvalidChannelName`, :class:`UnknownChannel`, :class:`NotAvailable` for a
        channel without history, :class:`UnrecoverablePosition` for a ``since`` of another epoch,
        and :class:`HistoryUnavailable`.
        """
        return Deferred.fromCoroutine(self._history(channel, wishes))

    async def _history(self, name: str, wishes: HistoryWishes) -> HistoryFound:
        channel = self._with_history(name)
        try:
            return await self._read(name, self._store_of(channel), wishes)
        finally:
            self._table.settle(channel)

    async def _read(self, name: str, store: IChannelStore, wishes: HistoryWishes) -> HistoryFound:
        most, since = self.limits.history_per_call, wishes.since
        limit = most if wishes.limit < 0 else min(wishes.limit, most)
        end = await store.position()
        if since is not None and since.epoch not in ("", end.epoch):
            raise UnrecoverablePosition(name)
        part: HistoryPart
        if not limit:
            return HistoryFound([], end)
        if not wishes.reverse:
            part = await store.after(0 if since is None else since.offset, limit)
            return HistoryFound(list(part.publications), part.position)
        part = await store.newest(limit, None if since is None else since.offset)
        return HistoryFound(list(part.publications)[::-1], part.position)

    def position_at(self, channel: str, time: float) -> Deferred[StreamPosition]:
        """Return a position behind which are all publications of a time and later, and perhaps a
        few older ones; ``time`` is in seconds since the epoch. Fails as :meth:`history` does.
        """
        return Deferred.fromCoroutine(self._position_at(channel, time))

    async def _position_at(self, name: str, time: float) -> StreamPosition:
        channel = self._with_history(name)
        try:
            found: StreamPosition = await self._store_of(channel).before(time)
            return found
        finally:
            self._table.settle(channel)

    def history_remove(self, channel: str) -> Deferred[None]:
        """Forget the history of a channel; its position stays. Fails as :meth:`history` does."""
        return Deferred.fromCoroutine(self._history_remove(channel))

    async def _history_remove(self, name: str) -> None:
        channel = self._with_history(name)
        await self._store_of(channel).forget()
        self._table.settle(channel)

    def _with_history(self, name: str) -> LiveChannel:
        if not self._table.rule(name).keeps_history:
            raise NotAvailable("history", name)
        return self._table.open(name)

    def _store_of(self, channel: LiveChannel) -> IChannelStore:
        if channel.store is None:
            raise NotAvailable("history", channel.name)
        return channel.store

    # -- who is there

    def presence(self, channel: str) -> Sequence[ClientDetails]:
        """Return who is subscribed to a channel.

        Raises :class:`InvalidChannelName`, :class:`UnknownChannel`, and :class:`NotAvailable` for
        a channel without presence.
        """
        found = self._with_presence(channel)
        return [] if found is None else found.present()

    def presence_stats(self, channel: str) -> PresenceCounts:
        """Count who is subscribed; raises as :meth:`presence` does."""
        found = self._with_presence(channel)
        if found is None:
            return PresenceCounts(0, 0)
        return PresenceCounts(found.clients_present, found.users_present)

    def _with_presence(self, name: str) -> LiveChannel | None:
        if not self._table.rule(name).presence:
            raise NotAvailable("presence", name)
        return self._table.find(name)

    def channels(self, pattern: str = "") -> list[ChannelFound]:
        """Return the channels that have subscribers, sorted, and that a shell pattern matches.

        Raises :class:`InvalidWish` for a pattern that is too long.
        """
        if len(pattern) > 255:
            raise InvalidWish("the pattern has more than 255 characters")
        return sorted(
            ChannelFound(each.name, len(each))
            for each in self._table
            if len(each) and (not pattern or fnmatchcase(each.name, pattern))
        )


def _again(new: NewPublication, first: _FirstTime) -> PublishedRecord:
    numbered = msgspec.structs.replace(new, sequence=first.sequence)
    return published(numbered, first.offset, first.time)


def _session_gone(session: LiveSession) -> Hashable | None:
    gone = session.ended or not session.subscriber.peer.sends
    return session.subscriber.client_id if gone else None


def _losses(session: LiveSession) -> Hashable | None:
    lost = [each.channel for each in session.lost_subscriptions()]
    return (session.subscriber.client_id, *lost) if lost else None


def _miscounted(channel: LiveChannel) -> Hashable | None:
    return channel.name if channel.miscounted else None


def _count_again(channel: LiveChannel) -> None:
    channel.count_again()


__all__ = ["LiveLimits", "LiveService", "LiveSession", "WatchAttended"]
