"""The errors of topics; each text says what was wrong, and what to do. Pure."""

from __future__ import annotations

from kupool.topics.partition import Partition


class TopicError(Exception):
    """The base of the errors of topics."""


class InvalidTopic(TopicError):
    """The name or the settings of a topic are not valid."""


class TopicExists(TopicError):
    """There is a topic of this name already."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} exists already: choose another name")
        self.topic = topic


class UnknownTopic(TopicError):
    """There is no topic of this name."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"there is no topic {topic:.255}: create it first")


class ReservedTopic(TopicError):
    """The topic is written by the daemon only."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"topic {topic} is written by the daemon only: nobody else can create, change or "
            "delete it, or write to it"
        )


class UnknownPartition(TopicError):
    """The topic has no partition of this number."""

    def __init__(self, topic: str, partition: int, partitions: int) -> None:
        super().__init__(
            f"topic {topic} has no partition {partition}: it has {partitions}, the first is 0"
        )


class TooManyTopics(TopicError):
    """No more topics may be created."""

    def __init__(self, most: int) -> None:
        super().__init__(f"there are {most} topics already: delete one, or raise max_topics")


class OffsetOutOfRange(TopicError):
    """The offset is below the oldest record of the partition; has the valid range.

    ``low`` is the offset of the oldest record, ``high`` that of the next one to be written.
    """

    def __init__(self, topic: str, partition: int, offset: int, *, low: int, high: int) -> None:
        super().__init__(
            f"partition {partition} of topic {topic} has no offset {offset}: read from {low} "
            f"(the oldest) to {high} (the next)"
        )
        self.low = low
        self.high = high


class UnknownRecord(TopicError):
    """There is no record at an offset: it was dropped, or there never was one."""

    def __init__(self, partition: Partition, offset: int) -> None:
        super().__init__(f"partition {partition} has no record at offset {offset}")


class RecordTooLarge(TopicError):
    """A record is larger than the topic permits; nothing of its batch was stored."""

    def __init__(self, topic: str, size: int, most: int) -> None:
        super().__init__(
            f"a record of {size} bytes is too large for topic {topic}: it takes {most} "
            "(max_record of its settings)"
        )


class BatchTooLarge(TopicError):
    """Records with a stamp are too many or too large for one batch; nothing was stored."""

    def __init__(self, topic: str, partition: int, *, records: int, size: int) -> None:
        super().__init__(
            f"too much at once for partition {partition} of topic {topic}: with a producer's "
            f"sequence number {records} records of together {size} bytes are taken; send fewer"
        )


class PartitionFull(TopicError):
    """The partition has used all its offsets."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"partition {partition} of topic {topic} has used all its offsets: use another topic"
        )


class CorruptBatch(TopicError):
    """The bytes of a batch are not what was written; the text says why."""


class UnreadableBatch(CorruptBatch):
    """The batch at an offset of a partition cannot be read; the next one is at ``next_offset``."""

    def __init__(self, partition: Partition, offset: int, next_offset: int, why: str) -> None:
        super().__init__(
            f"partition {partition.number} of topic {partition.topic}, batch at offset {offset}: "
            f"{why}; read on from {next_offset}"
        )
        self.partition = partition
        self.offset = offset
        self.next_offset = next_offset
        self.why = why


class TransactionsUnsupported(TopicError):
    """The engine cannot write several batches all or none."""

    def __init__(self) -> None:
        super().__init__("this engine has no transactions: use one batch, or the engine sqlite")


class TooManyTransactions(TopicError):
    """No more transactions may be under way."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} transactions are under way already: commit or abort some")


class UnknownTransaction(TopicError):
    """There is no such transaction: it was committed, aborted, or not committed in time."""

    def __init__(self, transaction: int | str) -> None:
        super().__init__(f"transaction {transaction} is not under way: begin another one")


class TransactionTooLarge(TopicError):
    """A transaction would have too many records or bytes."""

    def __init__(self, records: int, size: int) -> None:
        super().__init__(f"a transaction takes {records} records of together {size} bytes")


class UnknownCodec(TopicError):
    """There is no compression of this name."""


class SequenceTooOld(TopicError):
    """A producer repeats a batch that is so old that its offset is forgotten.

    It was written, or the producer has used the sequence number twice.
    """

    def __init__(self, producer: str, sequence: int, oldest: int) -> None:
        super().__init__(
            f"producer {producer:.64} sent sequence {sequence} again, the oldest that is "
            f"remembered is {oldest}: it was written before, continue with a new number"
        )


class InvalidGroup(TopicError):
    """The name of a group, a member or a subscription is not valid."""


class TooManyGroups(TopicError):
    """No more groups, or members of a group, are accepted."""


class GroupInUse(TopicError):
    """The group has members, so that its offsets cannot be set from outside."""

    def __init__(self, group: str) -> None:
        super().__init__(f"group {group} has members: stop them first")


class UnknownGroup(TopicError):
    """There is no such group: it has no members, and has saved nothing."""

    def __init__(self, group: str) -> None:
        super().__init__(f"there is no group {group:.255}: a member has to join it first")


class UnknownMember(TopicError):
    """The member is not in the group, or no more: it left, or its session timed out."""

    def __init__(self, member_id: str, group: str) -> None:
        super().__init__(f"member {member_id} is not in group {group}: join again")
        self.member_id = member_id
        self.group = group


class IllegalGeneration(TopicError):
    """The generation is not the current one of the group, or never was one."""

    def __init__(self, generation: int, current: int) -> None:
        if 0 <= generation < current:
            text = f"generation {generation} has ended: learn generation {current} by a heartbeat"
        else:
            text = f"generation {generation} never was, the current one is {current}: join again"
        super().__init__(text)
        self.generation = generation
        self.current = current


class NotPartitionOwner(TopicError):
    """The member does not hold the partition."""

    def __init__(self, member_id: str, partition: Partition) -> None:
        super().__init__(
            f"member {member_id} does not hold partition {partition}: stop working on it, and "
            "learn by a heartbeat what is assigned"
        )
        self.member_id = member_id
        self.partition = partition


class WrongNode(TopicError):
    """Another node leads the group; ``address`` says where it is reached."""

    def __init__(self, group: str, address: str) -> None:
        super().__init__(f"group {group} is led by the node at {address}: ask that one")
        self.group = group
        self.address = address


class TopicsUnavailable(TopicError):
    """The engine cannot take or return records now; nothing of the batch was stored."""


__all__ = [
    "BatchTooLarge",
    "CorruptBatch",
    "GroupInUse",
    "IllegalGeneration",
    "InvalidGroup",
    "InvalidTopic",
    "NotPartitionOwner",
    "OffsetOutOfRange",
    "PartitionFull",
    "RecordTooLarge",
    "ReservedTopic",
    "SequenceTooOld",
    "TooManyGroups",
    "TooManyTopics",
    "TooManyTransactions",
    "TopicError",
    "TopicExists",
    "TopicsUnavailable",
    "TransactionTooLarge",
    "TransactionsUnsupported",
    "UnknownCodec",
    "UnknownGroup",
    "UnknownMember",
    "UnknownPartition",
    "UnknownRecord",
    "UnknownTopic",
    "UnknownTransaction",
    "UnreadableBatch",
    "WrongNode",
]
