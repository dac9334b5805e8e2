"""How a worker pool works, and what it reports in the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from kupool.net.configuration import ServerConfig
from kupool.ranges import check_fields, number, one_of, whole


class Balance(Enum):
    """How a message finds its worker.

    ``BY_CONNECTION`` and ``BY_KEY`` keep the order of each connection's, or each key's,
    messages; the others keep none between workers.
    """

    ROUND_ROBIN = "round-robin"
    BY_CONNECTION = "by-connection"
    BY_KEY = "by-key"
    LEAST_LOADED = "least-loaded"


class Full(Enum):
    """What becomes of a message that found no room in its worker's queue in time.

    ``REJECT`` answers ``Temporarily unavailable``, ``CLOSE`` closes the connection, and
    ``DROP`` says nothing. Each is counted.
    """

    REJECT = "reject"
    CLOSE = "close"
    DROP = "drop"


_EXPECTED = {
    "size": whole(),
    "queue": whole(1),
    "balance": one_of(Balance),
    "wait": number(),
    "full": one_of(Full),
    "timeout": number(),
    "concurrency": whole(1),
}


@dataclass(frozen=True)
class WorkerSettings:
    """How a pool works; times are in seconds.

    ``size`` workers have ``queue`` places each. With a size of 0 there are no workers:
    messages are handled at once, up to ``concurrency`` of them together, and beyond that
    share one queue. A message that finds its queue full waits up to ``wait`` for a
    place, and nothing more is read of its connection meanwhile; then ``full`` says what
    becomes of it. A handler that has not ended after ``timeout`` is cancelled, its peer
    gets the error ``timeout``, and its worker goes on; 0 lets it take for ever.

    Raises :class:`ValueError` for a value that is out of its range.
    """

    size: int = 10
    queue: int = 1024
    balance: Balance | str = Balance.ROUND_ROBIN
    wait: float = 0.1
    full: Full | str = Full.REJECT
    timeout: float = 30.0
    concurrency: int = 1000

    def __post_init__(self) -> None:
        check_fields(_EXPECTED, self)

    @classmethod
    def from_config(cls, config: ServerConfig, **others: Any) -> WorkerSettings:
        """Return what a server's file says of its workers, and ``others`` beside it."""
        size, queue = config.worker_pool_size, config.max_worker_task_len
        return cls(size=size, queue=queue, **others)


class Drained(NamedTuple):
    """How a pool ended: what was still handled after the stop began, and what was not.

    ``dropped`` has the messages that were left in queues or cut off, by method or id.
    """

    finished: int
    dropped: Counter[str]


__all__ = ["Balance", "Drained", "Full", "WorkerSettings"]
