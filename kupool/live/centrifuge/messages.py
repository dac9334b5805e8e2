"""The messages of the Centrifuge protocol: decodes commands, encodes replies and pushes. Pure.

::

    > {"id":1,"connect":{"name":"js"}}          a command: an id and one method
    < {"id":1,"connect":{"client":"caa2"}}      its reply: the same id, and the method's result
    < {"push":{"channel":"a","pub":{..}}}       a push has no id
    < {}                                        a ping, which the client answers by the same

Several commands of a frame are separated by newlines. Fields that are zero, false or empty are
left out both ways, but for those without a default here: a client library stops without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from kupool.live.centrifuge.codes import CentrifugeError, Disconnect, SubscriptionEnd

#: The ping of the server, and the pong of a client.
PING = b"{}"

#: The JSON text of a field that is absent.
ABSENT = Raw(b"")

# -- what clients send; null is as good as absent


class PositionRequest(Struct, frozen=True):
    """A position in the stream of a channel."""

    offset: int | None = None
    epoch: str | None = None


class RecoveryRequest(Struct, frozen=True):
    """Where a client was in a channel that the server subscribes it to."""

    recover: bool | None = None
    offset: int | None = None
    epoch: str | None = None


class ConnectRequest(Struct, frozen=True):
    """The first command of a connection."""

    token: str | None = None
    data: Raw = ABSENT
    name: str | None = None
    version: str | None = None
    headers: dict[str, str] | None = None
    subs: dict[str, RecoveryRequest | None] | None = None


class SubscribeRequest(Struct, frozen=True):
    """Subscribes to a channel; ``positioned``, ``recoverable`` and ``join_leave`` are wishes."""

    channel: str | None = None
    token: str | None = None
    data: Raw = ABSENT
    positioned: bool | None = None
    recoverable: bool | None = None
    join_leave: bool | None = None
    recover: bool | None = None
    offset: int | None = None
    epoch: str | None = None
    delta: str | None = None
    tf: Raw = ABSENT
    type: int | None = None
    flag: int | None = None


class ChannelRequest(Struct, frozen=True):
    """Names a channel: unsubscribe, presence, presence_stats."""

    channel: str | None = None


class PublishRequest(Struct, frozen=True):
    """Publishes to a channel."""

    channel: str | None = None
    data: Raw = ABSENT
    type: int | None = None


class HistoryRequest(Struct, frozen=True):
    """Asks for the history of a channel; ``limit`` is 0 for the position alone, < 0 for all."""

    channel: str | None = None
    limit: int | None = None
    since: PositionRequest | None = None
    reverse: bool | None = None


class RpcRequest(Struct, frozen=True):
    """Calls a method of the server."""

    method: str | None = None
    data: Raw = ABSENT


class SendRequest(Struct, frozen=True):
    """A message without a reply."""

    data: Raw = ABSENT


class RefreshRequest(Struct, frozen=True):
    """Brings a new token of the connection."""

    token: str | None = None


class SubscriptionRefreshRequest(Struct, frozen=True):
    """Brings a new token of a channel."""

    channel: str | None = None
    token: str | None = None
    type: int | None = None


class _Frame(Struct):
    """One command as it is sent: fields in any order, unknown ones are ignored."""

    id: int | None = None
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    ping: dict[str, Raw] | None = None
    send: SendRequest | None = None
    rpc: RpcRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubscriptionRefreshRequest | None = None


#: The methods of commands.
METHODS = tuple(name for name in _Frame.__struct_fields__ if name != "id")

_DECODER = msgspec.json.Decoder(_Frame)

CentrifugeRequest = (
    ConnectRequest
    | SubscribeRequest
    | ChannelRequest
    | PublishRequest
    | HistoryRequest
    | RpcRequest
    | SendRequest
    | RefreshRequest
    | SubscriptionRefreshRequest
    | dict[str, Raw]
)


class CentrifugeCommand(NamedTuple):
    """A command: its id, which is 0 for ``send``, its method, and what it asks for.

    A pong has no method.
    """

    id: int
    method: str
    request: CentrifugeRequest | None


class BadFrame(ValueError):
    """A frame is no series of commands; the connection ends as *bad request*."""


def decode_commands(frame: bytes) -> list[CentrifugeCommand]:
    """Return the commands of a frame; raises :class:`BadFrame`."""
    lines = frame.split(b"\n")
    if len(lines) > 1 and not lines[-1]:
        del lines[-1]
    return [_decoded(line) for line in lines]


def _decoded(line: bytes) -> CentrifugeCommand:
    try:
        frame = _DECODER.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadFrame(f"not a command: {error}") from None
    given = [name for name in METHODS if getattr(frame, name) is not None]
    number = frame.id or 0
    if not given and not number:
        return CentrifugeCommand(0, "", None)
    if len(given) != 1:
        raise BadFrame("a command has one method")
    method = given[0]
    if number < 0 or (number == 0) is not (method == "send"):
        raise BadFrame(f"{method}: expected an id above 0, and none for send")
    return CentrifugeCommand(number, method, getattr(frame, method))


def raw_json(value: Raw) -> bytes | None:
    """Return the JSON text of a field; None if it is absent, or null."""
    text = bytes(value)
    return None if text in (b"", b"null") else text


# -- what the server sends


class ClientInfo(Struct, frozen=True, omit_defaults=True):
    """Who published, or is present."""

    user: str
    client: str
    conn_info: Raw | UnsetType = UNSET
    chan_info: Raw | UnsetType = UNSET


class PublicationMessage(Struct, frozen=True, omit_defaults=True):
    """A publication; ``info`` only if a client published it."""

    data: Raw
    info: ClientInfo | UnsetType = UNSET
    offset: int = 0
    tags: Mapping[str, str] = {}


class SubscribeResult(Struct, frozen=True, omit_defaults=True):
    """The result of subscribe.

    ``epoch`` and ``offset`` are set if it is positioned. ``ttl`` is set if it expires.
    """

    expires: bool = False
    ttl: int | UnsetType = UNSET
    recoverable: bool = False
    epoch: str = ""
    publications: Sequence[PublicationMessage] = ()
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Raw | UnsetType = UNSET
    was_recovering: bool = False


class ConnectResult(Struct, frozen=True, omit_defaults=True):
    """The result of connect; ``ping`` is in seconds. ``session`` and ``node`` are for emulation."""

    client: str
    version: str
    data: Raw | UnsetType = UNSET
    subs: Mapping[str, SubscribeResult] = {}
    expires: bool = False
    ttl: int | UnsetType = UNSET
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""


class RefreshResult(Struct, frozen=True, omit_defaults=True):
    """The result of refresh and sub_refresh."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int | UnsetType = UNSET


