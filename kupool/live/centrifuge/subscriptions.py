"""The subscriptions of one client of the Centrifuge protocol.

A client subscribes by a command, or the server subscribes it. The two differ in their end: a
subscription of its own ends by a push, and the client may subscribe again; one of the server ends
with the connection, and is there again after a reconnect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
from twisted.internet.defer import Deferred

from kupool.live.centrifuge.codes import (
    ACCESS_EXPIRED,
    BAD_REQUEST,
    CONNECTION_EXPIRED,
    INSUFFICIENT_STATE,
    INVALID_TOKEN,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    POSITION_LOST,
    SUBSCRIPTION_EXPIRED,
    UNRECOVERABLE_POSITION,
    UNSUBSCRIBED,
    Disconnect,
    SubscriptionEnd,
)
from kupool.live.centrifuge.encoding import optional_json, shown_publication
from kupool.live.centrifuge.expiry import TokenExpiries
from kupool.live.centrifuge.messages import (
    RecoveryRequest,
    RefreshResult,
    SubscribeRequest,
    SubscribeResult,
    SubscriptionRefreshRequest,
    encode_message,
    encode_publication,
    encode_subscribe,
    encode_unsubscribe,
    raw_json,
)
from kupool.live.centrifuge.refusals import (
    ClientDisconnected,
    CommandRefused,
    no_channel,
    refused_subscription,
)
from kupool.live.centrifuge.tokens import (
    ExpiredTokenError,
    InvalidTokenError,
    ServerSubscription,
)
from kupool.live.centrifuge.world import CentrifugePeer, CentrifugeWorld
from kupool.live.publications import PublicationGap, StreamPosition
from kupool.live.session import LiveSession
from kupool.live.wishes import SubscribeOutcome, SubscribeWishes

#: A channel whose name begins so needs a token.
PRIVATE = "$"

#: The flag of a client that wants an error instead of a subscription that was not recovered.
_ERROR_IF_UNRECOVERED = 2

_NO_TOKEN = ServerSubscription()


class _HeldChannel(NamedTuple):
    """A subscription: whether the server made it, and whether the client has a position in it."""

    by_server: bool
    positioned: bool


class SubscribeReply(NamedTuple):
    """The result of subscribing, and what to call once the reply is sent."""

    result: SubscribeResult
    start: Callable[[], None]


class ClientSubscriptions:
    """Subscribes one client, and ends its subscriptions.

    ``user`` is whose tokens are valid. ``close`` ends the connection.
    """

    def __init__(
        self,
        world: CentrifugeWorld,
        peer: CentrifugePeer,
        user: str,
        close: Callable[[Disconnect], object],
    ) -> None:
        self._world = world
        self._peer = peer
        self._user = user
        self._close = close
        self._held: dict[str, _HeldChannel] = {}
        self.expiries = TokenExpiries(world.clock, world.wall, self._expired)
        #: Set once the client is connected.
        self.session: LiveSession | None = None

    @property
    def _live(self) -> LiveSession:
        assert self.session is not None, "the client is not connected"
        return self.session

    # -- by commands

    async def subscribe(self, request: SubscribeRequest) -> SubscribeReply:
        """Subscribe as a command asks; raises what the reply says."""
        channel = request.channel or ""
        if not channel:
            raise no_channel()
        if request.type:
            raise CommandRefused(NOT_AVAILABLE)
        if raw_json(request.tf) is not None:
            raise CommandRefused(BAD_REQUEST)
        granted, expires_at = self._granted(channel, request.token or "")
        recover = None
        if request.recover:
            recover = StreamPosition(max(0, request.offset or 0), request.epoch or "")
        wishes = SubscribeWishes(
            positioned=bool(request.positioned),
            recoverable=bool(request.recoverable),
            join_leave=bool(request.join_leave),
            recover=recover,
            permitted=granted is not None,
        )
        answer = await self._subscribe(
            channel, wishes, granted or _NO_TOKEN, expires_at, by_server=False
        )
        lost = answer.result.was_recovering and not answer.result.recovered
        if lost and (request.flag or 0) & _ERROR_IF_UNRECOVERED:
            self.unsubscribe(channel)
            raise CommandRefused(UNRECOVERABLE_POSITION)
        return answer

    def _granted(self, channel: str, token: str) -> tuple[ServerSubscription | None, float]:
        """Return what a token grants for a channel, and until when; None without a token."""
        if not token:
            if channel.startswith(PRIVATE):
                raise CommandRefused(PERMISSION_DENIED)
            return None, 0.0
        if self._world.tokens is None:
            raise CommandRefused(PERMISSION_DENIED)
        try:
            claims = self._world.tokens.channel(token, channel, self._user)
        except (InvalidTokenError, ExpiredTokenError) as error:
            raise refused_subscription(error) from None
        return claims.subscription, claims.expires_at

    async def _subscribe(
        self,
        channel: str,
        wishes: SubscribeWishes,
        granted: ServerSubscription,
        expires_at: float,
        *,
        by_server: bool,
    ) -> SubscribeReply:
        override = granted.override
        wishes = msgspec.structs.replace(
            wishes,
            channel_info=granted.info,
            force_recovery=override.get("force_recovery"),
            force_positions=override.get("force_positioning"),
            push_join_leave=override.get("force_push_join_leave"),
            emit_presence=override.get("presence"),
            emit_join_leave=override.get("join_leave"),
        )
        outcome = await self._live.subscribe(channel, wishes)
        self._held[channel] = _HeldChannel(by_server, outcome.positioned)
        if expires_at:
            self.expiries.set(channel, expires_at + self._world.settings.expiry_grace)
        return SubscribeReply(
            self._result(outcome, granted, expires_at), outcome.subscription.start
        )

    def _result(
        self, outcome: SubscribeOutcome, granted: ServerSubscription, expires_at: float
    ) -> SubscribeResult:
        has_position = outcome.positioned
        return SubscribeResult(
            expires=bool(expires_at),
            ttl=self.ttl(expires_at) if expires_at else msgspec.UNSET,
            recoverable=outcome.recoverable,
            epoch=outcome.position.epoch if has_position else "",
            publications=tuple(map(shown_publication, outcome.publications)),
            recovered=outcome.recovered,
            offset=outcome.position.offset if has_position else 0,
            positioned=has_position,
            data=optional_json(granted.data),
            was_recovering=outcome.was_recovering,
        )

    def ttl(self, expires_at: float) -> int:
        """Return the seconds until a time, rounded up, and at least 1."""
        return max(1, -int(-(expires_at - self._world.wall()) // 1))

    def unsubscribe(self, channel: str) -> None:
        """Unsubscribe; does nothing if the client is not subscribed."""
        self._held.pop(channel, None)
        self.expiries.forget(channel)
        self._live.unsubscribe(channel)

    def refresh(self, request: SubscriptionRefreshRequest) -> RefreshResult:
        """Let a new token extend a subscription; raises what the reply says."""
        channel = request.channel or ""
        if not channel:
            raise no_channel()
        if request.type:
            raise CommandRefused(NOT_AVAILABLE)
        if channel not in self._held:
            raise CommandRefused(PERMISSION_DENIED)
        if self._world.tokens is None:
            raise ClientDisconnected(INVALID_TOKEN)
        try:
            claims = self._world.tokens.channel(request.token or "", channel, self._user)
        except ExpiredTokenError:
            self._end(channel, ACCESS_EXPIRED)
            return RefreshResult()
        except InvalidTokenError:
            raise ClientDisconnected(INVALID_TOKEN) from None
        end = claims.expires_at
        self.expiries.set(channel, end and end + self._world.settings.expiry_grace)
        return RefreshResult(expires=bool(end), ttl=self.ttl(end) if end else msgspec.UNSET)

    # -- by the server

    async def subscribe_all(
        self,
        granted: Mapping[str, ServerSubscription],
        positions: Mapping[str, RecoveryRequest | None],
    ) -> dict[str, SubscribeReply]:
        """Subscribe to the channels of a connection token; raises what the reply says."""
        answers = {}
        for channel, one in granted.items():
            wishes = self._server_wishes(positions.get(channel))
            answers[channel] = await self._subscribe(channel, wishes, one, 0.0, by_server=True)
        return answers

    def _server_wishes(self, position: RecoveryRequest | None) -> SubscribeWishes:
        recover = None
        if position is not None and position.recover:
            recover = StreamPosition(max(0, position.offset or 0), position.epoch or "")
        return SubscribeWishes(positioned=True, recoverable=True, recover=recover, permitted=True)

    def add(
        self,
        channel: str,
        granted: ServerSubscription,
        expires_at: float,
        since: StreamPosition | None = None,
    ) -> Deferred[None]:
        """Subscribe the client to a channel by the server; fires when it was told.

        With ``since`` it gets what was published behind that position. Fails as
        :meth:`LiveSession.subscribe` does.
        """
        return Deferred.fromCoroutine(self._add(channel, granted, expires_at, since))

    async def _add(
        self,
        channel: str,
        granted: ServerSubscription,
        expires_at: float,
        since: StreamPosition | None,
    ) -> None:
        asked = None
        if since is not None:
            asked = RecoveryRequest(recover=True, offset=since.offset, epoch=since.epoch)
        answer = await self._subscribe(
            channel, self._server_wishes(asked), granted, expires_at, by_server=True
        )
        self._peer.send(encode_subscribe(channel, answer.result))
        for publication in answer.result.publications:
            self._peer.send(encode_publication(channel, publication))
        answer.start()

    # -- what the service says

    def gap(self, channel: str, gap: PublicationGap) -> None:
        """Tell the client that it missed something.

        A client that has a position subscribes again, and recovers. To others the protocol has no
        words: they get a message that says how much.
        """
        held = self._held.get(channel)
        if held is not None and held.positioned:
            self.lose(channel)
            return
        told = {"channel": channel, "missed": gap.missed, "from": gap.first, "to": gap.last}
        self._peer.send(encode_message(msgspec.json.encode({"gap": told})))

    def lose(self, channel: str) -> None:
        """End a subscription whose position is lost."""
        self._end(channel, POSITION_LOST, INSUFFICIENT_STATE)

    def ended(self, channel: str, end: SubscriptionEnd, otherwise: Disconnect | None) -> None:
        """Note that the service has ended a subscription, and tell the client.

        ``otherwise`` closes the connection if the server has subscribed the client.
        """
        held = self._held.pop(channel, None)
        self.expiries.forget(channel)
        if held is None:
            return
        if held.by_server and otherwise is not None:
            self._close(otherwise)
        else:
            self._peer.send(encode_unsubscribe(channel, end))

    def _end(self, channel: str, end: SubscriptionEnd, otherwise: Disconnect | None = None) -> None:
        self._live.unsubscribe(channel)
        self.ended(channel, end, otherwise)

    def remove(self, channel: str) -> None:
        """End a subscription, as the server wants it to."""
        self._end(channel, UNSUBSCRIBED)

    def channels(self) -> list[str]:
        """Return the channels that the client is subscribed to."""
        return list(self._held)

    def _expired(self, channel: str) -> None:
        if not channel:
            self._close(CONNECTION_EXPIRED)
        else:
            self._end(channel, ACCESS_EXPIRED, SUBSCRIPTION_EXPIRED)


__all__ = ["PRIVATE", "ClientSubscriptions", "SubscribeReply"]
