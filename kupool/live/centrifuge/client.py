"""One client of the Centrifuge protocol, from its first command to its end.

::

    WAITING -- connect --> CONNECTING -- reply --> CONNECTED
       |                       |                       |
       |                       +-- error reply --> REFUSED: nothing is heard any more
       +------- bad input, an expired token, a pong that is late, the transport's end --> CLOSED

Commands are handled in the order in which they arrive, one after the other: a subscribe that reads
a history is over before the unsubscribe that follows it. Calls by ``rpc`` are the exception: their
replies may come in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from kupool.incidents import report
from kupool.live.centrifuge.codes import (
    ACCESS_INVALIDATED,
    BAD_REQUEST,
    CLIENT_TOO_BUSY,
    CLOSE_BAD_REQUEST,
    CLOSE_NOT_AVAILABLE,
    CONNECTION_EXPIRED,
    INSUFFICIENT_STATE,
    INTERNAL,
    INVALID_TOKEN,
    NO_PONG,
    NOT_AVAILABLE,
    POSITION_LOST,
    SLOW,
    STALE,
    TOO_MANY_REQUESTS,
    UNSUBSCRIBED,
    CentrifugeError,
    Disconnect,
)
from kupool.live.centrifuge.encoding import CentrifugeEncoding, shown_client, shown_publication
from kupool.live.centrifuge.messages import (
    PING,
    BadFrame,
    CentrifugeCommand,
    CentrifugeResult,
    ChannelRequest,
    ConnectRequest,
    ConnectResult,
    EmptyResult,
    HistoryRequest,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    PublishRequest,
    RefreshRequest,
    RefreshResult,
    RpcResult,
    SendRequest,
    SubscribeRequest,
    SubscriptionRefreshRequest,
    decode_commands,
    encode_failure,
    encode_reply,
    raw_json,
)
from kupool.live.centrifuge.refusals import (
    ClientDisconnected,
    CommandRefused,
    error_of,
    no_channel,
    refused_connection,
)
from kupool.live.centrifuge.subscriptions import ClientSubscriptions, SubscribeReply
from kupool.live.centrifuge.tokens import (
    ConnectionClaims,
    ExpiredTokenError,
    InvalidTokenError,
)
from kupool.live.centrifuge.world import CentrifugePeer, CentrifugeWorld, RpcFailed
from kupool.live.failures import LiveError
from kupool.live.interfaces import LiveEncoding, LivePeer
from kupool.live.publications import ClientDetails, NewPublication, PublicationGap, StreamPosition
from kupool.live.session import LiveSession
from kupool.live.wishes import HistoryWishes


class CentrifugeState(Enum):
    """How far a client is; see the head of this file."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    CLOSED = "closed"


class ClientIdentity(msgspec.Struct, frozen=True):
    """Who a client is by its transport, such as by a cookie; ``user`` is empty if unknown."""

    user: str = ""
    role: str = "anonymous"


#: How many pings a client that is alive does not leave without an answer.
PINGS = 3


#: A client of whom nothing is known.
UNKNOWN_CLIENT = ClientIdentity()


class Emulation(msgspec.Struct, frozen=True):
    """What a client needs that sends its commands by requests of their own.

    ``session`` is a secret of the client, ``node`` that of this process.
    """

    session: str
    node: str


