"""Live channels as server-sent events: one stream of several channels, and the ids of its events.

An id holds a position for each channel that has positions: ``NAME:OFFSET:EPOCH,...``. A reader that
sends the last id it has got goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, unquote

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import SLOW_READER, CloseReason
from kupool.live.failures import InvalidWish, LiveError
from kupool.live.interfaces import LiveEncoding
from kupool.live.params import position_of
from kupool.live.publications import (
    ClientDetails,
    PublicationGap,
    PublishedRecord,
    StreamPosition,
)
from kupool.live.service import LiveService
from kupool.live.shown import GAP, UNSUBSCRIBED, error_row, shown_gap, shown_record
from kupool.live.wishes import SubscribeOutcome, SubscribeWishes
from kupool.session.connection import Connection
from kupool.session.outbox import EventPolicy
from kupool.session.waiting import SpaceWaiter
from kupool.wire.framing import Discarding, Framing

#: Milliseconds after which a browser connects again.
RETRY = 2000

#: What comes first: some readers and proxies pass nothing on before they have this much.
FIRST = b"retry: %d\n:%b\n\n" % (RETRY, b" " * 2048)

#: What is sent now and then, so that nobody takes the stream for dead.
COMMENT = b":\n\n"

#: The types of events besides publications, which have none.
ERROR = "error"
CLOSE = "close"


def _as_it_is(payload: bytes) -> bytes:
    return payload


#: The bytes of a stream are its events; nothing is read from the peer.
EVENT_STREAM = Framing("event-stream", Discarding, _as_it_is, b"".join)


def encode_event(kind: str, value: object) -> bytes:
    """Return an event of a type, without an id; its data is JSON."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(value))


def end_of_stream(framing: Framing, reason: CloseReason, retry_after: float | None = None) -> bytes:
    """Return the event that tells the reader why the stream ends."""
    told = {"code": reason.code, "reason": reason.reason, "reconnect": reason.reconnect}
    return encode_event(CLOSE, told)


def encode_positions(positions: Mapping[str, StreamPosition]) -> str:
    """Return the id of an event."""
    return ",".join(
        f"{quote(name, safe='')}:{position.offset}:{position.epoch}"
        for name, position in positions.items()
    )


