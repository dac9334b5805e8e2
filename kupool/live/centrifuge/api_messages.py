"""The messages of the server API: what an application asks for over HTTP, and what it is told.

A request is the JSON object in the body of ``POST /api/METHOD``. A field that is null counts as
absent.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from kupool.live.centrifuge.codes import BAD_REQUEST
from kupool.live.centrifuge.messages import ABSENT, PositionRequest, raw_json
from kupool.live.centrifuge.refusals import CommandRefused
from kupool.live.centrifuge.tokens import ServerSubscription
from kupool.live.failures import InvalidPublication
from kupool.live.params import EventParams
from kupool.live.publications import NewPublication, StreamPosition, one_line

#: Seconds since the epoch; no more than a float holds exactly.
Seconds = Annotated[int, Meta(ge=0, le=2**53)]


def bad_request(why: str) -> CommandRefused:
    """Return the refusal of a request; ``why`` says what is wrong with it."""
    return CommandRefused(BAD_REQUEST._replace(message=f"{BAD_REQUEST.message}: {why}"))


def _json_of(name: str, given: Raw, encoded: str | None) -> bytes:
    """Return JSON that is given as it is, or in base64, on one line; empty if there is none."""
    try:
        text = raw_json(given) or b"" if encoded is None else b64decode(encoded, validate=True)
    except ValueError:
        raise bad_request(f"b64{name} is not base64") from None
    try:
        return one_line(text) if text else b""
    except ValueError:
        raise bad_request(f"b64{name} is not JSON in base64") from None


class _Flag(Struct):
    value: bool


class _Publishing(EventParams, kw_only=True):
    # ``priority``, ``device``, ``type`` and ``key`` are ours.
    data: Raw = ABSENT
    b64data: str | None = None
    skip_history: bool | None = None
    tags: dict[str, str] | None = None
    idempotency_key: str | None = None

    def publication(self) -> NewPublication:
        """Return what is to be published; raises :class:`CommandRefused`."""
        data = _json_of("data", self.data, self.b64data)
        if not data:
            raise bad_request("data is missing")
        try:
            return self.event(
                data, event_id=self.idempotency_key or "", tags=self.tags or {}, info=None
            )
        except InvalidPublication as error:
            raise bad_request(str(error)) from None


class ApiPublish(_Publishing, kw_only=True):
    """Publish to a channel."""

    channel: str | None = None


class ApiBroadcast(_Publishing, kw_only=True):
    """Publish the same to several channels."""

    channels: list[str] | None = None


class _OfUser(Struct):
    user: str | None = None
    client: str | None = None


class ApiSubscribe(_OfUser):
    """Subscribe the clients of a user to a channel; ``expire_at`` in seconds since the epoch."""

    channel: str | None = None
    info: Raw = ABSENT
    b64info: str | None = None
    data: Raw = ABSENT
    b64data: str | None = None
    expire_at: Seconds | None = None
    recover_since: PositionRequest | None = None
    override: dict[str, _Flag | None] | None = None

    def granted(self) -> ServerSubscription:
        """Return what the subscription is given; raises :class:`CommandRefused`."""
        flags = (self.override or {}).items()
        return ServerSubscription(
            _json_of("info", self.info, self.b64info),
            _json_of("data", self.data, self.b64data),
            {name: flag.value for name, flag in flags if flag is not None},
        )

    def since(self) -> StreamPosition | None:
        """Return from where on the clients get what was published; None for nothing."""
        found = self.recover_since
        if found is None:
            return None
        return StreamPosition(max(0, found.offset or 0), found.epoch or "")


class ApiUnsubscribe(_OfUser):
    """End subscriptions of the clients of a user; without a channel, all of them."""

    channel: str | None = None


class _DisconnectReason(Struct):
    code: int = 0
    reason: str = ""


class ApiDisconnect(_OfUser):
    """Disconnect the clients of a user, but for those in the ``whitelist``."""

    whitelist: list[str] | None = None
    disconnect: _DisconnectReason | None = None


class ApiRefresh(_OfUser):
    """Change when the connections of a user end; those that are ``expired`` end now."""

    expired: bool | None = None
    expire_at: Seconds | None = None
    info: Raw = ABSENT


class ApiChannels(Struct):
    """List the channels that have subscribers, and that a pattern matches."""

    pattern: str | None = None


class ApiInfo(Struct):
    """Ask about this node."""


class ApiBatch(Struct):
    """Do several commands, each an object with the name of a method and its request."""

    commands: list[dict[str, Raw]] | None = None
    parallel: bool | None = None


# -- what the application is told


class ApiPublished(Struct, frozen=True, omit_defaults=True):
    """Where a publication is in the history of its channel; empty without one.

    One that is ``replaced`` was not published.
    """

    offset: int = 0
    epoch: str = ""
    replaced: bool = False


class ApiRefusal(Struct, frozen=True):
    """What was wrong."""

    code: int
    message: str


class ApiAnswer(Struct, frozen=True, omit_defaults=True):
    """The answer to a request: its result, or an error."""

    result: object = UNSET
    error: ApiRefusal | UnsetType = UNSET


class ApiBroadcasted(Struct, frozen=True):
    """The answer for each channel, in their order."""

    responses: Sequence[ApiAnswer]


class ApiChannelInfo(Struct, frozen=True):
    """How many clients are subscribed to a channel."""

    num_clients: int


class ApiChannelsFound(Struct, frozen=True):
    """Channels by name."""

    channels: Mapping[str, ApiChannelInfo]


class ApiNode(Struct, frozen=True):
    """A daemon, and how many there are of what; ``uptime`` in seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class ApiNodes(Struct, frozen=True):
    """All daemons that share the channels: this one."""

    nodes: Sequence[ApiNode]


class ApiReplies(Struct, frozen=True):
    """The answers to the commands of a batch, in their order, as JSON."""

    replies: Sequence[Raw]


__all__ = [
    "ApiAnswer",
    "ApiBatch",
    "ApiBroadcast",
    "ApiBroadcasted",
    "ApiChannelInfo",
    "ApiChannels",
    "ApiChannelsFound",
    "ApiDisconnect",
    "ApiInfo",
    "ApiNode",
    "ApiNodes",
    "ApiPublish",
    "ApiPublished",
    "ApiRefresh",
    "ApiRefusal",
    "ApiReplies",
    "ApiSubscribe",
    "ApiUnsubscribe",
    "bad_request",
]
