"""Publications, joins and leaves as pushes of the Centrifuge protocol. Pure."""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from kupool.live.centrifuge.messages import (
    ClientInfo,
    PublicationMessage,
    encode_publication,
    encode_push,
)
from kupool.live.publications import ClientDetails, PublishedRecord


def shown_client(details: ClientDetails) -> ClientInfo:
    """Return who a client is, in the form of the protocol."""
    return ClientInfo(
        details.user,
        details.client_id,
        conn_info=optional_json(details.connection_info),
        chan_info=optional_json(details.channel_info),
    )


def shown_publication(record: PublishedRecord) -> PublicationMessage:
    """Return a publication in the form of the protocol."""
    return PublicationMessage(
        Raw(record.data),
        UNSET if record.info is None else shown_client(record.info),
        record.offset,
        record.tags,
    )


def optional_json(text: bytes) -> Raw | UnsetType:
    """Return a field of JSON text, which is left out if it is empty."""
    return Raw(text) if text else UNSET


class CentrifugeEncoding:
    """Encodes what a channel sends; all clients share one object, so it happens once."""

    def publication(self, channel: str, record: PublishedRecord) -> bytes:
        """Return the push of a publication."""
        return encode_publication(channel, shown_publication(record))

    def join(self, channel: str, details: ClientDetails) -> bytes:
        """Return the push that says that a client has come."""
        return encode_push(channel, "join", {"info": shown_client(details)})

    def leave(self, channel: str, details: ClientDetails) -> bytes:
        """Return the push that says that a client has gone."""
        return encode_push(channel, "leave", {"info": shown_client(details)})


__all__ = ["CentrifugeEncoding", "optional_json", "shown_client", "shown_publication"]
