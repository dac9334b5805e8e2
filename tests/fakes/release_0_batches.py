"""The module that decoded batches in the release before positions, as it was.

It shows that a neighbouring release can read what this one writes. The data of that release is in
`tests/data/release_0`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import msgspec

VERSION = 1


class Rejection(NamedTuple):
    """What a rejected submission is counted under; ``code`` is that of its error.

    ``minute`` is the UTC minute, in seconds since the epoch.
    """

    username: str
    code: int
    minute: int


class Batch(msgspec.Struct, gc=False):
    """A batch of accepted submissions; usernames are as they were authorized."""

    v: int
    batch: str
    at: int
    usernames: list[str]
    job_ids: list[int]
    client_nonces: list[str]


class BatchHead(msgspec.Struct, gc=False):
    """What is counted of a batch; the other columns are not looked at."""

    v: int
    batch: str
    at: int
    usernames: list[str]

    @property
    def minute(self) -> int:
        """The UTC minute of acceptance, in seconds since the epoch."""
        return self.at // 60000 * 60


class PoisonBatch(ValueError):
    """A log entry that is no batch this version can read; says why."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Batch)
_head_decoder = msgspec.json.Decoder(BatchHead)


def encode_batch(batch: Batch) -> bytes:
    """Return a batch as bytes."""
    return _encoder.encode(batch)


def decode_batch(body: bytes) -> Batch:
    """Return the batch in ``body``; raises :class:`PoisonBatch`."""
    batch = _decode(_decoder, body)
    if not len(batch.usernames) == len(batch.job_ids) == len(batch.client_nonces):
        raise PoisonBatch("the columns of the batch have different lengths")
    return batch


def decode_head(body: bytes) -> BatchHead:
    """Return what is counted of a batch; raises :class:`PoisonBatch`."""
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
