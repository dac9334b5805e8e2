"""What the operations work on."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest

from twisted.internet.defer import Deferred

from kupool.topics.api.values import EARLIEST, LATEST, end_or_time
from kupool.topics.dead_letters import DeadLetters
from kupool.topics.delays import DelayedRecords
from kupool.topics.errors import UnknownTransaction
from kupool.topics.groups import ConsumerGroups
from kupool.topics.partition import Partition
from kupool.topics.service import Topics
from kupool.topics.settings import TopicSettings
from kupool.topics.transactions import TopicTransactions


class TransactionIds:
    """The ids of transactions: nobody can guess one, and each is good for its user alone."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def of(self, transaction: int, user: str) -> str:
        """Return the id of a user's transaction."""
        proof = blake2b(f"{transaction}/{user}".encode(), digest_size=16, key=self._key)
        return f"{transaction}-{proof.hexdigest()}"

    def read(self, text: str, user: str) -> int:
        """Return the transaction of an id; raises :class:`UnknownTransaction`."""
        number = text.partition("-")[0]
        known = number.isascii() and number.isdecimal() and len(number) < 19
        expected = self.of(int(number), user) if known else ""
        if not compare_digest(expected.encode(), text.encode()):
            raise UnknownTransaction(text[:60])
        return int(number)


@dataclass(frozen=True)
class TopicWorld:
    """Topics with everything that belongs to them.

    ``wall`` returns seconds since the epoch, and ``seconds`` those of the clock of the groups.
    ``defaults`` are the settings of new topics. ``fetch_bytes`` is the most that a fetch returns,
    but for its first batch.
    """

    topics: Topics
    groups: ConsumerGroups
    dead: DeadLetters
    delays: DelayedRecords
    transactions: TopicTransactions
    wall: Callable[[], float]
    seconds: Callable[[], float]
    defaults: TopicSettings = field(default_factory=TopicSettings)
    fetch_bytes: int = 1024 * 1024
    ids: TransactionIds = field(default_factory=TransactionIds)

    def find(self, at: int | str) -> Callable[[Partition], Deferred[int]]:
        """Return a function that returns the offset of a time, or of an end, in a partition."""
        wanted = end_or_time(at)
        if wanted == EARLIEST:
            return self.topics.earliest
        if wanted == LATEST:
            return self.topics.latest
        return lambda partition: self.topics.at_time(partition, int(wanted) / 1000)


__all__ = ["TopicWorld", "TransactionIds"]
