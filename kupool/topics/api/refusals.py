"""The rows of the table of errors for the errors of topics. Pure."""

from __future__ import annotations

from kupool.errors import (
    ALREADY_EXISTS,
    BAD_PARAMS,
    FORBIDDEN,
    NOT_FOUND,
    NOT_THE_OWNER,
    OFFSET_OUT_OF_RANGE,
    STALE_GENERATION,
    TOO_LARGE,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    WRONG_NODE,
    ErrorText,
    damaged,
)
from kupool.topics import errors

#: The row of each class; the detail is the text of the error.
_ROWS: dict[type[errors.TopicError], ErrorText] = {
    errors.BatchTooLarge: TOO_LARGE,
    errors.GroupInUse: ALREADY_EXISTS,
    errors.InvalidGroup: BAD_PARAMS,
    errors.InvalidTopic: BAD_PARAMS,
    errors.NotPartitionOwner: NOT_THE_OWNER,
    errors.PartitionFull: TOO_LARGE,
    errors.RecordTooLarge: TOO_LARGE,
    errors.ReservedTopic: FORBIDDEN,
    errors.SequenceTooOld: ALREADY_EXISTS,
    errors.TooManyGroups: TOO_MANY_REQUESTS,
    errors.TooManyTopics: TOO_MANY_REQUESTS,
    errors.TooManyTransactions: TOO_MANY_REQUESTS,
    errors.TransactionTooLarge: TOO_LARGE,
    errors.TransactionsUnsupported: BAD_PARAMS,
    errors.UnknownCodec: BAD_PARAMS,
    errors.UnknownGroup: NOT_FOUND,
    errors.UnknownMember: NOT_FOUND,
    errors.UnknownPartition: NOT_FOUND,
    errors.UnknownRecord: NOT_FOUND,
    errors.UnknownTopic: NOT_FOUND,
    errors.UnknownTransaction: NOT_FOUND,
}


def refusal_of(error: errors.TopicError) -> ErrorText | None:
    """Return what a caller is told of an error; None if it is unexpected.

    What a program reads of an error is in the form ``name=value``.
    """
    if isinstance(error, errors.OffsetOutOfRange):
        return OFFSET_OUT_OF_RANGE.about(f"low={error.low} high={error.high}")
    if isinstance(error, errors.IllegalGeneration):
        return STALE_GENERATION.about(f"current={error.current}")
    if isinstance(error, errors.WrongNode):
        return WRONG_NODE.about(error.address)
    if isinstance(error, errors.UnreadableBatch):
        return damaged(f"{error} (offset={error.offset} next={error.next_offset})")
    if isinstance(error, errors.CorruptBatch):
        return damaged(str(error))
    if isinstance(error, errors.TopicExists):
        return ALREADY_EXISTS.about(f"topic {error.topic}")
    if isinstance(error, errors.TopicsUnavailable):
        return UNAVAILABLE  # the reason may name files: it is for the operators
    row = _ROWS.get(type(error))
    return None if row is None else row.about(str(error))


__all__ = ["refusal_of"]
