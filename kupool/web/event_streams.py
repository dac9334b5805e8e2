"""The route ``/events``: several live channels as one stream of server-sent events."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from kupool.errors import GOING_DOWN, TRY_AGAIN, CloseReason
from kupool.kinds import parse_duration
from kupool.live.event_stream import (
    COMMENT,
    EVENT_STREAM,
    FIRST,
    EventStreamEncoding,
    EventStreamReader,
    decode_positions,
    end_of_stream,
)
from kupool.live.failures import LiveError, NotAvailable
from kupool.live.params import DeliveryParams, position_of
from kupool.live.publications import StreamPosition
from kupool.live.service import LiveService
from kupool.live.session import LiveSession
from kupool.live.sweep import SweptIndex
from kupool.live.wishes import SubscribeWishes
from kupool.net.interfaces import IClosingObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.transport.protocols import FramedProtocol, prepare, refuse
from kupool.session.connection import Connection
from kupool.web.access import NOBODY, WebAccess
from kupool.web.answers import HANDED_OVER, ApiError, JsonAnswer, header
from kupool.web.cors import CrossOrigin
from kupool.web.leftovers import swept_connections
from kupool.web.upgrade import HandsOver, Origins, stream_head
from kupool.wire.messages import describe

#: The path of the route.
EVENTS_PATH = "/events"

#: The HTTP status of the errors of live channels; that of others is 400.
_STATUS = {"unknown_channel": 404, "permission_denied": 403, "history_unavailable": 503}

#: The params that may be given once, and those that may be repeated.
_SINGLE = ("from", "last_event_id", "policy", "queue", "max_rate", "min_priority", "tags")
_SEVERAL = ("channel", "devices", "types")

_AGO = re.compile(r"\s*(\S+)\s+ago\s*")


class StreamRequest(NamedTuple):
    """What a stream shows: the channels, from which positions, and how."""

    user: str
    role: str
    channels: Sequence[str]
    wishes: SubscribeWishes
    positions: Mapping[str, StreamPosition]


class _StreamProtocol(FramedProtocol):
    """The reader of a stream, from the head of the response on; ``host`` is its address."""

    framing = EVENT_STREAM

    def __init__(
        self, manager: ConnectionManager, host: str, begin: Callable[[Connection], object]
    ) -> None:
        super().__init__(manager)
        self._admitting = manager
        self._host = host
        self._begin = begin

    def connectionMade(self) -> None:
        """Admit the reader, or tell it why it is refused."""
        transport, _ = prepare(self)
        refusal = self._admitting.refusal(self._host)
        transport.write(FIRST)
        if refusal is not None:
            refuse(self._admitting, transport, self.framing, refusal)
            return
        self.connection = self._admitting.admit(transport, self._host, self.framing)
        if self.connection is not None:
            self._begin(self.connection)


class _Unread:
    """Hears nothing: readers of a stream do not send."""

    def dispatch(self, connection: Connection, item: object) -> None:
        """Drop what a reader sends."""


@implementer(IClosingObserver)
class EventStreams:
    """The streams of the live channels, which share the limits of connections.

    ``wall`` returns seconds since the epoch, ``new_id`` an id that nobody can guess. A comment is
    sent every ``heartbeat`` seconds. After ``lifetime`` seconds a reader has to come back; 0 is
    never.
    """

    _log = Logger()

    def __init__(
        self,
        live: LiveService,
        clock: Any,
        wall: Callable[[], float],
        new_id: Callable[[], str],
        *,
        heartbeat: float,
        limits: ServerSettings,
        lifetime: float = 0.0,
    ) -> None:
        self.live = live
        self.wall = wall
        self.manager = ConnectionManager(clock, self, limits)
        self.manager.close_message = end_of_stream
        self._new_id = new_id
        self._encoding = EventStreamEncoding()
        self._router = _Unread()
        self._heartbeat = heartbeat
        self._lifetime = lifetime
        self._beats = LoopingCall(self._beat)
        self._beats.clock = clock

    def __len__(self) -> int:
        """Return the number of streams."""
        return len(self.manager)

    def start(self) -> None:
        """Start to check the timeouts, and to send comments."""
        self.manager.start()
        self._beats.start(self._heartbeat, now=False).addErrback(
            lambda failure: self._log.failure("Streams get no comments any more", failure)
        )

    def stop(self) -> Deferred[None]:
        """End all streams; fires when that has been sent."""
        if self._beats.running:
            self._beats.stop()
        self.manager.stop()
        return self.manager.close_all(GOING_DOWN)

    def route(self, access: WebAccess, origins: Collection[str]) -> EventStreamRoute:
        """Return the route; pages of the ``origins`` may use it, besides those of this server."""
        refusals = self.manager.refusals
        pages = Origins(origins, access.hosts, setting="--ws-origins", refusals=refusals)
        return EventStreamRoute(self, access, pages)

    def protocol(self, asked: StreamRequest, host: str) -> FramedProtocol:
        """Return the protocol of a stream to a reader at an address."""

        def begin(connection: Connection) -> None:
            connection.expect_within(self._lifetime, TRY_AGAIN)
            who = (asked.user, asked.role)
            reader = EventStreamReader(connection, who, self._new_id(), self._encoding)
            reader.read(self.live, asked.channels, asked.wishes, asked.positions)

        return _StreamProtocol(self.manager, host, begin)

    def _beat(self) -> None:
        for connection in list(self.manager):
            if connection.sends and not connection.congested:
                connection.send_encoded(COMMENT)

    def swept(self) -> Sequence[SweptIndex]:
        """Return where something could be left of readers."""
        return [swept_connections("streams", self.manager)]

    # -- the observer of the connections

    def opened(self, connection: Connection) -> None:
        """Hear nothing of the reader."""
        connection.router = self._router

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """End the subscriptions with the close."""
        self._lost(connection)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """End the subscriptions of a connection that has ended."""
        self._lost(connection)

    def settle(self, connection: Connection) -> None:
        """Do nothing: nobody waits for an answer after the end."""

    def _lost(self, connection: Connection) -> None:
        session = connection.context
        if isinstance(session, LiveSession):
            session.disconnect()


class EventStreamRoute(HandsOver):
    """Hands the connection of a request to a stream."""

    def __init__(self, streams: EventStreams, access: WebAccess, origins: Origins) -> None:
        super().__init__({b"GET": self._begin, b"OPTIONS": self._allow})
        self._streams = streams
        self._access = access
        self._pages = CrossOrigin(origins)

    def render(self, request: Any) -> int:
        """Answer a request, which may come from a page of another site."""
        self._pages.admit(request)
        return super().render(request)

    async def _allow(self, request: Request) -> JsonAnswer:
        return self._pages.preflight(request, [b"GET"])

    async def _begin(self, request: Any) -> object:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        asked = await self._asked(request)
        if request.method == b"HEAD" or gone:
            return {}
        head = stream_head(request, b"text/event-stream; charset=utf-8")
        self.hand_over(request, head, self._streams.protocol(asked, self._access.peer(request)))
        return HANDED_OVER

    async def _asked(self, request: Any) -> StreamRequest:
        """Return what is asked for; raises :class:`ApiError`."""
        self._access.hosts.require(request)
        self._pages.origins.require(request)
        identity = await self._access.authorize(request, EVENTS_PATH)
        given = _given(request.args or {})
        channels = list(dict.fromkeys(given.pop("channel", ())))
        live = self._streams.live
        if not 0 < len(channels) <= live.limits.channels_per_client:
            most = live.limits.channels_per_client
            raise ApiError(400, f"channel: give 1 to {most} channels, as /events?channel=pool")
        begin = given.pop("from", "")
        last = header(request, b"last-event-id") or given.pop("last_event_id", "")
        given.pop("last_event_id", None)
        try:
            for channel in channels:
                live.require_subscribable(identity.user, identity.role, channel)
            wishes = _wishes(given)
            positions = dict(decode_positions(last)) if last else {}
            if begin and not last:
                positions = await self._positions(channels, begin)
        except LiveError as error:
            status = _STATUS.get(error.name, 400)
            if status == 403 and identity is NOBODY:
                raise ApiError(401, f"{error}: log in first") from None
            raise ApiError(status, str(error)) from None
        return StreamRequest(identity.user, identity.role, channels, wishes, positions)

    async def _positions(self, channels: Sequence[str], begin: str) -> dict[str, StreamPosition]:
        """Return where the channels begin that have a history; raises :class:`ApiError`."""
        if begin.isascii() and begin.isdigit() and len(begin) < 20:
            position = position_of(int(begin), "")
            return dict.fromkeys(channels, position)
        time = moment(begin, self._streams.wall())
        found = {}
        for channel in channels:
            try:
                found[channel] = await self._streams.live.position_at(channel, time)
            except NotAvailable:
                pass  # it has no history
        return found


def moment(text: str, now: float) -> float:
    """Return the seconds since the epoch of a time such as ``1h ago`` or ``2026-11-21T10:05:00Z``.

    Raises :class:`ApiError`.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return max(0.0, now - parse_duration(ago[1]))
        # In a query, the plus sign of an offset has become a space.
        found = datetime.fromisoformat(re.sub(r" (\d\d:\d\d)$", r"+\1", text))
        if found.tzinfo is None:
            raise ValueError("a time without its offset from UTC")
        return max(0.0, found.timestamp())
    except (ValueError, OverflowError):
        raise ApiError(
            400, "from: must be an offset, a time as 2026-11-21T10:05:00Z, or as '1h ago'"
        ) from None


