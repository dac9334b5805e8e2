"""The daemon's topics: for sessions, and for HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from kupool.amqp import BrokerError
from kupool.daemon.dead_letter_events import DeadLetterEvents
from kupool.daemon.events import TopicEvents
from kupool.daemon.files import TOPICS_FILE, topics_kind
from kupool.daemon.new_topics import default_topic
from kupool.daemon.pace import RequestPace
from kupool.daemon.topic_access import TopicAccess
from kupool.errors import ErrorText
from kupool.net.refusals import Refusals
from kupool.net.routing.router import Router
from kupool.permissions.table import PermissionTable
from kupool.pool import IEvents
from kupool.pool.events import ManyEvents
from kupool.session.connection import Connection
from kupool.settings import NodeTopicsSettings, Settings, SubmissionSettings
from kupool.storage.database import Database
from kupool.topics.api.table import TopicApi
from kupool.topics.api.world import TopicWorld
from kupool.topics.dead_letters import DeadLetters
from kupool.topics.delays import DelayedRecords
from kupool.topics.errors import TopicsUnavailable
from kupool.topics.events import EVENTS, EventWriter
from kupool.topics.groups import ConsumerGroups, GroupLimits
from kupool.topics.rabbit.leases import NodeName
from kupool.topics.routed import RoutedTopics
from kupool.topics.service import TopicLimits, Topics
from kupool.topics.sessions import SessionFetchLimits, TopicSessions
from kupool.topics.settings import TopicSettings
from kupool.topics.submissions import SUBMISSIONS, SubmissionTopic
from kupool.topics.transactions import TopicTransactions, TransactionLimits
from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.topics import topic_routes

#: Seconds that a stop waits for the last events to be written.
LAST_EVENTS = 1.0

#: What the log calls requests above ``--topics-rate``.
TOO_FAST = "topics, too many requests of one session"


class TopicCleanup:
    """Removes old records of topics now and then.

    ``interval`` is the seconds between two removals, and may be set at any time. Times are those of
    the retention clock, in seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, engine: Any, interval: float) -> None:
        self.interval = interval
        self._engine = engine
        self._last: float | None = None
        self._running: Deferred[None] | None = None
        self._stopped = False

    def look(self, now: float) -> None:
        """Remove old records if it is time; the first time, records begin to age."""
        if self._running is not None or self._stopped:
            return
        if self._last is None or not 0 <= now - self._last < self.interval:
            self._last = now
            trimming = self._running = Deferred.fromCoroutine(self._trim(now))
            trimming.addBoth(self._ended)

    async def _trim(self, now: float) -> None:
        dropped = await self._engine.trim(now)
        if dropped:
            self._log.info("Dropped {count} old records of topics", count=dropped)

    def stop(self) -> None:
        """Remove nothing any more, also not the rest of what is being removed."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    def _ended(self, result: Any) -> None:
        self._running = None
        if result is not None and not self._stopped:
            self._log.warn(
                "Old records of topics could not be removed: {reason}",
                reason=result.getErrorMessage(),
            )


class _Paced:
    """A step before methods: refuses requests above the pace, and notes them for the log."""

    def __init__(self, pace: RequestPace, refusals: Refusals, access: TopicAccess) -> None:
        self._pace = pace
        self._refusals = refusals
        self._access = access

    def __call__(self, connection: Connection, request: Any) -> ErrorText | None:
        refusal = self._pace(connection, request)
        if refusal is not None:
            caller = self._access.of_session(connection)
            self._refusals.note(TOO_FAST, caller.host, caller.user)
        return refusal


@dataclass(frozen=True)
class TopicsPart:
    """The topics with their groups, and what serves them."""

    world: TopicWorld
    api: TopicApi
    sessions: TopicSessions
    pace: RequestPace
    cleanup: TopicCleanup
    refusals: Refusals
    access: TopicAccess
    events: EventWriter | None
    #: Whether another server keeps the records.
    remote: bool

    @property
    def problem(self) -> str:
        """Why nothing can be written now; empty if it can."""
        problem: str = self.world.topics.engine.problem()
        return problem

    @property
    def prevents_submissions(self) -> bool:
        """Whether a problem is that of the whole daemon, as a full disk is.

        It is not if somebody writes too much to topics in memory, or if RabbitMQ is away.
        """
        persistent: bool = self.world.topics.engine.capabilities.persistent
        return persistent and not self.remote

    async def open(self) -> None:
        """Open the engine, and begin to write delayed records that are due.

        Raises :class:`BrokerError` if RabbitMQ refuses it, and what the engine raises.
        """
        try:
            await self.world.topics.engine.open()
        except TopicsUnavailable as error:
            raise BrokerError(str(error)) from error
        if self.events is not None and not self.problem:  # else the first event makes its topic
            await self.events.open()
        self.world.delays.start()

    def apply(self, settings: NodeTopicsSettings) -> None:
        """Apply changed settings."""
        self.pace.rate = settings.rate
        self.cleanup.interval = settings.cleanup_interval
        self.sessions.limits = _session_limits(settings)

    def for_pool(self, others: IEvents, wall: Callable[[], float]) -> IEvents:
        """Return what tells the topic of events and ``others`` about the pool."""
        if self.events is None:
            return others
        return ManyEvents([others, TopicEvents(self.events, wall)])

    def finish(self) -> None:
        """Take no more requests, and end the fetches that wait."""
        self.api.close()

    async def close(self) -> None:
        """Stop everything that runs, and close the engine."""
        self.finish()
        self.cleanup.stop()
        self.world.delays.stop()
        self.world.groups.close()
        self.world.transactions.close()
        self.refusals.stop()
        if self.events is not None:
            await self.events.close(LAST_EVENTS)
        await self.world.topics.engine.close()

    def routes(self, access: WebAccess, settings: NodeTopicsSettings) -> Mapping[str, ApiResource]:
        """Return the routes of the HTTP API."""
        return topic_routes(
            self.api, access, self.access.of_request, most_body=settings.produce_size
        )


def make_topics(
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    methods: Router,
    *,
    log: Any,
    instance: str,
    address: Callable[[], str],
    database: Callable[[str, str], Database],
    table: PermissionTable,
) -> TopicsPart:
    """Make the topics, and add their methods for the pool's sessions, which go by the ``table``.

    They must not be ``off``. ``log`` is that of the submissions, which are a topic, too, and
    ``instance`` makes the ids of this process's events unique, and its name among other daemons.
    ``address`` returns where clients reach this daemon, once it listens. ``database`` returns the
    database in a file of the data folder, with a schema. Nothing is opened.
    """
    own = settings.topics
    kind, leases = topics_kind(settings), None
    main: Any
    if kind == "rabbit":
        from kupool.daemon.rabbit_topics import make_rabbit_topics

        node = NodeName(instance, address)
        main = make_rabbit_topics(settings, reactor, wall, database=database, node=node).engine
        leases = main.leases
    else:
        main = _make_engine(kind, settings, reactor, wall, database=database)
    engine = RoutedTopics(
        main,
        {SUBMISSIONS: SubmissionTopic(log.reader(), _shown(settings.submissions))},
        kept={EVENTS},
    )
    topics = Topics(
        engine,
        reactor,
        wall,
        lambda call: deferToThreadPool(reactor, reactor.getThreadPool(), call),
        random=SystemRandom(),
        limits=TopicLimits(topics=own.most, partitions=settings.new_topics.max_partitions),
        decoders=engine.decoders,
        reserved=engine.reserved,
    )
    events = None
    if own.events == "on":
        events = EventWriter(topics, main, reactor, wall, instance=instance)
    world = TopicWorld(
        topics,
        ConsumerGroups(
            engine,
            reactor,
            wall,
            GroupLimits(
                groups=own.groups,
                of_owner=own.user_groups,
                members=own.members,
                partitions=own.group_partitions,
            ),
            leases=leases,
        ),
        DeadLetters(topics, _nothing if events is None else DeadLetterEvents(events).told),
        DelayedRecords(topics, reactor, wall),
        TopicTransactions(
            topics,
            reactor,
            TransactionLimits(
                transactions=own.transactions,
                of_owner=own.user_transactions,
                timeout=own.transaction_timeout,
            ),
        ),
        wall=wall,
        seconds=reactor.seconds,
        defaults=default_topic(settings.new_topics),
        fetch_bytes=own.fetch_size,
    )
    refusals, pace, access = Refusals(reactor), RequestPace(own.rate), TopicAccess(table)
    api = TopicApi(world, refusals.note)
    sessions = TopicSessions(
        api,
        methods,
        access.of_session,
        before=[_Paced(pace, refusals, access)],
        limits=_session_limits(own),
        note=refusals.note,
    )
    cleanup = TopicCleanup(engine, own.cleanup_interval)
    return TopicsPart(
        world, api, sessions, pace, cleanup, refusals, access, events, remote=kind == "rabbit"
    )


def _make_engine(
    kind: str,
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    *,
    database: Callable[[str, str], Database],
) -> Any:
    """Return an engine of this machine, which has all topics but those of other sources."""
    if kind == "memory":
        from kupool.topics.memory import MemoryTopics

        return MemoryTopics(wall, settings.topics.memory)
    if kind == "sqlite":
        from kupool.topics.sqlite import SqliteTopics

        interval = settings.new_topics.flush_interval
        file = database(TOPICS_FILE, "topics")
        return SqliteTopics(file, reactor, wall, flush_interval=interval)
    raise ValueError(f"there is no engine of topics {kind!r}")


def _nothing(*_: object) -> None:
    """Do nothing."""


def _shown(settings: SubmissionSettings) -> TopicSettings:
    """Return the settings of the topic of submissions: the log applies its own retention."""
    return TopicSettings(
        retention_time=settings.log_retention, retention_bytes=settings.log_max_size
    )


def _session_limits(settings: NodeTopicsSettings) -> SessionFetchLimits:
    return SessionFetchLimits(settings.fetches, settings.fetches_size)


__all__ = ["TopicCleanup", "TopicsPart", "make_topics"]
