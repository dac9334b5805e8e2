"""Settings of clients: limits, timeouts, backoff and codec."""

from __future__ import annotations

from dataclasses import dataclass, fields

from kupool.net.transport.protocols import PROTOCOLS
from kupool.ranges import check_fields, number, whole
from kupool.wire.codec import framing_of
from kupool.wire.codecs import CODECS, Codec
from kupool.wire.framing import Framing

_EXPECTED = {
    "attempts": whole(),
    "backoff_first": number(),
    "backoff_most": number(),
    "steady_after": number(),
    "connect_timeout": number(above=True),
    "timeout": number(above=True),
    "most_pending": whole(1),
    "most_outbound": whole(),
    "keepalive": number(),
    "silence": number(),
    "max_frame": whole(1),
    "close_timeout": number(),
    "write_timeout": number(above=True),
}


@dataclass(frozen=True)
class ClientSettings:
    """The settings of a client. Times are in seconds, sizes in bytes.

    - ``attempts`` is how many attempts fail before ``connect`` gives up; with 0 it never does.
    - After a first connection, the client reconnects indefinitely. The wait is random, below a
      limit that doubles from ``backoff_first`` to ``backoff_most``. The limit is reset after a
      connection that lasted as long as ``backoff_most``. A wait that the server asks for is
      added.
    - ``connect_timeout`` limits one attempt.
    - ``timeout`` limits the wait for an answer; at most ``most_pending`` requests are pending.
    - Nothing is sent while more than ``most_outbound`` bytes wait for a server that does not
      read. The connection is ended when the server has read nothing for ``close_timeout``.
    - ``keepalive`` is the time between two keepalive messages, 0 for none.
    - The connection is ended when nothing has arrived for ``silence``, 0 for never.

    Raises :class:`ValueError` for a value that is out of its range.
    """

    attempts: int = 1
    backoff_first: float = 0.5
    backoff_most: float = 30.0
    connect_timeout: float = 30.0
    timeout: float = 10.0
    most_pending: int = 1000
    most_outbound: int = 1_048_576
    keepalive: float = 55.0
    silence: float = 0.0
    max_frame: int = 65536
    close_timeout: float = 5.0

    def __post_init__(self) -> None:
        own = {f.name: _EXPECTED[f.name] for f in fields(self)}
        # The connection is also ended when the server has read nothing for this time.
        check_fields(own | {"close_timeout": number(above=True)}, self)


@dataclass(frozen=True)
class DialSettings:
    """How any client reconnects and keeps its connection. Times are in seconds, sizes in bytes.

    0 turns ``keepalive`` and ``silence`` off. For the other fields see
    :class:`ClientSettings`. Raises :class:`ValueError` for a value that is out of its
    range.
    """

    backoff_first: float
    backoff_most: float
    steady_after: float
    connect_timeout: float
    keepalive: float
    silence: float
    close_timeout: float
    write_timeout: float
    max_frame: int
    most_pending: int

    def __post_init__(self) -> None:
        check_fields({f.name: _EXPECTED[f.name] for f in fields(self)}, self)


def framing_for(codec: str | Codec | Framing) -> Framing:
    """Return the framing of a codec, given by name or as an object; raises :class:`ValueError`."""
    if isinstance(codec, Framing):
        return codec
    if not isinstance(codec, str):
        return framing_of(codec)
    if codec in PROTOCOLS:
        return PROTOCOLS[codec].framing
    if codec in CODECS:
        return framing_of(CODECS[codec](0))
    raise ValueError(f"{codec!r} is not a codec; expected one of {', '.join(CODECS)}")


__all__ = ["ClientSettings", "DialSettings", "framing_for"]
