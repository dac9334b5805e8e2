"""The limits of a bus."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The bytes of a message of 64 KiB that its data does not need at most: 45,000 bytes in
#: base64 and all the rest fit one.
_REST = 5536


@dataclass(frozen=True)
class PeerLimits:
    """What one connection may have of a bus at a time, and each user and each address with
    all of their connections.

    ``publishing`` publishes without an outcome, ``subscribers``, and ``topics`` and keys
    over all of these. ``user_calls`` and ``address_calls`` are publishes without an outcome,
    ``user_calls_bytes`` and ``address_calls_bytes`` the bytes of their data,
    ``user_topics`` and ``address_topics`` topics and keys. With 0 there is no limit to what
    a user or an address has. ``user_buffer`` and ``address_buffer`` are the parts that they may
    have of what waits for a first subscriber, of its bytes and of its topics; those that the
    broker's settings have count.
    """

    publishing: int = 10_000
    subscribers: int = 1000
    topics: int = 100_000
    user_calls: int = 5000
    user_calls_bytes: int = 8 * 1024 * 1024
    user_topics: int = 100_000
    address_calls: int = 50_000
    address_calls_bytes: int = 32 * 1024 * 1024
    address_topics: int = 200_000
    user_buffer: float = 1 / 8
    address_buffer: float = 1 / 4


@dataclass(frozen=True)
class BusSettings:
    """Limits of a bus. Times are in seconds, sizes in bytes of data.

    ``buffer_count`` and ``buffer_bytes`` bound what waits for the first subscriber of one
    topic, ``buffer_total`` the bytes of all topics.

    ``direct`` are the topics, as patterns, on which a message with a key goes to the
    subscribers that declared this key alone, where there are any. A call that got no
    answer from one subscriber for ``share`` of its time is offered to another.

    ``peers`` is what each of those has that are on the bus over a connection.
    ``max_message`` follows from ``max_data``: the largest message on a connection, as JSON.
    """

    timeout: float = 3.0
    share: float = 1 / 3
    direct: tuple[str, ...] = ()
    max_data: int = 45_000
    max_calls: int = 100_000
    max_calls_bytes: int = 64 * 1024 * 1024
    max_unanswered: int = 10_000
    max_unanswered_bytes: int = 16 * 1024 * 1024
    max_running: int = 1000
    handler_timeout: float = 60.0
    buffer_time: float = 3.0
    buffer_count: int = 1000
    buffer_bytes: int = 1024 * 1024
    buffer_total: int = 64 * 1024 * 1024
    max_topics: int = 1000
    recent: int = 100
    max_traces: int = 1000
    peers: PeerLimits = PeerLimits()
    max_message: int = field(init=False)

    def __post_init__(self) -> None:
        largest = max(65536, -(-self.max_data // 3) * 4 + _REST)
        object.__setattr__(self, "max_message", largest)
        if not 0 < self.share <= 1:
            raise ValueError(f"share {self.share!r} is not above 0 and at most 1")


__all__ = ["BusSettings", "PeerLimits"]
