"""The limits of a bus."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Bytes of a 64 KiB message that are kept for everything but the data: then 45,000 bytes of data in
#: base64 fit with all the rest.
_REST = 5536


@dataclass(frozen=True)
class PeerLimits:
    """Limits for one connection, and for each user and each address over all of their connections.

    A connection may have ``publishing`` publishes without an outcome, ``subscribers``, and
    ``topics`` and keys over all of its subscribers. For users and addresses: ``user_calls`` and
    ``address_calls`` limit publishes without an outcome, ``user_calls_bytes`` and
    ``address_calls_bytes`` the bytes of their data, ``user_topics`` and ``address_topics`` topics
    and keys; 0 means no limit. ``user_buffer`` and ``address_buffer`` are the shares of the buffer
    (bytes and topics) that a user or an address may use; only those in the broker's settings have
    an effect.
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

    ``buffer_count`` and ``buffer_bytes`` limit the messages of one topic that wait for a first
    subscriber, ``buffer_total`` the bytes of all topics.

    ``direct`` are patterns of topics on which a message with a key goes only to the subscribers
    that declared the key, if there are any. A call that one subscriber has not answered within
    ``share`` of its time is offered to another.

    ``peers`` are the limits for users of the bus over a connection. ``max_message`` follows from
    ``max_data``: it is the largest message on a connection, as JSON.
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