def _given(arguments: Mapping[bytes, Sequence[bytes]]) -> dict[str, Any]:
    """Return the params of a query; raises :class:`ApiError`."""
    given: dict[str, Any] = {}
    for raw, values in arguments.items():
        try:
            name, texts = raw.decode(), [value.decode() for value in values]
        except ValueError:
            raise ApiError(400, "query: is not UTF-8") from None
        if name in _SEVERAL:
            given[name] = texts
        elif name not in _SINGLE:
            known = ", ".join((*_SEVERAL, *_SINGLE))
            raise ApiError(400, f"{name:.40}: unknown parameter, expected {known}")
        elif len(texts) != 1:
            raise ApiError(400, f"{name}: given more than once")
        else:
            given[name] = texts[0]
    return given


def filter_of(text: str) -> Any:
    """Return a filter of tags, which is JSON; raises :class:`ApiError`."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"tags: must be a filter as JSON: {error}") from None


def _wishes(given: dict[str, Any]) -> SubscribeWishes:
    """Return how a reader wants to be served; raises :class:`ApiError` and ``LiveError``."""
    try:
        if "tags" in given:
            given["tags"] = filter_of(given["tags"])
        params = msgspec.convert(given, DeliveryParams, strict=False)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, describe(error)) from None
    return params.wishes(positioned=True, recoverable=True, partial=True, in_reply=1)


__all__ = [
    "EVENTS_PATH",
    "EventStreamRoute",
    "EventStreams",
    "StreamRequest",
    "filter_of",
    "moment",
]
