"""The requests and replies of the bus on a connection; see docs/protocol.md, section 5."""

from __future__ import annotations

from base64 import b64decode, b64encode

import msgspec

from kupool.bus.calls import CallVerdict, Response
from kupool.bus.inbox import MAX_REASON, MAX_STATUS, UNSENDABLE
from kupool.bus.messages import Kind, Message, Model, Outcome, with_values
from kupool.bus.status import BusStatus, SubscriberStatus, TopicStatus
from kupool.errors import (
    FORBIDDEN,
    INTERNAL_ERROR,
    NO_SUBSCRIBER,
    NOT_FOUND,
    TIMEOUT,
    ErrorText,
)
from kupool.wire.incoming import ServerMessage, decode_incoming
from kupool.wire.messages import RequestId, encode_error, encode_result

#: As attributes of their classes, members of enumerations take fifteen times as long.
_ANSWERED, _ANSWER = Kind.ANSWERED, CallVerdict.ANSWER


class Body(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """Bytes in JSON: as text if they are text, else in base64 with ``base64`` set."""

    data: str = ""
    base64: bool = False


class PublishParams(Body, kw_only=True):
    """Params of ``bus.publish``; ``message`` is the publisher's own id of the message."""

    topic: str | int
    model: Model
    timeout_ms: float | None = None
    key: str = ""
    headers: dict[str, str] = {}
    message: str = ""
    redelivered: bool = False


class SubscribeParams(msgspec.Struct, omit_defaults=True):
    """Params of ``bus.subscribe``; a connection may have several subscribers, each with a name."""

    topics: list[str | int]
    subscriber: str = ""
    keys: list[str] = []


class UnsubscribeParams(msgspec.Struct, omit_defaults=True):
    """Params of ``bus.unsubscribe``; without topics it ends all of them."""

    topics: list[str | int] | None = None
    subscriber: str = ""


class WatchParams(msgspec.Struct):
    """Params of ``bus.watch``: the topic whose subscribers are watched."""

    topic: str | int


class UnwatchParams(msgspec.Struct):
    """Params of ``bus.unwatch``."""

    topic: str | int


class Watched(msgspec.Struct):
    """Result of ``bus.watch``: for how many milliseconds the watch lasts.

    For that long, the subscribers of the session certainly count as members everywhere.
    """

    valid_ms: float


class MemberEntry(msgspec.Struct, omit_defaults=True):
    """A subscriber in the notification ``members``."""

    subscriber: str
    keys: list[str] = []


class MembersParams(msgspec.Struct, omit_defaults=True):
    """Params of the notification ``members``: who subscribed and who is gone.

    If ``known`` is False, the members are unknown from now on. With ``more``, another notification
    follows at once.
    """

    topic: str
    came: list[MemberEntry] = []
    gone: list[str] = []
    known: bool = True
    more: bool = False


class StatusParams(msgspec.Struct):
    """Params of ``bus.status``: the first entry to return."""

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
    timeout_ms: float = 0.0
    key: str = ""
    headers: dict[str, str] = {}
    redelivered: bool = False


class Subscribed(msgspec.Struct):
    """Result of ``bus.subscribe``: the subscriber's id and all its topics."""

    subscriber: str
    topics: list[str]


class Published(Body, kw_only=True):
    """Result of ``bus.publish``; the outcomes ``timeout`` and ``no subscriber`` are errors
    instead.
    """

    outcome: Kind
    status: int = 0
    reason: str = ""
    subscriber: str = ""
    receivers: int = 0


class AnswerBody(Body, kw_only=True):
    """Result of ``call``."""

    status: int = 0


class StatusPage(msgspec.Struct):
    """Result of ``bus.status``: as much as fits a message; ``next`` is where the next page
    starts.
    """

    calls: int
    calls_bytes: int
    counts: dict[str, int]
    topics: list[TopicStatus]
    subscribers: list[SubscriberStatus]
    next: int | None = None


class _BusRequest(msgspec.Struct, gc=False):
    """A request as JSON, made in one step."""

    id: int | str | None
    method: str
    params: Body


class _CallReply(msgspec.Struct, gc=False):
    """The usual form of a reply to ``call``, decoded in one step; :class:`ServerMessage` covers all
    forms.
    """

    id: RequestId = None
    method: str | None = None
    result: AnswerBody | str | bool | None = None
    error: str | None = None
    code: int | None = None


_decode_call = msgspec.json.Decoder(CallParams).decode
_decode_call_reply = msgspec.json.Decoder(_CallReply).decode
_decode_answer = msgspec.json.Decoder(AnswerBody | str | bool | None).decode
_decode_published = msgspec.json.Decoder(Published).decode
_encode = msgspec.json.Encoder().encode

#: The size limit of the entries in one page of a status, as JSON.
PAGE = 40_000


def encode_data(data: bytes) -> tuple[str, bool]:
    """Return bytes as text, or as base64 if they are not text or base64 is shorter; and which it
    is.

    The two values are ``data`` and ``base64`` of a :class:`Body`.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode(), True
    if len(_encode(text)) > 4 + len(data) * 4 // 3:
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


def encode_publish(
    request_id: int, message: Message, timeout: float, *, redelivered: bool
) -> bytes:
    """Return the request that publishes a message; ``timeout`` is in seconds, and counts only if
    the message is reliable.
    """
    text, base64 = encode_data(message.data)
    params = PublishParams(
        data=text,
        base64=base64,
        topic=message.topic,
        model=message.model,
        timeout_ms=timeout * 1000 if message.model.reliable else None,
        key=message.key,
        headers=dict(message.headers),
        message=message.id,
        redelivered=redelivered,
    )
    return _encode(_BusRequest(request_id, "bus.publish", params))


def encode_call(request_id: str | None, message: Message, subscriber: str) -> bytes:
    """Return the request that delivers a message to a subscriber."""
    message_id, topic, data, model, headers, key, timeout, redelivered = message
    text, base64 = encode_data(data)
    params = CallParams(
        data=text,
        base64=base64,
        topic=topic,
        message=message_id,
        model=model,
        subscriber=subscriber,
        key=key,
        headers=dict(headers),
        redelivered=redelivered,
    )
    if timeout:  # a field is left out only if it is the very object of its default
        # Rounded to three digits, in a third of the time of round().
        params.timeout_ms = int(timeout * 1_000_000 + 0.5) / 1000
    return _encode(_BusRequest(request_id, "call", params))


def read_call(params: bytes) -> tuple[str, Message]:
    """Return the subscriber's name and the message in a ``call``; raises :class:`ValueError`."""
    call = _decode_call(params)
    data = decode_data(call) if call.base64 else call.data.encode()
    time_limit, again = call.timeout_ms / 1000, call.redelivered
    values = call.message, call.topic, data, call.model, call.headers, call.key, time_limit, again
    return call.subscriber, with_values(Message, values)


def encode_outcome(request_id: RequestId, outcome: Outcome) -> bytes:
    """Return the reply to ``bus.publish``."""
    kind, data, status, reason, subscriber, receivers = outcome
    if kind is not _ANSWERED:
        if kind is Kind.TIMEOUT:
            return encode_error(request_id, TIMEOUT)
        if kind is Kind.NO_SUBSCRIBER:
            return encode_error(request_id, NO_SUBSCRIBER)
    text, base64 = encode_data(data)
    result = Published(
        data=text,
        base64=base64,
        outcome=kind,
        status=status,
        reason=reason,
        subscriber=subscriber,
        receivers=receivers,
    )
    return encode_result(request_id, result)


def read_outcome(reply: ServerMessage) -> Outcome:
    """Return the outcome in a reply to ``bus.publish``."""
    if reply.error is not None:
        kinds: dict[int | None, Kind] = {
            TIMEOUT.code: Kind.TIMEOUT,
            NO_SUBSCRIBER.code: Kind.NO_SUBSCRIBER,
        }
        kind = kinds.get(reply.code)
        return Outcome(Kind.REFUSED, reason=reply.error) if kind is None else Outcome(kind)
    try:
        found = _decode_published(reply.result)
        data = decode_data(found) if found.base64 else found.data.encode()
    except ValueError as error:
        return Outcome(Kind.REFUSED, reason=f"an answer that cannot be read: {error}")
    values = (found.outcome, data, found.status, found.reason, found.subscriber, found.receivers)
    return with_values(Outcome, values)


def response_result(response: Response) -> AnswerBody | ErrorText:
    """Return the result for a ``call``."""
    if response.verdict is _ANSWER:
        text, base64 = encode_data(response.data)
        return AnswerBody(data=text, base64=base64, status=response.status)
    if response.verdict is CallVerdict.NOT_MINE:
        return NOT_FOUND.about("not mine")
    if response.verdict is CallVerdict.REFUSE:
        return FORBIDDEN.about(response.text)
    return ErrorText(INTERNAL_ERROR.code, response.text)


def read_reply(payload: bytes) -> tuple[str, Response] | None:
    """Return the id of a reply to a ``call`` and its response; None for any other message.

    A text result is an answer too; ``true`` and null are an empty answer.
    """
    try:
        reply = _decode_call_reply(payload)
    except (ValueError, RecursionError):
        return _read_misfit(payload)
    call = reply.id
    if reply.method is not None or type(call) is not str:
        return None
    if reply.error is not None:
        return call, _complaint(reply.error, reply.code)
    result = reply.result
    if type(result) is AnswerBody and not result.status and not result.base64:
        return call, with_values(Response, (_ANSWER, result.data.encode(), 0, ""))  # as most are
    return call, _answer(result)


def _read_misfit(payload: bytes) -> tuple[str, Response] | None:
    """As :func:`read_reply`, for a reply whose result may not be a valid answer."""
    try:
        reply = decode_incoming(payload)
    except (ValueError, RecursionError):
        return None
    if reply.method is not None or not isinstance(reply.id, str):
        return None
    if reply.error is not None:
        return reply.id, _complaint(reply.error, reply.code)
    try:
        found = _decode_answer(reply.result)
    except ValueError as error:
        return reply.id, _unreadable(error)
    return reply.id, _answer(found)


def _complaint(error: str, code: int | None) -> Response:
    if code == NOT_FOUND.code:
        return Response(CallVerdict.NOT_MINE)
    if code == FORBIDDEN.code:
        reason = error.removeprefix(f"{FORBIDDEN.text}: ")
        return Response(CallVerdict.REFUSE, text=reason[:MAX_REASON])
    return Response(CallVerdict.FAILED, text=error[:MAX_REASON])


def _answer(found: AnswerBody | str | bool | None) -> Response:
    if isinstance(found, AnswerBody):
        if not -MAX_STATUS <= found.status <= MAX_STATUS:
            return Response(CallVerdict.FAILED, text=UNSENDABLE)
        try:
            return Response(_ANSWER, decode_data(found), found.status)
        except ValueError as error:
            return _unreadable(error)
    if found is False:
        return _unreadable("false")
    return Response(CallVerdict.ANSWER, found.encode() if isinstance(found, str) else b"")


def _unreadable(why: object) -> Response:
    return Response(CallVerdict.FAILED, text=f"an answer that cannot be read: {why}")


def status_page(status: BusStatus, start: int) -> StatusPage:
    """Return the page of a status from an entry on that fits a message."""
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