class HistoryResult(Struct, frozen=True):
    """The result of history: publications, and the position of the stream."""

    publications: Sequence[PublicationMessage]
    epoch: str
    offset: int


class PresenceResult(Struct, frozen=True):
    """The result of presence: who is there, by the id of the client."""

    presence: Mapping[str, ClientInfo]


class PresenceStatsResult(Struct, frozen=True):
    """The result of presence_stats."""

    num_clients: int
    num_users: int


class RpcResult(Struct, frozen=True, omit_defaults=True):
    """The result of rpc."""

    data: Raw | UnsetType = UNSET


class EmptyResult(Struct, frozen=True):
    """The result of unsubscribe and publish."""


CentrifugeResult = (
    ConnectResult
    | SubscribeResult
    | RefreshResult
    | HistoryResult
    | PresenceResult
    | PresenceStatsResult
    | RpcResult
    | EmptyResult
)


class _ErrorBody(Struct, omit_defaults=True):
    code: int
    message: str
    temporary: bool = False


def encode_reply(command: CentrifugeCommand, result: CentrifugeResult) -> bytes:
    """Return the reply to a command."""
    return msgspec.json.encode({"id": command.id, command.method: result})


def encode_failure(command: CentrifugeCommand, error: CentrifugeError) -> bytes:
    """Return the reply that says what was wrong with a command."""
    return msgspec.json.encode({"id": command.id, "error": _ErrorBody(*error)})


def encode_push(channel: str, key: str, body: Mapping[str, object]) -> bytes:
    """Return a push about a channel, such as ``join`` with its ``info``."""
    return msgspec.json.encode({"push": {"channel": channel, key: body}})


def encode_publication(channel: str, publication: PublicationMessage) -> bytes:
    """Return the push of a publication."""
    return msgspec.json.encode({"push": {"channel": channel, "pub": publication}})


def encode_unsubscribe(channel: str, end: SubscriptionEnd) -> bytes:
    """Return the push that ends a subscription."""
    return encode_push(channel, "unsubscribe", end._asdict())


def encode_subscribe(channel: str, result: SubscribeResult) -> bytes:
    """Return the push that begins a subscription by the server."""
    body = {
        "recoverable": result.recoverable,
        "epoch": result.epoch,
        "offset": result.offset,
        "positioned": result.positioned,
        "data": result.data,
    }
    given = {name: value for name, value in body.items() if value and value is not UNSET}
    return encode_push(channel, "subscribe", given)


def encode_disconnect(disconnect: Disconnect) -> bytes:
    """Return the push that ends a connection whose transport has no close of its own."""
    return msgspec.json.encode({"push": {"disconnect": disconnect._asdict()}})


def encode_message(data: bytes) -> bytes:
    """Return a push of data that belongs to no channel."""
    return msgspec.json.encode({"push": {"message": {"data": Raw(data)}}})


__all__ = [
    "ABSENT",
    "METHODS",
    "PING",
    "BadFrame",
    "CentrifugeCommand",
    "CentrifugeRequest",
    "CentrifugeResult",
    "ChannelRequest",
    "ClientInfo",
    "ConnectRequest",
    "ConnectResult",
    "EmptyResult",
    "HistoryRequest",
    "HistoryResult",
    "PositionRequest",
    "PresenceResult",
    "PresenceStatsResult",
    "PublicationMessage",
    "PublishRequest",
    "RecoveryRequest",
    "RefreshRequest",
    "RefreshResult",
    "RpcRequest",
    "RpcResult",
    "SendRequest",
    "SubscribeRequest",
    "SubscribeResult",
    "SubscriptionRefreshRequest",
    "decode_commands",
    "encode_disconnect",
    "encode_failure",
    "encode_message",
    "encode_publication",
    "encode_push",
    "encode_reply",
    "encode_subscribe",
    "encode_unsubscribe",
    "raw_json",
]
