"""The server API: what an application may do with all channels and clients, over HTTP.

::

    POST /api/publish {"channel": "news", "data": {"n": 1}}
        {"result": {"offset": 7, "epoch": "4d1f.."}}
    POST /api/disconnect {"user": "alice"}
        {"result": {}}                     also where alice has no client
    POST /api/publish {"channel": "news"}
        {"error": {"code": 107, "message": "bad request: data is missing"}}

The application is trusted: no permission limits it, only the rules of the channels do. Clients are
those of the Centrifuge protocol; subscriptions of others, such as sessions of the pool, can be
ended, and not begun.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from kupool.incidents import report
from kupool.live.centrifuge.api_batch import BatchRun
from kupool.live.centrifuge.api_messages import (
    ApiAnswer,
    ApiBatch,
    ApiBroadcast,
    ApiBroadcasted,
    ApiChannelInfo,
    ApiChannels,
    ApiChannelsFound,
    ApiDisconnect,
    ApiInfo,
    ApiNode,
    ApiNodes,
    ApiPublish,
    ApiPublished,
    ApiRefresh,
    ApiRefusal,
    ApiReplies,
    ApiSubscribe,
    ApiUnsubscribe,
    bad_request,
)
from kupool.live.centrifuge.client import CentrifugeClient
from kupool.live.centrifuge.codes import (
    CONNECTION_EXPIRED,
    FORCE_DISCONNECT,
    INTERNAL,
    LIMIT_EXCEEDED,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    CentrifugeError,
    Disconnect,
)
from kupool.live.centrifuge.encoding import shown_client, shown_publication
from kupool.live.centrifuge.messages import (
    ChannelRequest,
    EmptyResult,
    HistoryRequest,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    raw_json,
)
from kupool.live.centrifuge.refusals import CommandRefused, error_of
from kupool.live.centrifuge.tokens import OVERRIDES
from kupool.live.centrifuge.world import CentrifugeWorld
from kupool.live.failures import AlreadySubscribed, LiveError, SubscriptionCancelled
from kupool.live.publications import NewPublication, StreamPosition
from kupool.live.session import LiveSession
from kupool.live.wishes import HistoryWishes
from kupool.timing.chunks import Breaks

#: Methods of other servers of the protocol that this one does not have.
ABSENT_METHODS = (
    "connections",
    "update_user_status",
    "get_user_status",
    "delete_user_status",
    "block_user",
    "unblock_user",
    "revoke_token",
    "invalidate_user_tokens",
    "device_register",
    "device_update",
    "device_remove",
    "device_list",
    "device_topic_list",
    "device_topic_update",
    "user_topic_list",
    "user_topic_update",
    "send_push_notification",
    "update_push_status",
    "cancel_push",
)

#: The codes with which an application may disconnect: those of the protocol, and its own.
_CODES = range(3000, 5000)


class NodeIdentity(NamedTuple):
    """What this node is called, and since when it runs, on the clock of the world."""

    uid: str
    name: str
    since: float


@dataclass(frozen=True)
class ApiLimits:
    """A broadcast has at most ``calls`` channels, and a batch as many commands; its answer has
    about ``answer`` bytes.
    """

    calls: int = 1000
    answer: int = 32 * 1024 * 1024


class ServerApi:
    """Does what applications ask for."""

    _log = Logger()

    def __init__(self, world: CentrifugeWorld, node: NodeIdentity, limits: ApiLimits) -> None:
        self._world = world
        self._node = node
        self._limits = limits
        #: The errors by method and code; logged at once, then once a minute.
        self.refusals = world.refusals
        self._methods: Mapping[str, tuple[type, Callable[[Any], Awaitable[object]]]] = {
            "publish": (ApiPublish, self._publish),
            "broadcast": (ApiBroadcast, self._broadcast),
            "subscribe": (ApiSubscribe, self._subscribe),
            "unsubscribe": (ApiUnsubscribe, self._unsubscribe),
            "disconnect": (ApiDisconnect, self._disconnect),
            "refresh": (ApiRefresh, self._refresh),
            "presence": (ChannelRequest, self._presence),
            "presence_stats": (ChannelRequest, self._presence_stats),
            "history": (HistoryRequest, self._history),
            "history_remove": (ChannelRequest, self._history_remove),
            "channels": (ApiChannels, self._channels),
            "info": (ApiInfo, self._info),
        }

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of all methods."""
        return (*self._methods, "batch")

    async def answer(self, method: str, body: bytes) -> object:
        """Return the answer to a request, which can be encoded as JSON."""
        if method != "batch":
            return await self._answer(method, body or b"{}")
        try:
            return await self._batch(_decoded(body or b"{}", ApiBatch))
        except CommandRefused as refused:
            return self._refusal(method, refused.error)

    def stop(self) -> None:
        """Log the refusals that are not logged yet."""
        self.refusals.stop()

    async def _answer(self, method: str, body: bytes) -> ApiAnswer:
        try:
            if method in ABSENT_METHODS:
                raise CommandRefused(NOT_AVAILABLE)
            if method not in self._methods:
                raise CommandRefused(METHOD_NOT_FOUND)
            form, call = self._methods[method]
            return ApiAnswer(await call(_decoded(body, form)))
        except (CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # including SystemExit
            return self._refusal(method, self._error(method, error))

    def _error(self, method: str, error: BaseException) -> CentrifugeError:
        """Return what the application is told of an error; reports one that nobody expects."""
        if isinstance(error, CommandRefused):
            return error.error
        if isinstance(error, LiveError):
            return error_of(error)
        told = report(self._log, "Request {method} of an application failed", method=method)
        return INTERNAL._replace(message=told.text)

    def _refusal(self, method: str, error: CentrifugeError) -> ApiAnswer:
        known = method if method in (*self.methods, *ABSENT_METHODS) else "unknown method"
        self.refusals.note(f"server API, {known}, error {error.code}")
        return ApiAnswer(error=ApiRefusal(error.code, error.message))

    async def _batch(self, request: ApiBatch) -> ApiReplies:
        commands = request.commands or []
        self._check_count("commands", len(commands))
        for number, command in enumerate(commands):
            if len(command) != 1:
                raise bad_request(f"command {number} has {len(command)} methods, expected one")
        calls = [(method, bytes(body)) for command in commands for method, body in command.items()]
        run = BatchRun(self._world.clock, self._answer, self._refusal, most=self._limits.answer)
        return ApiReplies(await run.replies(calls, parallel=bool(request.parallel)))

    def _check_count(self, what: str, count: int) -> None:
        most = self._limits.calls
        if count > most:
            text = f"{LIMIT_EXCEEDED.message}: {count} {what}, {most} are accepted"
            raise CommandRefused(LIMIT_EXCEEDED._replace(message=text))

    # -- publishing

    async def _publish(self, request: ApiPublish) -> ApiPublished:
        channel = _channel_of(request.channel)
        self._check_history(channel, request.skip_history)
        return await self._published(channel, request.publication())

    async def _broadcast(self, request: ApiBroadcast) -> ApiBroadcasted:
        channels = request.channels or []
        if not channels:
            raise bad_request("channels is missing")
        self._check_count("channels", len(channels))
        publication, breaks = request.publication(), Breaks(self._world.clock)
        answers = []
        for channel in channels:
            await breaks.take()
            answers.append(await self._one_of(channel, request, publication))
        return ApiBroadcasted(answers)

    async def _one_of(
        self, channel: str, request: ApiBroadcast, publication: NewPublication
    ) -> ApiAnswer:
        try:
            self._check_history(_channel_of(channel), request.skip_history)
            return ApiAnswer(await self._published(channel, publication))
        except (CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # the other channels have their publication all the same
            return self._refusal("broadcast", self._error("broadcast", error))

    def _check_history(self, channel: str, skip: bool | None) -> None:
        """Refuse to publish past the history of a channel that has one."""
        if skip and self._world.live.keeps_history(channel):
            raise CommandRefused(
                NOT_AVAILABLE._replace(
                    message=f"{NOT_AVAILABLE.message}: channel {channel} keeps all publications, "
                    "so skip_history has to be left out"
                )
            )

    async def _published(self, channel: str, publication: NewPublication) -> ApiPublished:
        live = self._world.live
        record = await live.publish(channel, publication)
        if record.replaced:
            return ApiPublished(replaced=True)
        if not live.keeps_history(channel):
            return ApiPublished()
        try:
            end = (await live.history(channel, HistoryWishes())).position
        except LiveError:
            # It is published: after an error the application would publish it again.
            return ApiPublished(record.offset)
        return ApiPublished(record.offset, end.epoch)

    # -- the clients of a user

    def _sessions(self, request: Any) -> Iterator[LiveSession]:
        """Return the sessions that a request is about."""
        if request.user is None:
            raise bad_request("user is missing")
        wanted = request.client
        return (
            each
            for each in self._world.live.sessions_of(request.user)
            if not wanted or each.subscriber.client_id == wanted
        )

    def _clients(self, request: Any) -> list[CentrifugeClient]:
        found = [each.subscriber for each in self._sessions(request)]
        return [each for each in found if isinstance(each, CentrifugeClient) and each.connected]

    async def _subscribe(self, request: ApiSubscribe) -> EmptyResult:
        channel, granted = _channel_of(request.channel), request.granted()
        unknown = [name for name in granted.override if name not in OVERRIDES]
        if unknown:
            raise bad_request(f"override: {unknown[0]} is none of {', '.join(OVERRIDES)}")
        self._world.live.keeps_history(channel)  # or there is no such channel
        end, refusal = float(request.expire_at or 0), None
        for client in self._clients(request):
            try:
                await client.subscriptions.add(channel, granted, end, request.since())
            except (AlreadySubscribed, SubscriptionCancelled):
                continue  # nothing to do; or it has gone, or unsubscribed, meanwhile
            except LiveError as error:
                refusal = refusal or error  # such as too many channels: others may have fewer
        if refusal is not None:
            raise refusal
        return EmptyResult()

    async def _unsubscribe(self, request: ApiUnsubscribe) -> EmptyResult:
        for session in list(self._sessions(request)):
            channels = [request.channel] if request.channel else []
            for channel in channels or [each.channel for each in session.subscriptions]:
                session.end(channel, "server")
        return EmptyResult()

    async def _disconnect(self, request: ApiDisconnect) -> EmptyResult:
        reason, given = FORCE_DISCONNECT, request.disconnect
        if given is not None and given.code:
            if given.code not in _CODES:
                raise bad_request(f"disconnect: code {given.code} is not from 3000 to 4999")
            # A frame that closes a WebSocket has room for so many bytes.
            text = given.reason.encode()[:120].decode(errors="ignore")
            reason = Disconnect(given.code, text)
        kept = request.whitelist or ()
        for client in self._clients(request):
            if client.client_id not in kept:
                client.close(reason)
        return EmptyResult()

    async def _refresh(self, request: ApiRefresh) -> EmptyResult:
        if raw_json(request.info) is not None:
            text = f"{NOT_AVAILABLE.message}: the info of a connection does not change"
            raise CommandRefused(NOT_AVAILABLE._replace(message=text))
        for client in self._clients(request):
            if request.expired:
                client.close(CONNECTION_EXPIRED)
            else:
                client.expire_at(float(request.expire_at or 0))
        return EmptyResult()

    # -- channels

    async def _presence(self, request: ChannelRequest) -> PresenceResult:
        present = self._world.live.presence(_channel_of(request.channel))
        return PresenceResult({each.client_id: shown_client(each) for each in present})

    async def _presence_stats(self, request: ChannelRequest) -> PresenceStatsResult:
        counts = self._world.live.presence_stats(_channel_of(request.channel))
        return PresenceStatsResult(counts.clients, counts.users)

    async def _history(self, request: HistoryRequest) -> HistoryResult:
        since = request.since
        wishes = HistoryWishes(
            request.limit or 0,
            None if since is None else StreamPosition(max(0, since.offset or 0), since.epoch or ""),
            bool(request.reverse),
        )
        found = await self._world.live.history(_channel_of(request.channel), wishes)
        shown = [shown_publication(each) for each in found.publications]
        return HistoryResult(shown, found.position.epoch, found.position.offset)

    async def _history_remove(self, request: ChannelRequest) -> EmptyResult:
        await self._world.live.history_remove(_channel_of(request.channel))
        return EmptyResult()

    async def _channels(self, request: ApiChannels) -> ApiChannelsFound:
        found = self._world.live.channels(request.pattern or "")
        return ApiChannelsFound({each.name: ApiChannelInfo(each.clients) for each in found})

    async def _info(self, request: ApiInfo) -> ApiNodes:
        live, node = self._world.live, self._node
        channels = live.channels()
        shown = ApiNode(
            node.uid,
            node.name,
            self._world.settings.version,
            live.clients,
            live.users,
            sum(each.clients for each in channels),
            len(channels),
            max(0, int(self._world.clock.seconds() - node.since)),
        )
        return ApiNodes([shown])


def _decoded(body: bytes, form: type) -> Any:
    try:
        return msgspec.json.decode(body, type=form)
    except (ValueError, RecursionError) as error:
        raise bad_request(str(error)) from None


def _channel_of(name: str | None) -> str:
    if not name:
        raise bad_request("channel is missing")
    return name


__all__ = ["ABSENT_METHODS", "ApiLimits", "NodeIdentity", "ServerApi"]
