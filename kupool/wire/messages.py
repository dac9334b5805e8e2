"""The JSON messages of docs/protocol.md, section 2: requests, replies, notifications.

Requests are decoded in one step into a typed struct, chosen by their ``method``. A message
that does not fit is decoded a second time, leniently, so that its answer can carry its id.
Only such messages are decoded twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Union, cast

import msgspec

from kupool.errors import CLOSE_REASONS, ERRORS, CloseReason, ErrorText, close_text
from kupool.wire.framing import FRAME, OP_CLOSE, Framing, encode_frame
from kupool.wire.websocket import WEBSOCKET, WEBSOCKET_BINARY, encode_websocket_close

#: Ids longer than this, in UTF-8 bytes, are not accepted.
MAX_ID_BYTES = 64

_VALIDATION = re.compile(r"(?P<problem>.*?)(?: - at `\$(?:\.params)?\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field (?P<name>.*)")

RequestId = int | str | None

_encode = msgspec.json.Encoder().encode


class TypedRequest(msgspec.Struct, gc=False, kw_only=True, tag_field="method"):
    """The base of all requests; ``id`` is None in a notification.

    There is one subclass per method, with ``params``, made by :func:`request_type`.
    """

    id: RequestId = None


class AuthorizeParams(msgspec.Struct, gc=False):
    """Params of ``authorize``."""

    username: str
    password: str | None = None


class SubmitParams(msgspec.Struct, gc=False):
    """Params of ``submit``: the hash is over the job's nonce and ``client_nonce``."""

    job_id: int
    client_nonce: str
    result: str


class JobParams(msgspec.Struct, gc=False):
    """Params of the notification ``job``."""

    job_id: int
    server_nonce: str


_WEBSOCKETS = frozenset((WEBSOCKET.name, WEBSOCKET_BINARY.name))


class CloseParams(msgspec.Struct, gc=False, omit_defaults=True):
    """Params of the notification ``close``.

    ``retry_after`` is in seconds; ``detail`` says what exactly was wrong.
    """

    reason: str
    code: int
    reconnect: bool
    retry_after: float | None = None
    detail: str = ""


class Reply(msgspec.Struct, gc=False):
    """A reply, as a client decodes it: ``error`` is None on success."""

    id: RequestId
    result: Any = None
    error: str | None = None
    code: int | None = None


class Loose(NamedTuple):
    """What a lenient decode found in a message that fits no type.

    ``known_id`` is False if the id could not be read; then ``id`` being None does not mean
    null.
    """

    id: RequestId
    known_id: bool
    method: object
    params: object


def request_type(method: str, params: type | None) -> type[TypedRequest]:
    """Make the struct of a method whose ``params`` have the given type.

    With ``params`` None the method takes no params: any that are sent are ignored, like
    unknown keys, and the request's ``params`` is None. If the type allows null, as
    ``object`` and ``X | None`` do, ``params`` may be left out, and are then None.
    """
    fields: list[Any] = []
    if params is not None:
        fields = [("params", params, None) if _fits_null(params) else ("params", params)]
    made = msgspec.defstruct(
        f"Request_{method}",
        fields,
        bases=(TypedRequest,),
        namespace={"params": None} if params is None else None,
        tag_field="method",
        tag=method,
        gc=False,
    )
    return cast(type[TypedRequest], made)


def _fits_null(params: type) -> bool:
    try:
        msgspec.convert(None, params)
    except msgspec.ValidationError:
        return False
    return True


def request_decoder(types: Mapping[str, type[TypedRequest]]) -> msgspec.json.Decoder[Any]:
    """Return one decoder for the requests of all given methods."""
    return msgspec.json.Decoder(Union[tuple(types.values())])  # noqa: UP007


def split_username(username: str) -> tuple[str, str]:
    """Return user and worker: the part after the last ``.`` is the worker.

    If either part would be empty, the whole name is the user's.
    """
    user, _, worker = username.rpartition(".")
    return (user, worker) if user and worker else (username, "")


def valid_id(value: object) -> bool:
    """Return whether ``value`` is a valid request id."""
    if isinstance(value, str):
        return len(value.encode()) <= MAX_ID_BYTES
    return isinstance(value, int) and not isinstance(value, bool)


def decode_loosely(payload: bytes) -> Loose | None:
    """Decode leniently a message that did not fit; None if it is not JSON."""
    try:
        message = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    found = message.get("id")
    known = found is None or valid_id(found)
    return Loose(found if known else None, known, message.get("method"), message.get("params"))


