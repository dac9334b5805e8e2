"""The settings of a pool client."""

from __future__ import annotations

from dataclasses import dataclass

from kupool.ranges import check_fields, number, whole

_EXPECTED = {
    "backoff_first": number(),
    "backoff_most": number(),
    "steady_after": number(),
    "max_attempts": whole(),
    "connect_timeout": number(above=True),
    "authorize_timeout": number(above=True),
    "answer_timeout": number(above=True),
    "ping_interval": number(),
    "silence_timeout": number(),
    "close_timeout": number(),
    "max_unanswered": whole(1),
    "retries": whole(),
    "max_frame": whole(1),
}


@dataclass(frozen=True)
class PoolClientSettings:
    """The settings of a pool client. Times are in seconds, sizes in bytes.

    - The wait between attempts is random, below a limit that starts at ``backoff_first`` and
      doubles with every failed round of the servers up to ``backoff_most``. A session that
      lasted ``steady_after`` resets the limit.
    - With ``max_attempts`` other than 0 the client gives up after that many consecutive
      failures.
    - A submission that the server could not accept temporarily is sent again up to ``retries``
      times.
    - At most ``max_unanswered`` submissions are unanswered at the same time.
    - An answer that takes longer than ``answer_timeout`` ends the connection.

    Raises :class:`ValueError` for a value that is out of its range.
    """

    backoff_first: float = 0.5
    backoff_most: float = 30.0
    steady_after: float = 10.0
    max_attempts: int = 0
    connect_timeout: float = 10.0
    authorize_timeout: float = 10.0
    answer_timeout: float = 30.0
    ping_interval: float = 55.0
    silence_timeout: float = 180.0
    close_timeout: float = 1.0
    max_unanswered: int = 1000
    retries: int = 5
    max_frame: int = 65536

    def __post_init__(self) -> None:
        check_fields(_EXPECTED, self)
