"""Live channels as methods of sessions, in any framing with JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import NOT_FOUND, SLOW_READER, CloseReason, RequestError
from kupool.live.failures import LiveError
from kupool.live.interfaces import LiveEncoding
from kupool.live.params import (
    ChannelHistoryParams,
    ChannelParams,
    ChannelPublishParams,
    ChannelSubscribeParams,
)
from kupool.live.publications import ClientDetails, PublicationGap, StreamPosition
from kupool.live.service import LiveService
from kupool.live.session import LiveSession
from kupool.live.shown import (
    GAP,
    UNSUBSCRIBED,
    SessionEncoding,
    error_row,
    shown_gap,
    shown_member,
    shown_record,
)
from kupool.live.sweep import SweptIndex
from kupool.live.wishes import SubscribeOutcome
from kupool.net.interfaces import IClosingObserver
from kupool.net.observer import Observer
from kupool.net.routing.router import LATER, Before, Router
from kupool.session.connection import Connection
from kupool.timing.waiting import UnderWay
from kupool.wire.messages import encode_request

#: The most clients that one answer of ``presence`` names.
MOST_PRESENT = 1000


class SessionUser(NamedTuple):
    """The user of a session, and the most that the user may do."""

    user: str
    role: str


class SessionSubscriber:
    """A session as the live service knows it."""

    connection_info = b""

    def __init__(
        self, connection: Connection, who: SessionUser, client_id: str, encoding: LiveEncoding
    ) -> None:
        self.client_id = client_id
        self.user = who.user
        self.role = who.role
        self.peer = connection
        self.encoding = encoding

    def gap(self, channel: str, gap: PublicationGap) -> None:
        """Tell the session what it missed."""
        self._notify(GAP, shown_gap(channel, gap))

    def unsubscribed(self, channel: str, reason: str) -> None:
        """Tell the session that a subscription has ended."""
        self._notify(UNSUBSCRIBED, {"channel": channel, "reason": reason})

    def too_slow(self, channel: str) -> None:
        """Close the connection."""
        self.peer.close(SLOW_READER.about(f"channel {channel}"))

    def _notify(self, method: str, params: object) -> None:
        if self.peer.sends:
            self.peer.send(encode_request(None, method, params))


class _LiveWork:
    """What one session does with live channels, and the calls that are under way."""

    def __init__(self, session: LiveSession, number: int) -> None:
        self.session = session
        #: The id of the connection.
        self.number = number
        self.calls = UnderWay()


@implementer(IClosingObserver)
class LiveMethods(Observer):
    """The observer of a server whose sessions use live channels.

    ``who`` returns who a connection belongs to, and ``new_id`` an id that nobody can guess.
    ``before`` are steps before every method, such as a limit of requests. A session without
    subscriptions costs nothing.
    """

    _log = Logger()

    def __init__(
        self,
        live: LiveService,
        methods: Router,
        who: Callable[[Connection], SessionUser],
        new_id: Callable[[], str],
        *,
        before: Iterable[Before] = (),
    ) -> None:
        super().__init__(methods)
        self._live = live
        self._who = who
        self._new_id = new_id
        self._encoding = SessionEncoding()
        self._work: dict[int, _LiveWork] = {}
        steps = tuple(before)
        table: tuple[tuple[str, Callable[..., Awaitable[object]], type], ...] = (
            ("publish", self._publish, ChannelPublishParams),
            ("presence", self._presence, ChannelParams),
            ("history", self._history, ChannelHistoryParams),
        )
        for name, method, params in table:
            methods.add(name, partial(self._call, method), params, before=steps)
        methods.add("subscribe", self._subscribe, ChannelSubscribeParams, before=steps)
        methods.add("unsubscribe", self._unsubscribe, ChannelParams, before=steps)

    # -- the methods

    def _subscribe(self, connection: Connection, request: Any) -> object:
        work = self._work_of(connection)
        subscribing = Deferred.fromCoroutine(self._subscribed(work.session, request.params))
        return self._later(work, subscribing, partial(self._begin, request))

    async def _subscribed(
        self, session: LiveSession, params: ChannelSubscribeParams
    ) -> SubscribeOutcome:
        since = params.position()
        if since is None and params.at is None:
            since = self._live.newest_position(params.channel)
        wishes = params.wishes(
            positioned=True,
            recoverable=True,
            recover=since,
            partial=True,
            in_reply=1,
            join_leave=params.join_leave,
        )
        if params.at is not None:
            since = await session.position_at(params.channel, params.at / 1000)
            wishes = msgspec.structs.replace(wishes, recover=since)
        return await session.subscribe(params.channel, wishes)

    def _begin(self, request: Any, result: SubscribeOutcome | Failure) -> None:
        """Answer, and hand over what was published since."""
        if isinstance(result, Failure):
            request.reply(result)
            return
        subscription, peer = result.subscription, request.connection
        params: ChannelSubscribeParams = request.params
        comes_back = params.offset is not None or params.at is not None
        request.reply(_shown_outcome(result, comes_back=comes_back))
        for record in result.publications:
            payload = self._encoding.publication(subscription.channel, record)
            peer.send_encoded(peer.framing.encode(payload))
        subscription.start()

    def _unsubscribe(self, connection: Connection, request: Any) -> object:
        work = self._work.get(connection.id)
        if work is None or not work.session.unsubscribe(request.params.channel):
            raise RequestError(NOT_FOUND.about("you are not subscribed to that channel"))
        self._settled(work)
        return True

    async def _publish(self, session: LiveSession, params: ChannelPublishParams) -> object:
        subscriber = session.subscriber
        info = ClientDetails(subscriber.client_id, subscriber.user)
        record = await session.publish(params.channel, params.publication(info))
        return {"replaced": True} if record.replaced else {"offset": record.offset}

    async def _presence(self, session: LiveSession, params: ChannelParams) -> object:
        present = session.presence(params.channel)
        counts = session.presence_stats(params.channel)
        clients = [shown_member(each) for each in present[:MOST_PRESENT]]
        return {"clients": clients, "client_count": counts.clients, "user_count": counts.users}

    async def _history(self, session: LiveSession, params: ChannelHistoryParams) -> object:
        found = await session.history(params.channel, params.wishes())
        shown = [shown_record(params.channel, each) for each in found.publications]
        return {"publications": shown, **found.position._asdict()}

    # -- calls

    def _call(
        self,
        method: Callable[[LiveSession, Any], Awaitable[object]],
        connection: Connection,
        request: Any,
    ) -> object:
        work = self._work_of(connection)
        called: Deferred[Any] = Deferred.fromCoroutine(
            method(work.session, request.params)  # type: ignore[arg-type]
        )
        return self._later(work, called, request.reply)

    def _work_of(self, connection: Connection) -> _LiveWork:
        work = self._work.get(connection.id)
        if work is None:
            subscriber = SessionSubscriber(
                connection, self._who(connection), self._new_id(), self._encoding
            )
            work = self._work[connection.id] = _LiveWork(
                self._live.connect(subscriber), connection.id
            )
        return work

    def _later(
        self, work: _LiveWork, called: Deferred[Any], answer: Callable[[Any], object]
    ) -> object:
        work.calls.begin()
        called.addErrback(_refused).addBoth(answer)
        called.addErrback(
            lambda failure: self._log.failure("A session could not be answered", failure)
        )
        called.addBoth(lambda _: self._ended(work))
        return LATER

    def _ended(self, work: _LiveWork) -> None:
        work.calls.end()
        self._settled(work)

    def _settled(self, work: _LiveWork) -> None:
        """Forget a session that has nothing any more."""
        idle = not work.calls.busy and not work.session.subscriptions
        if idle and self._work.get(work.number) is work:
            del self._work[work.number]
            work.session.disconnect()

    # -- connections

    def swept(self) -> Sequence[SweptIndex]:
        """Return where something could be left of sessions."""
        return [SweptIndex("calls", lambda: [list(self._work.values())], _work_left, self._end)]

    def _end(self, work: _LiveWork) -> None:
        self._work.pop(work.number, None)
        work.session.disconnect()

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """End the subscriptions of a connection that receives nothing more."""
        self._leave(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """End the subscriptions of a connection."""
        self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        work = self._work.pop(connection.id, None)
        if work is not None:
            work.session.disconnect()

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for the answers to what a peer that has finished sending has asked for."""
        work = self._work.get(connection.id)
        return None if work is None or not work.calls.busy else work.calls.finish()


def _work_left(work: _LiveWork) -> int | None:
    gone = work.session.ended or not work.session.subscriber.peer.sends
    return work.number if gone else None


def _refused(failure: Failure) -> Failure:
    if isinstance(failure.value, LiveError):
        raise RequestError(error_row(failure.value)) from None
    return failure


def _shown_outcome(outcome: SubscribeOutcome, *, comes_back: bool) -> dict[str, object]:
    shown: dict[str, object] = {"channel": outcome.subscription.channel}
    position: StreamPosition = outcome.position
    if outcome.positioned:
        shown.update(offset=position.offset, epoch=position.epoch)
    if comes_back and outcome.was_recovering:
        shown["recovered"] = outcome.recovered
        if not outcome.recovered and outcome.missed is not None:
            shown["missed"] = outcome.missed.missed
            if not outcome.missed.exact:
                shown["exact"] = False
    return shown


__all__ = ["LiveMethods", "SessionSubscriber", "SessionUser"]