def describe(error: Exception, name: str = "") -> str:
    """Return what was wrong with a request's params, naming the parameter.

    ``error`` is that of msgspec. ``name`` is the parameter, if only that one was converted.
    """
    found = _VALIDATION.fullmatch(str(error))
    assert found is not None  # it matches every text
    problem, path = found["problem"].replace("`", ""), found["path"] or ""
    if name:
        path = f"{name}{'.' if path and path[0] != '[' else ''}{path}"
    missing = _MISSING.fullmatch(problem)
    if missing is not None:
        return f"{path + '.' if path else ''}{missing['name']} is required"
    return f"{path or 'params'}: {problem[0].lower()}{problem[1:]}"


def encode_id(message_id: RequestId) -> bytes:
    """Return an id as JSON; integers of any size are returned as they were sent."""
    if isinstance(message_id, int):
        return b"%d" % message_id
    return _encode(message_id)


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: lone surrogates are escaped.

    Python makes such surrogates of some file names, for example.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def encode_success(message_id: RequestId) -> bytes:
    """Return ``{"id":X,"result":true}``."""
    if type(message_id) is int:
        return b'{"id":%d,"result":true}' % message_id
    return b'{"id":%b,"result":true}' % encode_id(message_id)


def encode_result(message_id: RequestId, result: object) -> bytes:
    """Return the reply that carries ``result``."""
    if result is True:
        return encode_success(message_id)
    if type(message_id) is int:
        return b'{"id":%d,"result":%b}' % (message_id, _encode(result))
    return b'{"id":%b,"result":%b}' % (encode_id(message_id), _encode(result))


def _error_fields(error: ErrorText) -> bytes:
    """Return the part after the id of a reply with an error."""
    return b'"result":false,"error":%b,"code":%d}' % (
        msgspec.json.encode(encodable(error.text)),
        error.code,
    )


#: The same, cached for the unchanged rows of the table, which are most errors.
_TABLE = {error: _error_fields(error) for error in ERRORS}


def encode_error(message_id: RequestId, error: ErrorText) -> bytes:
    """Return the reply with a row of the error table; never fails, whatever the text."""
    fields = _TABLE.get(error) or _error_fields(error)
    if type(message_id) is int:
        return b'{"id":%d,%b' % (message_id, fields)
    return b'{"id":%b,%b' % (encode_id(message_id), fields)


def encode_request(message_id: RequestId, method: str, params: object) -> bytes:
    """Return a request; with ``message_id`` None it is a notification."""
    return b'{"id":%b,"method":%b,"params":%b}' % (
        encode_id(message_id),
        _encode(method),
        _encode(params),
    )


def encode_close(reason: CloseReason, retry_after: float | None = None) -> bytes:
    """Return the notification that announces a close in ``int32`` and ``line``."""
    params = CloseParams(
        encodable(reason.reason),
        reason.code,
        reason.reconnect,
        retry_after,
        encodable(reason.detail),
    )
    return encode_request(None, "close", params)


def close_message(framing: Framing, reason: CloseReason, retry_after: float | None = None) -> bytes:
    """Return the bytes of a close in the given framing.

    - ``frame``: the close opcode with the text alone, as the first clients expect. If the
      reason is not in the table, or has a detail, the notification comes before it, because
      clients could not interpret the text alone.
    - ``websocket``: WebSocket's own close, with code and reason; see :func:`close_notice`.
    - Other framings: a notification, which also holds the code.
    """
    if framing is FRAME:
        text = encodable(close_text(reason, retry_after))
        close = encode_frame(text.encode(), OP_CLOSE)
        known = any(row.reason == reason.reason for row in CLOSE_REASONS)
        if known and not reason.detail:
            return close
        return framing.encode(encode_close(reason, retry_after)) + close
    if framing.name in _WEBSOCKETS:
        return encode_websocket_close(reason.code, encodable(reason.reason))
    return framing.encode(encode_close(reason, retry_after))


def close_notice(framing: Framing, reason: CloseReason) -> bytes:
    """Return the message with the detail of a close, to send before WebSocket's own close.

    It is empty if :func:`close_message` contains everything.
    """
    if not reason.detail or framing.name not in _WEBSOCKETS:
        return b""
    return framing.encode(encode_close(reason))
