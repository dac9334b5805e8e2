"""The errors of topics and consumer groups. Pure."""

from __future__ import annotations

from kupool.topics.assignment import Partition


class TopicError(Exception):
    """A request about a topic or a consumer group was refused; the text says why."""


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


__all__ = ["IllegalGeneration", "NotPartitionOwner", "TopicError", "UnknownMember"]
