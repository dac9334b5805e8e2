"""The body of a log entry: one batch of accepted submissions, as JSON.

A batch is ``{"v":1,"batch":ID,"at":MS,"usernames":[...],"job_ids":[...],
"client_nonces":[...]}``: three columns of the same length, with one submission at each
index. All were accepted in the same UTC minute, that of ``at``, which is in milliseconds
since the epoch. The id is unique: a batch that arrives twice is counted once.

Two more columns are optional: ``"sessions":[...]`` has the id of each submission's session, and
``"peers":[...]`` the address that it came from. A reader of an earlier release ignores them.

A batch without submissions is a note: ``"jobs_until":ID`` says that jobs up to this id may
have been given out. It does not affect counts.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import msgspec

VERSION = 1


class Rejection(NamedTuple):
    """The key under which a rejected submission is counted; ``code`` is its error's code.

    ``username`` is without the worker, and ``minute`` the UTC minute, in seconds since the epoch.
    """

    username: str
    code: int
    minute: int
    worker: str = ""


class Batch(msgspec.Struct, gc=False, omit_defaults=True):
    """A batch of accepted submissions; usernames are as they were authorized.

    ``sessions`` and ``peers`` are empty where they are not known.
    """

    v: int
    batch: str
    at: int
    usernames: list[str]
    job_ids: list[int]
    client_nonces: list[str]
    jobs_until: int = 0
    sessions: list[str] = []
    peers: list[str] = []


class BatchHead(msgspec.Struct, gc=False):
    """The part of a batch that is counted; the other columns are not decoded."""

    v: int
    batch: str
    at: int
    usernames: list[str]

    @property
    def minute(self) -> int:
        """The UTC minute of acceptance, in seconds since the epoch."""
        return self.at // 60000 * 60


class PoisonBatch(ValueError):
    """A log entry is not a batch that this version can read; the text says why."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Batch)
_head_decoder = msgspec.json.Decoder(BatchHead)


def encode_batch(batch: Batch) -> bytes:
    """Return a batch as bytes."""
    return _encoder.encode(batch)


def decode_batch(body: bytes) -> Batch:
    """Return the batch in ``body``; raises :class:`PoisonBatch`."""
    batch = _decode(_decoder, body)
    count = len(batch.usernames)
    same = count == len(batch.job_ids) == len(batch.client_nonces)
    if not same or any(len(each) not in (0, count) for each in (batch.sessions, batch.peers)):
        raise PoisonBatch("the columns of the batch have different lengths")
    return batch


def decode_head(body: bytes) -> BatchHead:
    """Return the counted part of a batch; raises :class:`PoisonBatch`."""
    return _decode(_head_decoder, body)


_T = TypeVar("_T", Batch, BatchHead)


def _decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        batch = decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise PoisonBatch(f"not a batch: {error}") from None
    if batch.v != VERSION:
        raise PoisonBatch(f"batch version {batch.v}, expected {VERSION}")
    return batch
