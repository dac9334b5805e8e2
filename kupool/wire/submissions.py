"""Accepted submissions, one JSON object each, as events and topics show them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kupool.wire.batches import Batch

#: The offsets of one entry of the log.
PER_ENTRY = 65_536


class Accepted(msgspec.Struct, gc=False):
    """An accepted submission; ``id`` is the id of its batch in the log, ``/``, and its index."""

    id: str
    username: str
    job_id: int
    client_nonce: str


class LoggedSubmission(Accepted, gc=False, omit_defaults=True):
    """The same as the log has it.

    ``at`` is when its batch was opened, in milliseconds since the epoch. ``session`` is an id in
    hexadecimal digits, ``peer`` an address. Both are left out where the batch does not tell them.
    """

    at: int = 0
    session: str = ""
    peer: str = ""


def accepted_of(batch: Batch) -> Iterator[Accepted]:
    """Yield the submissions of a batch."""
    columns = zip(batch.usernames, batch.job_ids, batch.client_nonces, strict=True)
    for place, (username, job_id, nonce) in enumerate(columns):
        yield Accepted(f"{batch.batch}/{place}", username, job_id, nonce)


def logged_of(batch: Batch) -> Iterator[LoggedSubmission]:
    """Yield the submissions of a batch with all that the batch tells about them."""
    unknown = [""] * len(batch.usernames)
    columns = zip(
        accepted_of(batch), batch.sessions or unknown, batch.peers or unknown, strict=True
    )
    for each, session, peer in columns:
        yield LoggedSubmission(
            each.id,
            each.username,
            each.job_id,
            each.client_nonce,
            at=batch.at,
            session=session,
            peer=peer,
        )


__all__ = ["PER_ENTRY", "Accepted", "LoggedSubmission", "accepted_of", "logged_of"]
