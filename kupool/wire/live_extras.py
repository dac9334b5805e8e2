"""What the record of a durable live channel says besides its data: one header, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: The header of a record that holds it.
HEADER = "live"

#: The priority of a record that does not say.
NORMAL = 1


class LiveExtras(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a publication has besides its data; the names are short, as each record has them.

    ``info`` is the client that has published: its id, its user, and two texts of JSON.
    """

    event_id: str = msgspec.field(default="", name="e")
    priority: int = msgspec.field(default=NORMAL, name="p")
    device: str = msgspec.field(default="", name="d")
    event_type: str = msgspec.field(default="", name="y")
    key: str = msgspec.field(default="", name="k")
    tags: dict[str, str] = msgspec.field(default_factory=dict, name="t")
    sequence: int = msgspec.field(default=0, name="s")
    info: tuple[str, str, str, str] | None = msgspec.field(default=None, name="i")


def encode_extras(extras: LiveExtras) -> dict[str, str]:
    """Return the headers of a record."""
    return {HEADER: msgspec.json.encode(extras).decode()}


def decode_extras(headers: Mapping[str, str]) -> LiveExtras | None:
    """Return what the headers of a record say; None for a record of somebody else."""
    text = headers.get(HEADER)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=LiveExtras)
    except (ValueError, RecursionError):
        return None  # somebody else uses the same name


__all__ = ["HEADER", "LiveExtras", "decode_extras", "encode_extras"]
