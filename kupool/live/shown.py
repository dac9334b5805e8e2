"""How our own protocol and ``/events`` show publications, gaps and clients as JSON. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from kupool.errors import (
    ALREADY_EXISTS,
    BAD_PARAMS,
    FORBIDDEN,
    NOT_FOUND,
    OFFSET_OUT_OF_RANGE,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    ErrorText,
)
from kupool.live.failures import LiveError
from kupool.live.publications import ClientDetails, PublicationGap, PublishedRecord
from kupool.wire.messages import encode_request

#: The names of the notifications.
PUBLICATION = "publication"
GAP = "gap"
PRESENCE = "presence"
UNSUBSCRIBED = "unsubscribed"

#: The rows of the table of errors, by the names of the errors of live channels.
_ROWS = {
    "invalid_channel": BAD_PARAMS,
    "invalid_publication": BAD_PARAMS,
    "invalid_request": BAD_PARAMS,
    "unknown_channel": NOT_FOUND,
    "permission_denied": FORBIDDEN,
    "already_subscribed": ALREADY_EXISTS,
    "limit_exceeded": TOO_MANY_REQUESTS,
    "not_available": NOT_FOUND,
    "unrecoverable_position": OFFSET_OUT_OF_RANGE,
    "cancelled": NOT_FOUND,
    "sink_unavailable": UNAVAILABLE,
}


def error_row(error: LiveError) -> ErrorText:
    """Return the row of the table of errors that a client is told of an error."""
    row = _ROWS.get(error.name)
    # The reason of others may name files: it is for the operators.
    return UNAVAILABLE if row is None else row.about(str(error))


class ShownPublication(msgspec.Struct, omit_defaults=True):
    """A publication; ``time`` is in milliseconds since the epoch."""

    channel: str
    offset: int
    data: msgspec.Raw
    priority: int
    time: int
    event_id: str = ""
    device: str = ""
    type: str = ""
    key: str = ""
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    user: str = ""
    client: str = ""
    merged: int = 0
    sequence: int = 0


def shown_record(channel: str, record: PublishedRecord) -> ShownPublication:
    """Return what is shown of a publication."""
    info = record.info
    return ShownPublication(
        channel,
        record.offset,
        msgspec.Raw(record.data),
        int(record.priority),
        round(record.time * 1000),
        record.event_id,
        record.device,
        record.event_type,
        record.key,
        dict(record.tags),
        "" if info is None else info.user,
        "" if info is None else info.client_id,
        record.merged,
        record.sequence,
    )


def shown_gap(channel: str, gap: PublicationGap) -> dict[str, Any]:
    """Return what is shown of a gap; ``from`` and ``to`` are offsets, the last one included."""
    shown: dict[str, Any] = {"channel": channel, "missed": gap.missed}
    if gap.last:
        shown.update({"from": gap.first, "to": gap.last})
    shown["reason"] = gap.reason
    return shown if gap.exact else {**shown, "exact": False}


def shown_member(details: ClientDetails) -> dict[str, str]:
    """Return what is shown of a client."""
    return {"client": details.client_id, "user": details.user}


class SessionEncoding:
    """Encodes what a channel sends as notifications of our own protocol; sessions share one."""

    def publication(self, channel: str, record: PublishedRecord) -> bytes:
        """Return the notification of a publication."""
        return encode_request(None, PUBLICATION, shown_record(channel, record))

    def join(self, channel: str, details: ClientDetails) -> bytes:
        """Return the notification that a client has come."""
        return self._presence(channel, "joined", details)

    def leave(self, channel: str, details: ClientDetails) -> bytes:
        """Return the notification that a client has gone."""
        return self._presence(channel, "left", details)

    def _presence(self, channel: str, event: str, details: ClientDetails) -> bytes:
        shown = {"channel": channel, "event": event, **shown_member(details)}
        return encode_request(None, PRESENCE, shown)


__all__ = [
    "GAP",
    "PRESENCE",
    "PUBLICATION",
    "UNSUBSCRIBED",
    "SessionEncoding",
    "ShownPublication",
    "error_row",
    "shown_gap",
    "shown_member",
    "shown_record",
]
