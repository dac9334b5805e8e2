"""A client's subscription to a live channel: what it gets next, and when.

::

    NEW ──start──> LIVE <──caught up── BEHIND ──its turn──> READING
                    └── a hole, or no room and policy replay ──> BEHIND

A *live* subscription gets publications from the fan-out of its channel. One that is *behind* reads
the history when its client reads. What is fanned out while it is *reading* is kept, so that it goes
on without a gap and without a duplicate. A position is an offset, or a running number in a channel
without history.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.live.backlog import ClientBacklog
from kupool.live.fanned import EncodedOnce, FannedRecord
from kupool.live.filters import PublicationFilter
from kupool.live.interfaces import LiveSubscriber
from kupool.live.publications import (
    ClientDetails,
    HistoryPart,
    PublicationGap,
    PublishedRecord,
)
from kupool.live.queues import QueueResult, SubscriptionQueue, WaitingPublication
from kupool.live.rules import QueueLimits, QueuePolicy
from kupool.session.outbox import EventPolicy
from kupool.timing.buckets import Bucket
from kupool.wire.framing import Framing

#: Most publications that one read of the history returns.
PAGE = 100

#: Most publications of the fan-out that are kept while the history is read.
MOST_MEANWHILE = 256


class ReadableChannel(Protocol):
    """What a subscription needs of its channel."""

    name: str
    #: The position behind everything that was fanned out.
    last: int

    @property
    def keeps_history(self) -> bool:
        """Whether it can read again what it missed."""

    def after(self, offset: int, limit: int) -> Deferred[HistoryPart]:
        """Read the history after an offset."""

    def started(self, subscription: LiveSubscription) -> None:
        """A subscription has started."""

    def count_drops(self, reason: str, count: int) -> None:
        """Count dropped publications."""

    def end_insufficient(self, subscription: LiveSubscription) -> None:
        """End a subscription that cannot go on: its client has to subscribe again."""


class Phase(Enum):
    """Where a subscription is in its life."""

    NEW = "new"
    LIVE = "live"
    BEHIND = "behind"
    READING = "reading"
    ENDED = "ended"


class DeliveryWishes:
    """How a subscription is served: the policy and limits of its queue, its filter and rate.

    ``max_rate`` is in publications a second; 0 is no limit. It is not applied to what is read from
    the history.
    """

    __slots__ = ("limits", "max_rate", "policy", "wanted")

    def __init__(
        self,
        policy: QueuePolicy,
        limits: QueueLimits,
        *,
        max_rate: float = 0.0,
        wanted: PublicationFilter | None = None,
    ) -> None:
        self.policy = policy
        self.limits = limits
        self.max_rate = max_rate
        self.wanted = None if wanted is None or wanted.wants_everything else wanted


class LiveSubscription:
    """One client's subscription to one channel.

    ``permitted`` says that a token has permitted it; ``in_presence`` and ``emits_notices`` that
    others see the client and learn when it comes and goes; ``wants_notices`` that it learns that of
    others. ``dropped`` counts by reason what its client did not get.
    """

    __slots__ = (
        "_backlog",
        "_bucket",
        "_channel",
        "_delivery",
        "_meanwhile",
        "_phase",
        "_plain",
        "_queue",
        "at",
        "details",
        "dropped",
        "emits_notices",
        "encoding",
        "in_presence",
        "peer",
        "permitted",
        "subscriber",
        "wants_notices",
    )

    def __init__(
        self,
        channel: ReadableChannel,
        subscriber: LiveSubscriber,
        backlog: ClientBacklog,
        delivery: DeliveryWishes,
        *,
        details: ClientDetails,
        now: float,
    ) -> None:
        self.subscriber = subscriber
        self.peer = subscriber.peer
        self.encoding = subscriber.encoding
        self.details = details
        self.permitted = False
        self.in_presence = self.emits_notices = self.wants_notices = False
        #: The position behind everything that the client got, that waits for it, or was dropped.
        self.at = 0
        self.dropped: dict[str, int] | None = None
        self._channel = channel
        self._backlog = backlog
        self._delivery = delivery
        rate = delivery.max_rate
        self._bucket = Bucket(rate, max(1.0, rate), now) if rate > 0 else None
        self._phase = Phase.NEW
        #: Whether the next publication can be written without looking at anything else.
        self._plain = False
        self._queue: SubscriptionQueue | None = None
        #: What was fanned out while the history is read; None if that was too much.
        self._meanwhile: list[tuple[FannedRecord, bytes]] | None = None

    @property
    def phase(self) -> Phase:
        """Where it is in its life."""
        return self._phase

    @property
    def channel(self) -> str:
        """The name of its channel."""
        return self._channel.name

    @property
    def hears_notices(self) -> bool:
        """Whether its client learns now when others come and go."""
        return self.wants_notices and self._phase is not Phase.NEW

    @property
    def waiting(self) -> int:
        """The number of publications that wait for the client."""
        return 0 if self._queue is None else len(self._queue)

    @property
    def waiting_by_priority(self) -> tuple[int, ...]:
        """How many of these there are of each priority; there is none of priority 0."""
        return (0, 0, 0, 0) if self._queue is None else self._queue.by_priority

    # -- as a recipient, which hands everything to its peer

    @property
    def framing(self) -> Framing:
        """The framing of its peer."""
        return self.peer.framing

    @property
    def sends(self) -> bool:
        """Whether data sent now goes to the peer."""
        return self.peer.sends

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send encoded messages, which are never dropped."""
        self.peer.send_encoded(data, messages)

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send an encoded message that replaces an unsent one of the same key."""
        self.peer.send_latest(key, encoded)

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        """Send an encoded message that may be dropped; returns whether it was kept."""
        return self.peer.send_event(encoded, policy, limit)

    # -- its life

    def start(self) -> None:
        """Hand publications over from now on: first what was published since the reply.

        In a channel without history it begins here. Does nothing if it has ended, or started.
        """
        if self._phase is not Phase.NEW:
            return
        channel = self._channel
        if not channel.keeps_history:
            self.at = channel.last
        if channel.last > self.at:
            self._fall_behind()
        else:
            self._go_live()
        channel.started(self)
        self._pump()

    def end(self) -> None:
        """Hand over no more. Does nothing if it has ended."""
        self._phase = Phase.ENDED
        self._plain = False
        self._queue = self._meanwhile = None
        self._backlog.leave(self)

    def catch_up(self) -> None:
        """Notice that the channel has gone on without this subscription.

        It reads the history, or tells its client what it missed.
        """
        last = self._channel.last
        if self._phase is not Phase.LIVE or last <= self.at:
            return
        if self._channel.keeps_history:
            self._fall_behind()
        else:
            self._miss(last)
        self._pump()

    # -- from the fan-out

    def give(self, fanned: FannedRecord, data: bytes) -> None:
        """Take a publication from the fan-out of the channel."""
        if self._plain and fanned.previous == self.at and not self.peer.congested:
            self.at = fanned.at
            self.peer.send_encoded(data)
        elif self._phase is Phase.LIVE:
            self._give_carefully(fanned, data)
        elif self._phase is Phase.READING and self._meanwhile is not None:
            if len(self._meanwhile) < MOST_MEANWHILE:
                self._meanwhile.append((fanned, data))
            else:
                self._meanwhile = None

    def _give_carefully(self, fanned: FannedRecord, data: bytes) -> None:
        if fanned.at <= self.at:
            return
        if fanned.previous > self.at:
            if self._channel.keeps_history:
                self._fall_behind()
                self._pump()
                return
            self._miss(fanned.previous)
            if self._phase is not Phase.LIVE:
                return  # the client has left when it was told
        before, self.at = self.at, fanned.at
        record = fanned.record
        wanted = self._delivery.wanted
        if wanted is not None and not wanted.wants(record):
            return
        now = self._backlog.now()
        if (
            self._queue is None
            and not self.peer.congested
            and (self._bucket is None or self._bucket.spend(now))
        ):
            self.peer.send_encoded(data)
        else:
            self._enqueue(WaitingPublication(data, before, fanned.at, record), now)

    def _enqueue(self, entry: WaitingPublication, now: float) -> None:
        if self._queue is None:
            self._queue = SubscriptionQueue(self._delivery.policy, self._delivery.limits)
            self._plain = False
        result = self._queue.add(entry, now)
        self._count_drops()
        if result is QueueResult.REPLAY:
            self.at = self._queue.start
            self._queue = None
            self._fall_behind()
        elif result is QueueResult.DISCONNECT:
            self._count("full", len(self._queue) + 1)
            self.end()
            self.subscriber.too_slow(self.channel)
            return
        self._pump()

    # -- to the client

    @property
    def urgency(self) -> int:
        """The highest priority of what waits, or 0 if nothing does."""
        if self._phase is Phase.BEHIND:
            return 1
        return 0 if self._queue is None else self._queue.priority

    def resting_until(self, now: float) -> float:
        """Return when the maximum rate lets it send again."""
        if self._bucket is None or self._phase is not Phase.LIVE:
            return now
        return now + self._bucket.wait(now)

    def send_next(self) -> None:
        """Send the next publication, or read the history if it is behind."""
        if self._phase is Phase.BEHIND:
            self._read()
        elif self._queue is not None:
            queue = self._queue
            gap, entry = queue.take(self._backlog.now())
            self._count_drops()
            if queue.empty:
                self._queue = None
                self._plain = self._is_plain()
            if gap is not None:
                self._tell(gap)
            left = self._phase is Phase.ENDED  # when it was told
            if entry is not None and entry.encoded is not None and not left:
                if self._bucket is not None:
                    self._bucket.spend(self._backlog.now())
                self.peer.send_encoded(entry.encoded)

    def _pump(self) -> None:
        if self.urgency:
            self._backlog.enter(self)
            self._backlog.pump()

    def _miss(self, last: int) -> None:
        """Count what the fan-out has dropped, and tell it behind what waits."""
        gap = PublicationGap(last - self.at, self.at + 1, last, "overload")
        self.at = last
        if self._queue is not None:
            self._queue.add_gap(gap)
            self._count_drops()
        else:
            self._count(gap.reason, gap.missed)
            self._tell(gap)

    def _tell(self, gap: PublicationGap) -> None:
        if not self._channel.keeps_history:
            gap = gap._replace(first=0, last=0)
        self.subscriber.gap(self.channel, gap)

    def _count_drops(self) -> None:
        queue = self._queue
        if queue is not None and queue.drops:
            for reason, count in queue.drops.items():
                self._count(reason, count)
            queue.drops.clear()

    def _count(self, reason: str, count: int) -> None:
        if self.dropped is None:
            self.dropped = {}
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self._channel.count_drops(reason, count)

    # -- from the history

    def _go_live(self) -> None:
        self._phase = Phase.LIVE
        self._meanwhile = None
        self._plain = self._is_plain()

    def _is_plain(self) -> bool:
        return self._bucket is None and self._delivery.wanted is None

    def _fall_behind(self) -> None:
        """Read the history when it is its turn; what waits comes from there as well."""
        if self._queue is not None:
            self.at = self._queue.start
            self._queue = None
        self._phase = Phase.BEHIND
        self._plain = False

    def _read(self) -> None:
        self._phase = Phase.READING
        self._meanwhile = []
        self._channel.after(self.at, PAGE).addCallbacks(self._page, self._unreadable).addErrback(
            self._failed
        )

    def _page(self, part: HistoryPart) -> None:
        if self._phase is not Phase.READING:
            return
        if part.missed:
            # Behind it are the publications of this part, or the end of the stream.
            after = part.publications[0].offset - 1 if part.publications else part.position.offset
            gap = PublicationGap(part.missed, self.at + 1, after, "history", part.exact)
            self.at = after
            self._count(gap.reason, gap.missed)
            self._tell(gap)
        stopped = False
        for record in part.publications:
            if self._phase is not Phase.READING:
                return  # the client has left
            if self.peer.congested:
                stopped = True  # the rest is read again, so that no more than this waits
                break
            self.at = record.offset
            if self._delivery.wanted is None or self._delivery.wanted.wants(record):
                self.peer.send_encoded(self._encoded(record))
        if self._phase is not Phase.READING:
            return
        meanwhile = self._meanwhile
        if part.more or stopped or meanwhile is None:
            self._phase = Phase.BEHIND
        else:
            self.at = max(self.at, part.position.offset)
            self._go_live()
            for fanned, data in meanwhile:
                self.give(fanned, data)
        self._pump()

    def _encoded(self, record: PublishedRecord) -> bytes:
        name = self.channel
        message = EncodedOnce(lambda encoding: encoding.publication(name, record))
        return message.get(self.encoding, self.peer.framing)

    def _unreadable(self, failure: Failure) -> None:
        """The history cannot be read: the client has to subscribe again, recovering."""
        if self._phase is Phase.READING:
            Logger(__name__).warn(
                "Channel {channel} cannot be read for a subscriber: {reason}",
                channel=self.channel,
                reason=str(failure.value),
            )
            self._channel.end_insufficient(self)

    def _failed(self, failure: Failure) -> None:
        """A client or its encoding raised: it cannot go on."""
        Logger(__name__).failure("A subscriber could not be served", failure)
        if self._phase is not Phase.ENDED:
            self._channel.end_insufficient(self)


__all__ = [
    "MOST_MEANWHILE",
    "PAGE",
    "DeliveryWishes",
    "LiveSubscription",
    "Phase",
    "ReadableChannel",
]
