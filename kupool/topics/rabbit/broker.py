"""Streams at the broker: made and deleted, published to, followed and read.

It knows streams by their names, and nothing of topics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.amqp import BrokerError, BrokerRefused, BrokerUnreachable
from kupool.amqp.address import parse_brokers
from kupool.amqp.connection import BrokerConnection
from kupool.amqp.links import Link, LinkSettings
from kupool.amqp.publisher import Publisher, PublisherSettings
from kupool.amqp.refusals import explained
from kupool.amqp.streams import StreamFetcher
from kupool.topics.errors import TopicsUnavailable
from kupool.topics.rabbit.history import StreamHistory
from kupool.topics.rabbit.tail import EXCHANGE, StreamTail

#: The reply codes for what does not exist, and for what exists with other arguments.
_NOT_FOUND, _MISMATCH = 404, 406

#: Seconds until the end of a stream is read again after a fault.
AGAIN_AFTER = 0.1


@dataclass(frozen=True)
class RabbitTopicsSettings:
    """Settings of topics in RabbitMQ; times in seconds, sizes in bytes.

    Streams are named ``prefix.TOPIC.NUMBER``. With ``required`` a start fails if no broker answers;
    without it waits ``patience`` for one. So long an append waits for a broker that is away, too.
    One that has no position after ``give_up`` fails, and may be stored. ``ahead`` and ``kept``
    limit the memory for batches that were read ahead, and for the newest ones. At most
    ``followed`` ends of streams are followed, unless more are written to. ``refresh`` is the time
    between two looks for topics of other nodes.
    """

    prefix: str = "kupool.topic"
    link: LinkSettings = field(default_factory=LinkSettings)
    publisher: PublisherSettings = field(
        default_factory=lambda: PublisherSettings(
            entries=5000, stalled=5.0, silent=3.0, give_up=30.0, mark_repeats=True
        )
    )
    required: bool = True
    patience: float = 5.0
    give_up: float = 30.0
    close_timeout: float = 5.0
    ahead: int = 64 * 1024 * 1024
    kept: int = 64 * 1024 * 1024
    followed: int = 1000
    refresh: float = 2.0


class StreamBroker:
    """Connections to a broker, and the streams that are followed over them.

    ``arguments`` returns what a stream is declared with, None if there shall be none of that name.
    ``told`` is called with the name of a stream that has new batches.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        wall: Callable[[], float],
        url: str,
        settings: RabbitTopicsSettings,
        *,
        arguments: Callable[[str], dict[str, Any] | None],
        told: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._arguments = arguments
        self._told = told
        self._tails: dict[str, StreamTail] = {}
        self._following: set[str] = set()
        self._changed: Callable[[], object] = lambda: None
        self._publisher = Publisher(
            reactor, wall, lambda: (), settings.publisher, unavailable=TopicsUnavailable
        )
        brokers = parse_brokers(url)

        def link(purpose: str, set_up: Any, lost: Callable[[str], object]) -> Link:
            return Link(
                reactor,
                brokers,
                f"kupool topics: {purpose}",
                set_up,
                lost=lost,
                settings=settings.link,
            )

        self._publishing = link("publishing", self._set_up_publishing, self._publisher.down)
        self._ends = link("following", self._set_up_following, self._following_lost)
        self._reading = link("reading", _nothing, lambda why: None)
        self.history = StreamHistory(
            StreamFetcher(reactor, self._reading, EXCHANGE), settings.ahead
        )
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor
        self._owner = ""
        self._closed = False

    # -- connections

    async def open(self, changed: Callable[[], object], owner: str) -> None:
        """Connect; ``changed`` is called when something may go on that waited.

        ``owner`` is the id of those whose streams these are. Raises :class:`TopicsUnavailable` if
        they are those of others, if a broker refuses the account, or if none answers and one is
        required.
        """
        self._changed, self._owner = changed, owner
        links = (self._publishing, self._ends, self._reading)
        for link in links:
            link.start()
        try:
            for link in links:
                await link.first(None if self._settings.required else self._settings.patience)
        except (BrokerRefused, BrokerUnreachable) as error:
            if self._settings.required or isinstance(error, BrokerRefused):
                await self.close()
                raise TopicsUnavailable(str(error)) from None
        self._looks.start(1.0, now=False).addErrback(
            lambda failure: self._log.failure("Looking after streams failed", failure)
        )

    async def _claim(self, connection: BrokerConnection) -> None:
        """Mark the streams of this prefix as ours; raises :class:`BrokerRefused` if others did.

        The mark is an exchange that nobody publishes to. Of its arguments a broker compares one
        alone: the exchange for what is not routable.
        """
        mark = f"{self._settings.prefix}.owner"
        channel = await connection.channel()
        arguments = {"alternate-exchange": f"{mark}.{self._owner}"}
        try:
            await channel.declare_exchange(mark, "fanout", arguments=arguments)
        except BrokerError as error:
            if error.code != _MISMATCH:
                raise explained(error, connection) from None
            broker = connection.broker
            raise BrokerRefused(
                f"RabbitMQ at {broker}: the streams {self._settings.prefix}.* in virtual host "
                f"{broker.vhost!r} belong to other topics, which are known in another database or "
                "data folder. Set --topics-prefix to a name of your own. If the other topics are "
                f"not needed any more, delete the exchange {mark!r}, and start again",
                error.code,
            ) from None
        await channel.close()

    async def _set_up_publishing(self, connection: BrokerConnection) -> None:
        await self._claim(connection)
        for stream in sorted(self._publisher.keys):
            await self._look_after(connection, stream)
        await self._publisher.up(connection)
        self._reactor.callLater(0, self._changed)

    async def _set_up_following(self, connection: BrokerConnection) -> None:
        self._reactor.callLater(0, self._follow_all)

    def _following_lost(self, why: str) -> None:
        for tail in self._tails.values():
            tail.down()

    async def _look_after(self, connection: BrokerConnection, stream: str) -> None:
        """Make a stream again that somebody has deleted; give up what waits for one that shall not
        be there.
        """
        arguments = self._arguments(stream)
        if arguments is None:
            self._publisher.abandon(stream, "its topic was deleted")
        elif await self._declare(connection, stream, arguments):
            self._log.error("Stream {name} was deleted by somebody, and is made again", name=stream)
            self.history.forget(stream)
            tail = self._tails.get(stream)
            if tail is not None:
                tail.restart()
                self._follow(tail)

    async def _declare(
        self, connection: BrokerConnection, stream: str, arguments: dict[str, Any]
    ) -> bool:
        """Make a stream unless it is there, whatever it was made with; returns whether it was
        made. A broker closes the channel on which it was asked for one that is missing.
        """
        channel = await connection.channel()
        try:
            await channel.look_at(stream)
            made = False
        except BrokerError as error:
            if error.code != _NOT_FOUND:
                raise explained(error, connection) from None
            channel = await connection.channel()
            try:
                await channel.declare_queue(stream, arguments)
            except BrokerError as refusal:
                raise explained(refusal, connection) from None
            made = True
        await channel.close()
        return made

    # -- streams

    async def make(self, streams: Mapping[str, dict[str, Any]], *, anew: bool) -> None:
        """Make streams with their arguments; those that are there are kept, or made ``anew``.

        Raises :class:`TopicsUnavailable`.
        """
        connection = await self._connection()
        try:
            if anew:
                await self._delete(connection, list(streams))
            for stream, arguments in streams.items():
                await self._declare(connection, stream, arguments)
        except BrokerError as error:
            raise TopicsUnavailable(str(error)) from None

    async def delete(self, streams: list[str], reason: Exception) -> None:
        """Delete streams; who waits for something of them gets the reason.

        Raises :class:`TopicsUnavailable`.
        """
        self.leave(streams, reason)
        connection = await self._connection()
        try:
            await self._delete(connection, streams)
        except BrokerError as error:
            raise TopicsUnavailable(str(error)) from None

    def leave(self, streams: list[str], reason: Exception) -> None:
        """Follow streams no more, and publish nothing more to them."""
        for stream in streams:
            tail = self._tails.pop(stream, None)
            if tail is not None:
                tail.close(reason)
            self._publisher.abandon(stream, str(reason))
            self.history.forget(stream)

    async def _delete(self, connection: BrokerConnection, streams: list[str]) -> None:
        channel = await connection.channel()
        for stream in streams:
            try:
                await channel.delete_queue(stream)
            except BrokerError as error:
                if error.code != _NOT_FOUND:
                    raise explained(error, connection) from None
                channel = await connection.channel()
        await channel.close()

    async def _connection(self) -> BrokerConnection:
        try:
            return await self._publishing.up(self._settings.patience)
        except BrokerUnreachable as error:
            raise TopicsUnavailable(str(error)) from None

    # -- the ends of streams

    def tail(self, stream: str) -> StreamTail:
        """Return the end of a stream, which is followed from now on."""
        tail = self._tails.get(stream)
        if tail is None:
            tail = self._tails[stream] = StreamTail(
                self._reactor,
                stream,
                told=lambda: self._told(stream),
                ended=lambda: self._follow_again(stream),
                room=self._room,
            )
            self._follow(tail)
        tail.used_at = self._reactor.seconds()
        return tail

    def _follow_again(self, stream: str) -> None:
        tail = self._tails.get(stream)
        if tail is not None:
            self._follow(tail, AGAIN_AFTER)

    def _room(self) -> int:
        return self._settings.kept // max(16, len(self._tails))

    def _follow_all(self) -> None:
        for tail in list(self._tails.values()):
            self._follow(tail)

    def _follow(self, tail: StreamTail, delay: float = 0.0) -> None:
        if tail.stream in self._following:
            return
        self._following.add(tail.stream)
        done = Deferred.fromCoroutine(self._followed(tail, delay))
        done.addBoth(self._is_followed, tail)
        done.addErrback(lambda failure: self._log.failure("Following a stream failed", failure))

    async def _followed(self, tail: StreamTail, delay: float) -> None:
        if delay:
            await deferLater(self._reactor, delay)
        while self._tails.get(tail.stream) is tail and not tail.ready and not self._closed:
            connection = self._ends.connection
            if connection is None:
                return  # its set-up begins again
            try:
                await tail.up(connection)
            except BrokerError as error:
                tail.down()
                if not connection.is_open:
                    return
                if error.code == _NOT_FOUND:
                    await self._look_after_missing(connection, tail)
                await deferLater(self._reactor, AGAIN_AFTER)

    async def _look_after_missing(self, connection: BrokerConnection, tail: StreamTail) -> None:
        try:
            if self._arguments(tail.stream) is not None:
                await self._look_after(connection, tail.stream)
        except BrokerError as error:
            self._log.warn("Stream {name}: {why}", name=tail.stream, why=error)

    def _is_followed(self, result: Any, tail: StreamTail) -> Any:
        self._following.discard(tail.stream)
        now = self._tails.get(tail.stream)  # another one, if the topic was made again
        if now is not None and now.ready:
            self._changed()
        elif now is not None and self._ends.connection is not None and not self._closed:
            self._follow(now, AGAIN_AFTER if now is tail else 0.0)
        return result

    def _look(self) -> None:
        """Give up what has waited for too long, and the ends that nobody has asked for long."""
        late = self._reactor.seconds() - self._settings.give_up
        for tail in self._tails.values():
            tail.give_up_before(late, self._too_late)
        spare = len(self._tails) - self._settings.followed
        idle = sorted(self._tails.values(), key=lambda tail: tail.used_at)[: max(0, spare)]
        for tail in idle:
            if not tail.waiting:
                del self._tails[tail.stream]
                tail.down()

    def _too_late(self) -> TopicsUnavailable:
        why = self.problem or "the broker does not show it"
        return TopicsUnavailable(f"not confirmed in time, it may be stored: {why}")

    # -- publishing

    @property
    def is_up(self) -> bool:
        """Whether something can be published now."""
        return self._publishing.connection is not None

    @property
    def obstacle(self) -> str:
        """Why nothing can be published now; empty if something can."""
        return self._publisher.obstacle

    def publish(
        self, tail: StreamTail, message_id: str, headers: dict[str, Any], body: bytes
    ) -> Deferred[int]:
        """Publish a batch; fires with its position, or that of its first copy.

        The end of the stream shows what a majority of its replicas has. Fails with
        :class:`TopicsUnavailable`.
        """
        position = tail.position_of(message_id)
        self._publisher.publish("", tail.stream, message_id, headers, body=body).addErrback(
            _not_published, tail, message_id
        )
        return position

    @property
    def problem(self) -> str:
        """What is wrong; empty if nothing is."""
        for link in (self._publishing, self._ends, self._reading):
            if link.connection is None:
                return link.problem
        return self._publisher.obstacle

    # -- end

    async def close(self) -> None:
        """Wait a while for what is under way, and disconnect."""
        if self._closed:
            return
        self._closed = True
        if self._looks.running:
            self._looks.stop()
        await self._publisher.close(self._settings.close_timeout)
        reason = TopicsUnavailable("closed before it was confirmed: it may be stored")
        for tail in list(self._tails.values()):
            tail.close(reason)
        self._tails.clear()
        ending = [
            Deferred.fromCoroutine(link.stop())
            for link in (self._publishing, self._ends, self._reading)
        ]
        await gatherResults(ending, consumeErrors=True)


async def _nothing(connection: BrokerConnection) -> None:
    """Set nothing up."""


def _not_published(failure: Failure, tail: StreamTail, message_id: str) -> None:
    assert isinstance(failure.value, Exception)
    tail.give_up(message_id, failure.value)


__all__ = ["RabbitTopicsSettings", "StreamBroker"]
