"""Transactions: records to several partitions and topics that are written all or none.

::

    begin()                       -> id
    add(id, topic, records)          checked at once, written later; may be repeated
    commit(id)                    -> the places of all records
    abort(id)                        nothing of it was, or will be, written

Nothing is written before the commit, which is one append of the engine: a reader sees all records
or none. A transaction that is not committed in time is aborted. So only engines that are *atomic*
have transactions; others say that they have not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.topics.errors import (
    TooManyTransactions,
    TopicError,
    TransactionsUnsupported,
    TransactionTooLarge,
    UnknownTransaction,
)
from kupool.topics.records import NewRecord, sizes_of
from kupool.topics.service import Topics, Writing, Written


@dataclass(frozen=True)
class TransactionLimits:
    """The most transactions at once, of all and of one owner, the records and bytes of one, and
    its seconds.
    """

    transactions: int = 1000
    of_owner: int = 100
    records: int = 10_000
    size: int = 16 * 1024 * 1024
    timeout: float = 60.0


class _Transaction:
    """What was added so far."""

    def __init__(self, owner: str, timer: IDelayedCall) -> None:
        self.owner = owner
        self.timer = timer
        self.writings: list[Writing] = []
        self.records = self.size = 0


class TopicTransactions:
    """The transactions that are under way."""

    _log = Logger()

    def __init__(self, topics: Topics, clock: IReactorTime, limits: TransactionLimits) -> None:
        self._topics = topics
        self._clock = clock
        self._limits = limits
        self._open: dict[int, _Transaction] = {}
        self._begun = 0
        #: How many each owner has.
        self._owned = Counter[str]()

    def __len__(self) -> int:
        """Return the number of transactions under way."""
        return len(self._open)

    @property
    def timeout(self) -> float:
        """Seconds after which a transaction is aborted."""
        return self._limits.timeout

    def begin(self, owner: str = "") -> int:
        """Begin a transaction; returns its id. Each ``owner`` may have a limited number.

        Raises :class:`TransactionsUnsupported` or :class:`TooManyTransactions`.
        """
        if not self._topics.engine.capabilities.atomic:
            raise TransactionsUnsupported()
        if len(self._open) >= self._limits.transactions:
            raise TooManyTransactions(self._limits.transactions)
        if self._owned[owner] >= self._limits.of_owner:
            raise TooManyTransactions(self._limits.of_owner)
        self._owned[owner] += 1
        self._begun += 1
        timer = self._clock.callLater(self._limits.timeout, self._expired, self._begun)
        self._open[self._begun] = _Transaction(owner, timer)
        return self._begun

    def add(
        self,
        transaction: int,
        topic: str,
        records: Sequence[NewRecord],
        *,
        partition: int | None = None,
    ) -> None:
        """Add records.

        Raises :class:`UnknownTransaction`, :class:`TransactionTooLarge`, and what
        :meth:`Topics.produce` fails with; the transaction is then as it was before.
        """
        found = self._of(transaction)
        if not records:
            return
        writing = Writing(topic, tuple(records), partition)
        self._topics.prepare(writing)
        count, size = found.records + len(records), found.size + sum(sizes_of(records))
        if count > self._limits.records or size > self._limits.size:
            raise TransactionTooLarge(self._limits.records, self._limits.size)
        found.writings.append(writing)
        found.records, found.size = count, size

    def commit(self, transaction: int) -> Deferred[list[list[Written]]]:
        """Write what was added; fires with the places of the records of each :meth:`add`.

        Fails with :class:`UnknownTransaction`, and as :meth:`Topics.produce` does: then nothing was
        written, and the transaction has ended.
        """
        try:
            found = self._end(transaction)
        except TopicError as error:
            return fail(error)
        return self._topics.produce_all(found.writings)

    def abort(self, transaction: int) -> None:
        """Write nothing; raises :class:`UnknownTransaction`."""
        self._end(transaction)

    def _of(self, transaction: int) -> _Transaction:
        found = self._open.get(transaction)
        if found is None:
            raise UnknownTransaction(transaction)
        return found

    def _end(self, transaction: int) -> _Transaction:
        found = self._of(transaction)
        del self._open[transaction]
        self._owned[found.owner] -= 1
        if not self._owned[found.owner]:
            del self._owned[found.owner]
        if found.timer.active():
            found.timer.cancel()
        return found

    def _expired(self, transaction: int) -> None:
        found = self._end(transaction)
        self._log.warn(
            "Transaction {id} with {count} records was not committed in {seconds:g} s: aborted",
            id=transaction,
            count=found.records,
            seconds=self._limits.timeout,
        )

    def close(self) -> None:
        """Abort all transactions."""
        for transaction in list(self._open):
            self._end(transaction)


__all__ = ["TopicTransactions", "TransactionLimits"]
