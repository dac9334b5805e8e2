"""Settings of a worker pool, and the report of its stop."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from kupool.net.configuration import ServerConfig
from kupool.ranges import check_fields, number, one_of, whole


class Balance(Enum):
    """How a message is assigned to a worker.

    ``BY_CONNECTION`` keeps the order of each connection's messages, and ``BY_KEY`` that of
    each key's. The others keep no order between workers.
    """

    ROUND_ROBIN = "round-robin"
    BY_CONNECTION = "by-connection"
    BY_KEY = "by-key"
    LEAST_LOADED = "least-loaded"


class Full(Enum):
    """What happens to a message if its worker's queue stays full.

    ``REJECT`` answers ``Temporarily unavailable``, ``CLOSE`` closes the connection, and
    ``DROP`` sends nothing. Each is counted.
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
    """The settings of a pool; times are in seconds.

    - There are ``size`` workers, each with a queue of ``queue`` messages.
    - With a size of 0 there are no workers: up to ``concurrency`` messages are handled at the
      same time, and the others share one queue.
    - A message that finds its queue full waits up to ``wait`` for a place. Meanwhile nothing is
      read from its connection. After that, ``full`` applies.
    - A handler that has not ended after ``timeout`` is cancelled, its peer gets the error
      ``timeout``, and its worker goes on. 0 means no timeout.

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
        """Return the settings in a server's configuration; ``others`` override or add to them."""
        size, queue = config.worker_pool_size, config.max_worker_task_len
        return cls(size=size, queue=queue, **others)


class Drained(NamedTuple):
    """The report of a stop: the number of messages handled after it began, and the dropped ones.

    ``dropped`` counts the messages that were queued or cancelled, by method or id.
    """

    finished: int
    dropped: Counter[str]


__all__ = ["Balance", "Drained", "Full", "WorkerSettings"]