def decode_positions(text: str) -> dict[str, StreamPosition]:
    """Return the positions in an id; raises :class:`InvalidWish`."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition(":")
        offset, _, epoch = rest.partition(":")
        if not offset.isascii() or not offset.isdigit() or len(offset) > 19:
            raise InvalidWish("Last-Event-ID: this is no id of this server")
        found[unquote(name)] = position_of(int(offset), epoch)
    return found


class EventStreamEncoding:
    """Encodes publications as events that lack their id; all streams share one object.

    What comes before the first NUL is the channel and its offset, for the id.
    """

    def publication(self, channel: str, record: PublishedRecord) -> bytes:
        """Return the event of a publication."""
        shown = msgspec.json.encode(shown_record(channel, record))
        return b"%b:%d\0data: %b\n\n" % (channel.encode(), record.offset, shown)

    def join(self, channel: str, details: ClientDetails) -> bytes:
        """Return nothing: streams do not ask who comes."""
        return b""

    def leave(self, channel: str, details: ClientDetails) -> bytes:
        """Return nothing: streams do not ask who goes."""
        return b""


class EventStreamPeer:
    """A connection that gets the events of a stream with their ids."""

    framing = EVENT_STREAM

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        #: How far the reader is in each channel that has positions.
        self.positions: dict[str, StreamPosition] = {}

    @property
    def sends(self) -> bool:
        """Whether data sent now goes to the reader."""
        return self.connection.sends

    @property
    def congested(self) -> bool:
        """Whether data sent now has to wait."""
        return self.connection.congested

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send an event with its id; an event without a channel has none."""
        place, nul, event = data.partition(b"\0")
        if not nul:
            self.connection.send_encoded(data)
            return
        channel, _, offset = place.decode().rpartition(":")
        position = self.positions.get(channel)
        if position is not None:
            self.positions[channel] = position._replace(offset=int(offset))
        self.connection.send_encoded(self._id() + event)

    def _id(self) -> bytes:
        return b"id: %b\n" % encode_positions(self.positions).encode() if self.positions else b""

    def place(self, channel: str, position: StreamPosition) -> None:
        """Note the position of a subscription that begins."""
        self.positions[channel] = position

    def send_place(self) -> None:
        """Send the positions alone, which is no event to the reader."""
        if self.positions:
            self.connection.send_encoded(self._id() + b"\n")

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send an event that replaces an unsent one of the same key."""
        self.connection.send_latest(key, encoded)

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        """Send an event that may be dropped; returns whether it was kept."""
        return self.connection.send_event(encoded, policy, limit)

    def wait_for_space(self, waiter: SpaceWaiter) -> None:
        """Call the waiter when there is space again."""
        self.connection.wait_for_space(waiter)

    def stop_waiting(self, waiter: SpaceWaiter) -> None:
        """Call the waiter no more."""
        self.connection.stop_waiting(waiter)


class EventStreamReader:
    """The reader of a stream, as the live service knows it."""

    connection_info = b""

    _log = Logger()

    def __init__(
        self, connection: Connection, who: tuple[str, str], client_id: str, encoding: LiveEncoding
    ) -> None:
        self.user, self.role = who
        self.client_id = client_id
        self.encoding = encoding
        self.peer = EventStreamPeer(connection)

    def read(
        self,
        live: LiveService,
        channels: Sequence[str],
        wishes: SubscribeWishes,
        positions: Mapping[str, StreamPosition],
    ) -> Deferred[None]:
        """Subscribe to the channels, each from its position; never fails.

        The session is in the context of the connection, whose end has to end it.
        """
        reading = Deferred.fromCoroutine(self._read(live, channels, wishes, positions))
        return reading.addErrback(self._failed)

    async def _read(
        self,
        live: LiveService,
        channels: Sequence[str],
        wishes: SubscribeWishes,
        positions: Mapping[str, StreamPosition],
    ) -> None:
        session = self.peer.connection.context = live.connect(self)
        begun = []
        for channel in channels:
            since = positions.get(channel) or live.newest_position(channel)
            asked = msgspec.structs.replace(wishes, recover=since)
            outcome = await session.subscribe(channel, asked)
            if outcome.positioned:
                self.peer.place(channel, outcome.position)
            begun.append(outcome)
        self.peer.send_place()
        for outcome in begun:
            self._begin(outcome, comes_back=outcome.subscription.channel in positions)

    def _begin(self, outcome: SubscribeOutcome, *, comes_back: bool) -> None:
        channel = outcome.subscription.channel
        if comes_back and outcome.was_recovering and not outcome.recovered:
            missed = outcome.missed
            shown: dict[str, object] = {"channel": channel, "missed": None, "reason": "history"}
            if missed is not None:
                shown["missed"] = missed.missed
                if not missed.exact:
                    shown["exact"] = False
            self._send(GAP, shown)
        for record in outcome.publications:
            self.peer.send_encoded(self.encoding.publication(channel, record))
        outcome.subscription.start()

    def _failed(self, failure: Failure) -> None:
        """Tell the reader why the stream ends, which may come again."""
        error = failure.value
        if isinstance(error, LiveError):
            row = error_row(error)
            self._send(ERROR, {"error": row.text, "code": row.code})
        else:
            self._log.failure("A stream could not begin", failure)
        self.peer.connection.close(None)

    def gap(self, channel: str, gap: PublicationGap) -> None:
        """Tell the reader what it missed."""
        self._send(GAP, shown_gap(channel, gap))

    def unsubscribed(self, channel: str, reason: str) -> None:
        """Tell the reader that a channel has ended; if it can go on, it has to come again."""
        self.peer.positions.pop(channel, None) if reason != "insufficient" else None
        self._send(UNSUBSCRIBED, {"channel": channel, "reason": reason})
        if reason == "insufficient" or not self.peer.connection.context.subscriptions:
            self.peer.connection.close(None)

    def too_slow(self, channel: str) -> None:
        """Close the connection."""
        self.peer.connection.close(SLOW_READER.about(f"channel {channel}"))

    def _send(self, kind: str, value: object) -> None:
        if self.peer.sends:
            self.peer.connection.send_encoded(encode_event(kind, value))


__all__ = [
    "COMMENT",
    "EVENT_STREAM",
    "FIRST",
    "RETRY",
    "EventStreamEncoding",
    "EventStreamPeer",
    "EventStreamReader",
    "decode_positions",
    "encode_event",
    "encode_positions",
    "end_of_stream",
]