class CentrifugeClient:
    """A client on a transport; it is the subscriber that the live service knows.

    ``disconnect`` ends the connection, and tells the client the reason. ``emulation`` is for
    transports that only send. With ``pings`` of False, the transport has pings of its own.
    """

    _log = Logger()

    def __init__(
        self,
        world: CentrifugeWorld,
        peer: CentrifugePeer,
        encoding: CentrifugeEncoding,
        disconnect: Callable[[Disconnect], object],
        *,
        identity: ClientIdentity = UNKNOWN_CLIENT,
        emulation: Emulation | None = None,
        pings: bool = True,
    ) -> None:
        self.client_id = world.new_id()
        self.user = identity.user
        self.role = identity.role
        self.connection_info = b""
        self.peer: LivePeer = peer
        self.encoding: LiveEncoding = encoding
        self._peer = peer
        self._disconnect = disconnect
        self.state = CentrifugeState.WAITING
        self._world = world
        self._emulation = emulation
        self._pings = pings and world.settings.ping > 0
        self._waiting: deque[CentrifugeCommand] = deque()
        self._serving: Deferred[None] | None = None
        self._calls: set[Deferred[None]] = set()
        self._session: LiveSession | None = None
        self._subscriptions: ClientSubscriptions | None = None
        self._ponged = True
        #: When something came from the client.
        self._heard = world.clock.seconds()
        self._timer: IDelayedCall | None = world.clock.callLater(
            world.settings.connect_wait, self.close, STALE
        )
        self._handlers: dict[str, Callable[[Any], Awaitable[CentrifugeResult | SubscribeReply]]] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "publish": self._publish,
            "presence": self._presence,
            "presence_stats": self._presence_stats,
            "history": self._history,
            "refresh": self._refresh,
            "sub_refresh": self._sub_refresh,
            "send": self._send,
            "ping": self._ping,
        }

    # -- what comes from the transport

    def receive(self, frame: bytes) -> None:
        """Take a frame of commands."""
        self._heard = self._world.clock.seconds()
        if self.state in (CentrifugeState.REFUSED, CentrifugeState.CLOSED):
            return
        try:
            commands = decode_commands(frame)
        except BadFrame:
            self.close(CLOSE_BAD_REQUEST)
            return
        for command in commands:
            if command.method:
                self._waiting.append(command)
            else:
                self._ponged = True
        if len(self._waiting) > self._world.settings.pending:
            self.close(CLIENT_TOO_BUSY)
        elif self._serving is None and self._waiting:
            self._serve()

    def lost(self) -> None:
        """The transport has ended."""
        if self.state is CentrifugeState.CLOSED:
            return
        self.state = CentrifugeState.CLOSED
        self._waiting.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._subscriptions is not None:
            self._subscriptions.expiries.close()
        if self._session is not None:
            self._session.disconnect()
        for under_way in [self._serving, *self._calls]:
            if under_way is not None:
                under_way.cancel()

    def close(self, reason: Disconnect) -> None:
        """End the connection, and tell the client why."""
        if self.state is not CentrifugeState.CLOSED:
            self.lost()
            self._disconnect(reason)

    # -- commands in their order

    def _serve(self) -> None:
        serving = Deferred.fromCoroutine(self._serve_all())
        if not serving.called:
            self._serving = serving
        serving.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._log.failure("A client of live channels failed", failure)
            self.close(CLOSE_BAD_REQUEST)

    async def _serve_all(self) -> None:
        try:
            while self._waiting and self.state is not CentrifugeState.CLOSED:
                await self._serve_one(self._waiting.popleft())
        finally:
            self._serving = None

    async def _serve_one(self, command: CentrifugeCommand) -> None:
        if command.method == "rpc" and self.state is CentrifugeState.CONNECTED:
            self._call(command)
            return
        connects = command.method == "connect"
        try:
            if connects is not (self.state is CentrifugeState.WAITING):
                raise ClientDisconnected(CLOSE_BAD_REQUEST)
            if connects:
                await self._connect(command)
                return
            answer = await self._handlers[command.method](command.request)
            if command.id:
                self._reply(command, answer)
        except ClientDisconnected as refused:
            self.close(refused.disconnect)
        except (CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            self._refuse(command, self._error_of(command, error))
            if connects:
                self._refused()

    def _reply(self, command: CentrifugeCommand, answer: CentrifugeResult | SubscribeReply) -> None:
        if isinstance(answer, SubscribeReply):
            self._peer.send(encode_reply(command, answer.result))
            answer.start()
        else:
            self._peer.send(encode_reply(command, answer))

    def _error_of(self, command: CentrifugeCommand, error: BaseException) -> CentrifugeError:
        if isinstance(error, CommandRefused):
            return error.error
        if isinstance(error, LiveError):
            return error_of(error)
        text = report(
            self._log, "Command {method} of a live client failed", method=command.method
        ).text
        return INTERNAL._replace(message=text)

    def _refuse(self, command: CentrifugeCommand, error: CentrifugeError) -> None:
        if command.id and self.state is not CentrifugeState.CLOSED:
            self._peer.send(encode_failure(command, error))

    def _refused(self) -> None:
        """Hear nothing any more: the connect had an error as its reply."""
        if self.state is not CentrifugeState.CLOSED:
            self.state = CentrifugeState.REFUSED
            self._waiting.clear()
            # The timer of the first command goes on: it ends a client that does not leave.

    # -- connect

    async def _connect(self, command: CentrifugeCommand) -> None:
        request = command.request
        assert isinstance(request, ConnectRequest)
        self.state = CentrifugeState.CONNECTING
        claims = self._identified(request.token or "")
        subscriptions = ClientSubscriptions(self._world, self._peer, self.user, self.close)
        self._subscriptions = subscriptions
        session = self._world.live.connect(self, permitted=self._world.settings.insecure)
        subscriptions.session = self._session = session
        try:
            answers = await subscriptions.subscribe_all(claims.subscriptions, request.subs or {})
        except BaseException:
            session.disconnect()
            raise
        end = claims.expires_at
        if end:
            subscriptions.expiries.set("", end + self._world.settings.expiry_grace)
        self.state = CentrifugeState.CONNECTED
        self._start_pings()
        settings = self._world.settings
        result = ConnectResult(
            self.client_id,
            settings.version,
            subs={channel: answer.result for channel, answer in answers.items()},
            expires=bool(end),
            ttl=subscriptions.ttl(end) if end else msgspec.UNSET,
            ping=round(settings.ping) if self._pings else 0,
            pong=self._pings and settings.pong_wait > 0,
            session=self._emulation.session if self._emulation else "",
            node=self._emulation.node if self._emulation else "",
        )
        self._peer.send(encode_reply(command, result))
        for answer in answers.values():
            answer.start()

    def _identified(self, token: str) -> ConnectionClaims:
        """Find out who the client is; raises what the reply says."""
        if not token:
            settings = self._world.settings
            if not (self.user or settings.anonymous or settings.insecure):
                raise ClientDisconnected(CLOSE_BAD_REQUEST)
            return ConnectionClaims(self.user, 0.0, b"", {})
        claims = self._checked(token)
        self.user, self.connection_info = claims.user, claims.info
        self.role = self._world.role_of(claims.user)
        return claims._replace(expires_at=0.0) if self._world.settings.insecure else claims

    def _checked(self, token: str) -> ConnectionClaims:
        if self._world.tokens is None:
            raise ClientDisconnected(INVALID_TOKEN)
        try:
            return self._world.tokens.connection(token)
        except (InvalidTokenError, ExpiredTokenError) as error:
            raise refused_connection(error) from None

    # -- pings

    def silent_since(self) -> float | None:
        """Return since when the client has left several pings without an answer, if it has."""
        settings = self._world.settings
        if not (self.connected and self._pings and settings.pong_wait > 0):
            return None
        silence = self._world.clock.seconds() - self._heard
        allowed = PINGS * (settings.ping + settings.pong_wait)
        return self._heard if silence > allowed else None

    def _start_pings(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pings:
            first = self._world.settings.ping * (0.5 + self._world.random.random() / 2)
            self._timer = self._world.clock.callLater(first, self._send_ping)

    def _send_ping(self) -> None:
        settings = self._world.settings
        self._ponged = False
        self._peer.send(PING)
        if 0 < settings.pong_wait < settings.ping:
            self._timer = self._world.clock.callLater(settings.pong_wait, self._look_for_pong)
        else:
            self._timer = self._world.clock.callLater(settings.ping, self._look_for_pong)

    def _look_for_pong(self) -> None:
        settings = self._world.settings
        if not self._ponged and settings.pong_wait > 0:
            self._timer = None
            # The answer may have arrived while this process was paused: read first.
            self._timer = self._world.clock.callLater(0, self._judge)
            return
        wait = max(0.0, settings.ping - settings.pong_wait)
        self._timer = self._world.clock.callLater(wait, self._send_ping)

    def _judge(self) -> None:
        self._timer = None
        if self._ponged:
            self._look_for_pong()
        else:
            self.close(NO_PONG)

    # -- the other commands

    @property
    def _live(self) -> LiveSession:
        assert self._session is not None, "the client is not connected"
        return self._session

    @property
    def connected(self) -> bool:
        """Whether its connect was answered, and it has not ended since."""
        return self.state is CentrifugeState.CONNECTED

    def expire_at(self, end: float) -> None:
        """Have the connection end at a time, in seconds since the epoch; 0 for never."""
        if not self._world.settings.insecure:
            grace = self._world.settings.expiry_grace
            self.subscriptions.expiries.set("", end and end + grace)

    @property
    def subscriptions(self) -> ClientSubscriptions:
        """The subscriptions of a client that is connected."""
        assert self._subscriptions is not None, "the client is not connected"
        return self._subscriptions

    async def _subscribe(self, request: SubscribeRequest) -> SubscribeReply:
        return await self.subscriptions.subscribe(request)

    async def _unsubscribe(self, request: ChannelRequest) -> EmptyResult:
        self.subscriptions.unsubscribe(_channel_of(request.channel))
        return EmptyResult()

    async def _publish(self, request: PublishRequest) -> EmptyResult:
        channel = _channel_of(request.channel)
        if request.type:
            raise CommandRefused(NOT_AVAILABLE)
        data = raw_json(request.data)
        if data is None:
            raise CommandRefused(BAD_REQUEST)
        info = ClientDetails(self.client_id, self.user, self.connection_info)
        await self._live.publish(channel, NewPublication(data=data, info=info))
        return EmptyResult()

    async def _presence(self, request: ChannelRequest) -> PresenceResult:
        found = self._live.presence(_channel_of(request.channel))
        return PresenceResult({details.client_id: shown_client(details) for details in found})

    async def _presence_stats(self, request: ChannelRequest) -> PresenceStatsResult:
        found = self._live.presence_stats(_channel_of(request.channel))
        return PresenceStatsResult(found.clients, found.users)

    async def _history(self, request: HistoryRequest) -> HistoryResult:
        channel, since = _channel_of(request.channel), None
        if request.since is not None:
            since = StreamPosition(max(0, request.since.offset or 0), request.since.epoch or "")
        wishes = HistoryWishes(request.limit or 0, since, bool(request.reverse))
        found = await self._live.history(channel, wishes)
        return HistoryResult(
            [shown_publication(record) for record in found.publications],
            found.position.epoch,
            found.position.offset,
        )

    async def _refresh(self, request: RefreshRequest) -> RefreshResult:
        if self._world.tokens is None:
            raise ClientDisconnected(INVALID_TOKEN)
        try:
            claims = self._world.tokens.connection(request.token or "")
        except ExpiredTokenError:
            raise ClientDisconnected(CONNECTION_EXPIRED) from None
        except InvalidTokenError:
            raise ClientDisconnected(INVALID_TOKEN) from None
        if claims.user != self.user:
            raise ClientDisconnected(INVALID_TOKEN)
        end = claims.expires_at
        self.subscriptions.expiries.set("", end and end + self._world.settings.expiry_grace)
        return RefreshResult(
            self.client_id,
            self._world.settings.version,
            expires=bool(end),
            ttl=self.subscriptions.ttl(end) if end else msgspec.UNSET,
        )

    async def _sub_refresh(self, request: SubscriptionRefreshRequest) -> RefreshResult:
        return self.subscriptions.refresh(request)

    async def _send(self, request: SendRequest) -> EmptyResult:
        raise ClientDisconnected(CLOSE_NOT_AVAILABLE)

    async def _ping(self, request: object) -> EmptyResult:
        return EmptyResult()

    # -- calls

    def _call(self, command: CentrifugeCommand) -> None:
        if len(self._calls) >= self._world.settings.calls:
            self._refuse(command, TOO_MANY_REQUESTS)
            return
        calling = Deferred.fromCoroutine(self._called(command))
        if not calling.called:
            self._calls.add(calling)
        calling.addErrback(lambda failure: failure.trap(CancelledError))
        calling.addBoth(lambda _: self._calls.discard(calling))

    async def _called(self, command: CentrifugeCommand) -> None:
        request: Any = command.request
        data = raw_json(request.data) or b"{}"
        try:
            result = await self._world.call(self, request.method or "", data)
        except (CancelledError, GeneratorExit):
            raise
        except RpcFailed as error:
            self._refuse(command, CentrifugeError(error.code, str(error)))
        except BaseException as error:
            self._refuse(command, self._error_of(command, error))
        else:
            if result is None:
                self._refuse(command, NOT_AVAILABLE)
            elif self.state is CentrifugeState.CONNECTED:
                self._peer.send(encode_reply(command, RpcResult(msgspec.Raw(result))))

    # -- what the service says

    def gap(self, channel: str, gap: PublicationGap) -> None:
        """Tell the client what it missed."""
        self.subscriptions.gap(channel, gap)

    def unsubscribed(self, channel: str, reason: str) -> None:
        """Tell the client that a subscription has ended."""
        if reason == "insufficient":
            self.subscriptions.ended(channel, POSITION_LOST, INSUFFICIENT_STATE)
        elif reason == "forbidden":
            self.subscriptions.ended(channel, ACCESS_INVALIDATED, None)
        else:
            self.subscriptions.ended(channel, UNSUBSCRIBED, None)

    def too_slow(self, channel: str) -> None:
        """Close the connection of a client that does not read."""
        self.close(SLOW)


def _channel_of(name: str | None) -> str:
    if not name:
        raise no_channel()
    return name


__all__ = ["UNKNOWN_CLIENT", "CentrifugeClient", "CentrifugeState", "ClientIdentity", "Emulation"]
