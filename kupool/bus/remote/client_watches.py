"""A client's watches of the members of topics, which outlive its connections."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.bus.members import MembersTold, TopicMember
from kupool.bus.messages import BusError, Topic
from kupool.bus.remote.listening import Replied
from kupool.bus.remote.messages import MembersParams, UnwatchParams, Watched, WatchParams
from kupool.bus.topics import topic_name
from kupool.session.connection import Connection
from kupool.timing.waiting import Waiters
from kupool.wire.incoming import ServerMessage

#: Seconds after which a watch is renewed.
RENEWAL = 1.0


class _ClientWatch:
    """A watched topic: what the server has reported, and who is told."""

    def __init__(self) -> None:
        self.known = False
        #: Whether the next report is the first of a connection, and so is complete. Until then the
        #: members are those of the connection before.
        self.anew = True
        self.members: dict[str, TopicMember] = {}
        self.told: dict[MembersTold, tuple[TopicMember, ...] | None] = {}
        self.waiting = Waiters[None]()


class RemoteWatches:
    """Renews watches regularly, and notices when the server does not receive that.

    A watch lasts as long as the server said, from when it was requested. So it ends here before the
    server counts this client as gone.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        link: Callable[[], Connection | None],
        *,
        ask: Callable[[Connection, str, object, Replied], None],
        refusal: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._link = link
        self._ask = ask
        self._refusal = refusal
        self._topics: dict[str, _ClientWatch] = {}
        self._valid_until = 0.0
        self._again: IDelayedCall | None = None
        self._end: IDelayedCall | None = None

    def watch(self, topic: Topic, told: MembersTold) -> Deferred[None]:
        """Report the members of a topic, from this connection on or from the next."""
        name = topic_name(topic)
        refusal = self._refusal()
        if refusal:
            return fail(BusError(refusal))
        watched = self._topics.setdefault(name, _ClientWatch())
        watched.told.setdefault(told, None)
        done = watched.waiting.wait()
        self._renew()
        self._tell(watched)
        return done

    def unwatch(self, told: MembersTold) -> Deferred[None]:
        """End all watches of ``told``."""
        link = self._link()
        for name, watched in list(self._topics.items()):
            watched.told.pop(told, None)
            if not watched.told:
                del self._topics[name]
                if link is not None:
                    self._ask(link, "bus.unwatch", UnwatchParams(name), lambda reply: None)
        if not self._topics:
            self._stop()
        return succeed(None)

    def up(self) -> None:
        """There is a connection."""
        self._renew()

    def down(self) -> None:
        """The connection is lost. The client may reconnect before its watches have ended.

        Until the next report the members stay as they were. A server that was started anew reports
        none before all members have had the time to come back.
        """
        self._stop_timer(self._again)
        self._again = None
        for watched in self._topics.values():
            watched.anew = True

    def gone(self) -> None:
        """There will be no connection again: fail the watches that wait for one."""
        for watched in self._topics.values():
            watched.waiting.tell(Failure(BusError(self._refusal())))

    def close(self) -> None:
        """End all watches."""
        self._topics.clear()
        self._stop()

    def _stop(self) -> None:
        for timer in (self._again, self._end):
            self._stop_timer(timer)
        self._again = self._end = None

    def _stop_timer(self, timer: IDelayedCall | None) -> None:
        if timer is not None and timer.active():
            timer.cancel()

    # -- how long watches last

    def _renew(self) -> None:
        self._stop_timer(self._again)
        self._again = None
        link = self._link()
        if link is None or not self._topics:
            return
        now = self._clock.seconds()
        for name in list(self._topics):
            self._ask(link, "bus.watch", WatchParams(name), self._replied(name, link, now))
        self._again = self._clock.callLater(RENEWAL, self._renew)

    def _replied(self, name: str, link: Connection, asked: float) -> Replied:
        def replied(reply: ServerMessage | None) -> None:
            watched = self._topics.get(name)
            if reply is None or watched is None or self._link() is not link:
                return
            try:
                if reply.error is not None:
                    raise BusError(reply.error)
                answer = msgspec.json.decode(reply.result, type=Watched)
            except (ValueError, BusError) as error:
                self._log.warn(
                    "The bus refused to watch the members of topics: {why}", why=str(error)
                )
                watched.waiting.tell(Failure(BusError(str(error))))
                watched.known = False
                self._tell(watched)
                del self._topics[name]
                return
            watched.waiting.tell(None)
            self._hold(asked + answer.valid_ms / 1000)

        return replied

    def _hold(self, until: float) -> None:
        before, self._valid_until = self._valid_until, until
        now = self._clock.seconds()
        self._stop_timer(self._end)
        self._end = None
        if until > now:
            self._end = self._clock.callLater(until - now, self._ended)
            if before <= now:
                self._tell_all()
        else:
            self._ended()

    def _ended(self) -> None:
        """This client may count as gone; what was known before its connection is out of date."""
        for watched in self._topics.values():
            watched.known = watched.known and not watched.anew
        self._tell_all()

    # -- members

    def members(self, message: ServerMessage) -> None:
        """Handle a notification ``members`` of the server; raises :class:`ValueError`."""
        params = msgspec.json.decode(message.params, type=MembersParams)
        watched = self._topics.get(params.topic)
        if watched is None:
            return
        watched.known = params.known
        if watched.anew or not params.known:
            watched.members.clear()
            watched.anew = False
        for gone in params.gone:
            watched.members.pop(gone, None)
        for entry in params.came:
            watched.members[entry.subscriber] = TopicMember(entry.subscriber, tuple(entry.keys))
        if not params.more:
            self._tell(watched)

    def _tell_all(self) -> None:
        for watched in list(self._topics.values()):
            self._tell(watched)

    def _tell(self, watched: _ClientWatch) -> None:
        members: tuple[TopicMember, ...] | None = None
        if watched.known and self._valid_until > self._clock.seconds():
            members = tuple(watched.members.values())
        for told, last in list(watched.told.items()):
            if last != members and told in watched.told:
                watched.told[told] = members
                try:
                    told(members)
                except BaseException:
                    self._log.failure("A watch of the members of a topic failed")


__all__ = ["RENEWAL", "RemoteWatches"]
