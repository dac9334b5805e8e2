"""The headers of a message: its time of appending, its pool and its epoch. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kupool.log import Epoch, Identity

#: The header with the id of the pool, and the one with the epoch of its log.
POOL = "pool"
EPOCH = "epoch"


def marks(identity: Identity | None) -> dict[str, Any]:
    """Return the headers for a pool's message; empty if there is no identity yet."""
    return {} if identity is None else {POOL: identity.pool_id, EPOCH: identity.epoch}


def identity_of(headers: Mapping[str, Any]) -> Identity | None:
    """Return the pool and the epoch in a message's headers; None if there are none.

    The start of the epoch is not in the headers: the stream is assumed to start with it.
    """
    pool, epoch = headers.get(POOL), headers.get(EPOCH, "")
    if not isinstance(pool, str) or not pool:
        return None
    return Identity(pool, (Epoch(str(epoch), 0),))


def is_foreign(headers: Mapping[str, Any], pool_id: str) -> bool:
    """Return whether a message is of another pool than the given one.

    A message without a pool is not foreign: the previous release wrote none. If the own id is
    empty, the pool is unknown and nothing is foreign.
    """
    named = headers.get(POOL)
    return bool(pool_id) and named is not None and named != pool_id


def pool_of(identity: Identity | None) -> str:
    """Return the id of a pool; empty if it is unknown."""
    return "" if identity is None else identity.pool_id


def is_earlier(headers: Mapping[str, Any], identity: Identity | None) -> bool:
    """Return whether a message names another epoch than the newest of a log."""
    epoch = headers.get(EPOCH)
    return identity is not None and epoch is not None and epoch != identity.epoch


def appended_at(headers: Mapping[str, Any]) -> float:
    """Return when an entry was appended, in seconds since the epoch; 0 if unknown."""
    at = headers.get("appended_at", 0)
    return at / 1000 if isinstance(at, int | float) else 0.0


__all__ = [
    "EPOCH",
    "POOL",
    "appended_at",
    "identity_of",
    "is_earlier",
    "is_foreign",
    "marks",
    "pool_of",
]
