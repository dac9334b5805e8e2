"""The limits and times of rooms that are spread over hosts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpreadSettings:
    """Times are in seconds, sizes in bytes. All hosts need the same ``name`` and ``points``.

    ``name`` begins the topics on the bus; ``points`` are the places of each host on the
    ring. A new host looks at who is there for ``settle`` before it takes rooms. When a host
    counts as gone is the bus's to say (:mod:`kupool.bus.members`).

    ``chunk`` is the most that one message of the bus carries, ``max_entry`` the most that
    one message of a room or a room's state may be, ``max_outbound`` what may wait for one
    other host: of more, broadcasts are dropped and messages refused. An answer is waited
    for ``answer_timeout``. ``sender_limit`` unanswered messages of one connection may be
    under way before nothing more is read from it. A room that moves has ``move_timeout``;
    for ``window`` after a change of the ring a room's new host asks the one before.
    """

    name: str = "rooms"
    points: int = 128
    max_hosts: int = 256
    settle: float = 1.0
    chunk: int = 40_000
    max_entry: int = 1024 * 1024
    max_outbound: int = 8 * 1024 * 1024
    answer_timeout: float = 40.0
    sender_limit: int = 64
    move_timeout: float = 20.0
    window: float = 60.0

    def __post_init__(self) -> None:
        """Raise :class:`ValueError` for a limit that lets nothing through."""
        for name in ("points", "max_hosts", "chunk", "max_entry", "max_outbound", "sender_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


__all__ = ["SpreadSettings"]
