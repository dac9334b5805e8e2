"""The bus's requests and replies, as docs/protocol.md, section 5, names them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import msgspec

from kupool.bus.calls import CallVerdict, Response
from kupool.bus.inbox import MAX_REASON, MAX_STATUS, UNSENDABLE
from kupool.bus.messages import Kind, Message, Model, Outcome
from kupool.bus.status import BusStatus, SubscriberStatus, TopicStatus
from kupool.errors import (
    FORBIDDEN,
    INTERNAL_ERROR,
    NO_SUBSCRIBER,
    NOT_FOUND,
    TIMEOUT,
    ErrorText,
)
from kupool.wire.incoming import ServerMessage

#: What is left out of a ``call``; msgspec knows a default by its identity.
NO_TIMEOUT = 0.0


class Body(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Bytes in JSON: as text where they are that, else in base64 and marked so."""

    data: str = ""
    base64: bool = False


class PublishParams(Body, kw_only=True):
    """Params of ``bus.publish``; ``message`` is an id to know the message by."""

    topic: str | int
    model: Model
    timeout_ms: float | None = None
    key: str = ""
    headers: dict[str, str] = {}
    message: str = ""
    redelivered: bool = False


class SubscribeParams(msgspec.Struct, omit_defaults=True):
    """Params of ``bus.subscribe``; a connection may have subscribers of several names."""

    topics: list[str | int]
    subscriber: str = ""
    keys: list[str] = []


class UnsubscribeParams(msgspec.Struct, omit_defaults=True):
    """Params of ``bus.unsubscribe``; without topics it is all of them."""

    topics: list[str | int] | None = None
    subscriber: str = ""


class WatchParams(msgspec.Struct):
    """Params of ``bus.watch``: whose subscribers."""

    topic: str | int


class UnwatchParams(msgspec.Struct):
    """Params of ``bus.unwatch``."""

    topic: str | int


class Watched(msgspec.Struct):
    """Result of ``bus.watch``: for how long the watch holds, and who watches counts as there."""

    valid_ms: float


class MemberEntry(msgspec.Struct, omit_defaults=True):
    """A subscriber in a notification ``members``."""

    subscriber: str
    keys: list[str] = []


class MembersParams(msgspec.Struct, omit_defaults=True):
    """Params of the notification ``members``: who has come and gone.

    Where ``known`` is False nobody is known any more. With ``more`` another one follows at once.
    """

    topic: str
    came: list[MemberEntry] = []
    gone: list[str] = []
    known: bool = True
    more: bool = False


class StatusParams(msgspec.Struct):
    """Params of ``bus.status``: from which entry on."""

    start: int = 0


class TraceParams(msgspec.Struct):
    """Params of ``bus.trace``."""

    message: str


class CallParams(Body, kw_only=True):
    """Params of the server's request ``call``; unreliable messages have no id."""

    topic: str
    message: str
    model: Model
    subscriber: str = ""
    timeout_ms: float = NO_TIMEOUT
    key: str = ""
    headers: dict[str, str] = {}
    redelivered: bool = False


class Subscribed(msgspec.Struct):
    """Result of ``bus.subscribe``: the subscriber's id and all its topics."""

    subscriber: str
    topics: list[str]


class Published(Body, kw_only=True):
    """Result of ``bus.publish``, but for ``timeout`` and ``no subscriber``: errors."""

    outcome: Kind
    status: int = 0
    reason: str = ""
    subscriber: str = ""
    receivers: int = 0


class AnswerBody(Body, kw_only=True):
    """Result of ``call``."""

    status: int = 0


class StatusPage(msgspec.Struct):
    """Result of ``bus.status``: what fits a message; ``next`` is where to go on."""

    calls: int
    calls_bytes: int
    counts: dict[str, int]
    topics: list[TopicStatus]
    subscribers: list[SubscriberStatus]
    next: int | None = None


_decode_answer = msgspec.json.Decoder(AnswerBody | str | bool | None).decode

#: The bytes of entries that a page of a status may have, as JSON.
PAGE = 40_000


