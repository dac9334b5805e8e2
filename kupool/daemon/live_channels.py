"""What the daemon publishes to its own channels: snapshots, jobs, sessions, submissions, itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.bus.permissions import is_level
from kupool.live.failures import InvalidChannelName
from kupool.live.publications import NewPublication
from kupool.live.rules import ChannelKind, ChannelRule, check_channel
from kupool.live.service import LiveService
from kupool.pool import IEvents, SavedJob
from kupool.pool.events import job_event, session_event
from kupool.pool.session import Session
from kupool.topics.events import EVENTS
from kupool.topics.submissions import SUBMISSIONS
from kupool.wire.batches import Batch
from kupool.wire.messages import split_username
from kupool.wire.submissions import Accepted, accepted_of

#: The channels of the product.
POOL = "pool"
JOBS = "jobs"
SERVER = "server"
USERS = "users"
WORKERS = "workers"

#: The messages that a channel about users, jobs or the server keeps, and for how many seconds.
KEPT = 100
KEPT_FOR = 3600.0

#: The types of messages in the channels of a user and of a worker.
ONLINE = "online"
OFFLINE = "offline"
ACCEPTED = "accepted"

#: The longest text of a reason, in characters.
LONGEST_REASON = 500


def product_rules(*, durable: bool, events: bool) -> list[ChannelRule]:
    """Return the rules of the channels of the product.

    ``durable`` says whether there are topics, and ``events`` whether the daemon writes its events
    to one.
    """
    rules = [
        ChannelRule(pattern=POOL, kind=ChannelKind.LATEST),
        ChannelRule(pattern=JOBS, history_size=KEPT, history_time=KEPT_FOR),
        ChannelRule(pattern=SERVER, history_size=KEPT, history_time=24 * KEPT_FOR),
        ChannelRule(pattern=f"{USERS}.*", history_size=KEPT, history_time=KEPT_FOR),
        ChannelRule(pattern=f"{WORKERS}.*.>", history_size=KEPT, history_time=KEPT_FOR),
    ]
    topics = [SUBMISSIONS] * durable + [EVENTS] * events
    return rules + [
        ChannelRule(pattern=topic, kind=ChannelKind.DURABLE, topic=topic) for topic in topics
    ]


class LivePublisher:
    """Publishes values as JSON; what cannot be published is logged, and nobody waits for it."""

    _log = Logger()

    def __init__(self, live: LiveService) -> None:
        self._live = live
        self._encode = msgspec.json.Encoder().encode

    def publish(self, channel: str, value: object, **fields: Any) -> None:
        """Publish a value to a channel; ``fields`` are those of :class:`NewPublication`."""
        new = NewPublication(data=self._encode(value), **fields)
        self._live.announce(channel, new).addErrback(self._failed, channel)

    def _failed(self, failure: Failure, channel: str) -> None:
        self._log.warn(
            "Channel {channel} could not be published to: {reason}",
            channel=channel,
            reason=failure.getErrorMessage(),
        )


class PoolSnapshots:
    """Publishes a snapshot of the pool now and then, while the channel has subscribers.

    ``read`` returns an awaitable of a snapshot. At the end of each ``interval``, in seconds,
    a new one is read. If the one before is still being read then, or reading fails, none is
    published, which ``skipped`` counts. The interval may be changed at any time.
    """

    _log = Logger()

    def __init__(
        self,
        live: LiveService,
        clock: IReactorTime,
        read: Callable[[], Awaitable[object]],
        interval: float,
    ) -> None:
        self._publisher = LivePublisher(live)
        self._clock = clock
        self._read = read
        self._interval = interval
        self._call: IDelayedCall | None = None
        self._reading = False
        self._attended = False
        self.skipped = 0
        live.watch_attended(self._watch)

    @property
    def interval(self) -> float:
        """The seconds from one snapshot to the next."""
        return self._interval

    @interval.setter
    def interval(self, seconds: float) -> None:
        """Take another interval; the next snapshot comes after it."""
        if seconds != self._interval:
            self._interval = seconds
            if self._call is not None:
                self._call.reset(seconds)

    def stop(self) -> None:
        """Publish no more."""
        self._attended = False
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _watch(self, channel: str, first: bool) -> None:
        if channel == POOL and first:
            self._attended = True
            self._call = self._clock.callLater(0.0, self._tick)
        elif channel == POOL:
            self.stop()

    def _tick(self) -> None:
        self._call = self._clock.callLater(self._interval, self._tick)
        if self._reading:
            self.skipped += 1
            return
        self._reading = True
        maybeDeferred(self._read).addCallbacks(self._have_read, self._failed).addErrback(
            lambda failure: self._log.failure("A snapshot could not be published", failure)
        )

    def _have_read(self, snapshot: object) -> None:
        self._reading = False
        if self._attended:
            self._publisher.publish(POOL, snapshot)

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        self.skipped += 1
        self._log.debug("No snapshot of the pool: {reason}", reason=failure.getErrorMessage())


@implementer(IEvents)
class LiveEvents:
    """Publishes the events of the pool.

    Jobs are published always, since the channel keeps them; all else only to channels that have
    subscribers. While no channel of a user or a worker has any, submissions cost nothing.
    ``wall`` returns seconds since the epoch.
    """

    def __init__(self, live: LiveService, wall: Callable[[], float]) -> None:
        self._live = live
        self._publisher = LivePublisher(live)
        self._wall = wall
        #: The channels of users and workers that have subscribers.
        self._attended: set[str] = set()
        self.wants_accepted = False
        live.watch_attended(self._watch)

    def _watch(self, channel: str, first: bool) -> None:
        if channel.startswith((f"{USERS}.", f"{WORKERS}.")):
            if first:
                self._attended.add(channel)
            else:
                self._attended.discard(channel)
            self.wants_accepted = bool(self._attended)

    def job(self, job: SavedJob) -> None:
        """Publish that there is a new job."""
        self._publisher.publish(JOBS, job_event(job), event_id=f"job/{job.job_id}")

    def accepted(self, batch: Callable[[], Batch]) -> None:
        """Publish the submissions of a batch to their users and workers."""
        if not self._attended:
            return
        made = batch()
        found: dict[str, list[Accepted]] = {}
        for submission in accepted_of(made):
            for channel in channels_of(submission.username):
                if channel in self._attended:
                    found.setdefault(channel, []).append(submission)
        for channel, submissions in found.items():
            event = {
                "type": ACCEPTED,
                "batch": made.batch,
                "at": made.at,
                "submissions": submissions,
            }
            self._publisher.publish(
                channel, event, event_id=made.batch, event_type=ACCEPTED, key=ACCEPTED
            )

    def opened(self, session: Session, peer: str) -> None:
        """Publish that a worker is online."""
        self._session(ONLINE, session, {"peer": peer})

    def closed(self, session: Session, reason: str) -> None:
        """Publish that a worker is offline."""
        self._session(OFFLINE, session, {"reason": reason[:LONGEST_REASON]})

    def _session(self, kind: str, session: Session, more: Mapping[str, str]) -> None:
        if not self._attended:
            return
        for channel in channels_of(session.username):
            if channel in self._attended:
                event = session_event(session, int(self._wall() * 1000))
                self._publisher.publish(
                    channel,
                    {"type": kind, **event, **more},
                    event_id=f"{session.session_id.hex()}/{kind}",
                    event_type=kind,
                    device=session.username,
                )


class ServerChannel:
    """Publishes what happens to the daemon: what :class:`DaemonNews` and the watch tell."""

    def __init__(self, live: LiveService, wall: Callable[[], float]) -> None:
        self._publisher = LivePublisher(live)
        self._wall = wall

    def tell(self, kind: str, event: Mapping[str, object], key: str = "") -> None:
        """Publish an event of a type."""
        shown = {"type": kind, "at": int(self._wall() * 1000), **event}
        self._publisher.publish(SERVER, shown, event_type=kind, key=key)


def channels_of(username: str) -> tuple[str, ...]:
    """Return the channels about a user and a worker.

    There are none for a name that cannot be a level of a channel: it might stand for another user.
    """
    user, worker = split_username(username)
    if not is_level(user) or ":" in username:
        return ()
    names = [f"{USERS}.{user}"]
    if worker:
        names.append(f"{WORKERS}.{user}.{worker}")
    return tuple(name for name in names if _is_channel(name))


def _is_channel(name: str) -> bool:
    try:
        check_channel(name)
    except InvalidChannelName:
        return False
    return True


async def pool_figures(
    pool: Callable[[], Mapping[str, object]],
    stats: Any,
    wall: Callable[[], float],
) -> dict[str, object]:
    """Return a snapshot: figures of the pool, and the counts of the last and the current minute.

    ``stats`` is an :class:`~kupool.stats.IStatsStore`; ``wall`` returns seconds since the epoch.
    """
    now = wall()
    minute = int(now) // 60 * 60
    counted: Deferred[Any] = stats.minutes(minute - 60, minute + 60)
    counts = {at: {"users": users, "accepted": count} for at, users, count in await counted}
    none = {"users": 0, "accepted": 0}
    return {
        "at": int(now * 1000),
        **pool(),
        "last_minute": counts.get(minute - 60, none),
        "this_minute": counts.get(minute, none),
    }


__all__ = [
    "JOBS",
    "POOL",
    "SERVER",
    "USERS",
    "WORKERS",
    "LiveEvents",
    "LivePublisher",
    "PoolSnapshots",
    "ServerChannel",
    "channels_of",
    "pool_figures",
    "product_rules",
]