def encode_data(data: bytes) -> tuple[str, bool]:
    """Return bytes as text, or in base64 where that is no text or would be longer; and which.

    They are ``data`` and ``base64`` of a :class:`Body`.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode(), True
    if len(msgspec.json.encode(text)) > 4 + len(data) * 4 // 3:
        return b64encode(data).decode(), True
    return text, False


def decode_data(body: Body) -> bytes:
    """Return the bytes of a body; raises :class:`ValueError`."""
    if not body.base64:
        return body.data.encode()
    try:
        return b64decode(body.data, validate=True)
    except ValueError as error:
        raise ValueError(f"data: {error}") from None


def call_params(message: Message, subscriber: str) -> CallParams:
    """Return the params that bring a message to a subscriber."""
    text, base64 = encode_data(message.data)
    return CallParams(
        data=text,
        base64=base64,
        topic=message.topic,
        message=message.id,
        model=message.model,
        subscriber=subscriber,
        timeout_ms=round(message.timeout * 1000, 3) if message.timeout else NO_TIMEOUT,
        key=message.key,
        headers=dict(message.headers),
        redelivered=message.redelivered,
    )


def called_message(params: CallParams) -> Message:
    """Return the message that a ``call`` brings; raises :class:`ValueError`."""
    return Message(
        params.message,
        params.topic,
        decode_data(params),
        params.model,
        params.headers,
        params.key,
        params.timeout_ms / 1000,
        params.redelivered,
    )


def published(outcome: Outcome) -> Published | ErrorText:
    """Return what ``bus.publish`` is answered with."""
    if outcome.kind is Kind.TIMEOUT:
        return TIMEOUT
    if outcome.kind is Kind.NO_SUBSCRIBER:
        return NO_SUBSCRIBER
    text, base64 = encode_data(outcome.data)
    return Published(
        data=text,
        base64=base64,
        outcome=outcome.kind,
        status=outcome.status,
        reason=outcome.reason,
        subscriber=outcome.subscriber,
        receivers=outcome.receivers,
    )


def read_outcome(reply: ServerMessage) -> Outcome:
    """Return the outcome that a reply to ``bus.publish`` tells."""
    if reply.error is not None:
        kinds = {TIMEOUT.code: Kind.TIMEOUT, NO_SUBSCRIBER.code: Kind.NO_SUBSCRIBER}
        kind = kinds.get(reply.code or 0)
        return Outcome(Kind.REFUSED, reason=reply.error) if kind is None else Outcome(kind)
    try:
        found = msgspec.json.decode(reply.result, type=Published)
        data = decode_data(found)
    except ValueError as error:
        return Outcome(Kind.REFUSED, reason=f"an answer that cannot be read: {error}")
    return Outcome(
        found.outcome, data, found.status, found.reason, found.subscriber, found.receivers
    )


def response_result(response: Response) -> AnswerBody | ErrorText:
    """Return what a ``call`` is answered with."""
    if response.verdict is CallVerdict.ANSWER:
        text, base64 = encode_data(response.data)
        return AnswerBody(data=text, base64=base64, status=response.status)
    if response.verdict is CallVerdict.NOT_MINE:
        return NOT_FOUND.about("not mine")
    if response.verdict is CallVerdict.REFUSE:
        return FORBIDDEN.about(response.text)
    return ErrorText(INTERNAL_ERROR.code, response.text)


def read_response(reply: ServerMessage) -> Response:
    """Return what a reply to a ``call`` says.

    A result of text is an answer too, ``true`` and null are an empty one.
    """
    if reply.error is not None:
        if reply.code == NOT_FOUND.code:
            return Response(CallVerdict.NOT_MINE)
        if reply.code == FORBIDDEN.code:
            reason = reply.error.removeprefix(f"{FORBIDDEN.text}: ")
            return Response(CallVerdict.REFUSE, text=reason[:MAX_REASON])
        return Response(CallVerdict.FAILED, text=reply.error[:MAX_REASON])
    try:
        found: Any = _decode_answer(reply.result)
        if isinstance(found, AnswerBody):
            if not -MAX_STATUS <= found.status <= MAX_STATUS:
                return Response(CallVerdict.FAILED, text=UNSENDABLE)
            return Response(CallVerdict.ANSWER, decode_data(found), found.status)
    except ValueError as error:
        return Response(CallVerdict.FAILED, text=f"an answer that cannot be read: {error}")
    if found is False:
        return Response(CallVerdict.FAILED, text="an answer that cannot be read: false")
    return Response(CallVerdict.ANSWER, found.encode() if isinstance(found, str) else b"")


def status_page(status: BusStatus, start: int) -> StatusPage:
    """Return the part of a status from an entry on that fits a message."""
    page = StatusPage(status.calls, status.calls_bytes, status.counts, [], [])
    entries: list[TopicStatus | SubscriberStatus] = [*status.topics, *status.subscribers]
    left = PAGE
    for n in range(max(0, start), len(entries)):
        entry = entries[n]
        left -= len(msgspec.json.encode(entry))
        if left < 0 and (page.topics or page.subscribers):
            page.next = n
            break
        if isinstance(entry, TopicStatus):
            page.topics.append(entry)
        else:
            page.subscribers.append(entry)
    return page
