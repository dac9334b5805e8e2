"""The limits and times of rooms on several hosts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpreadSettings:
    """Times are in seconds, sizes in bytes. ``name`` and ``points`` must be the same on all hosts.

    ``name`` is the prefix of the topics on the bus. ``points`` is the number of places of each host
    on the ring. A new host looks for other hosts for ``settle`` before it takes rooms. The bus
    decides when a host counts as gone (:mod:`kupool.bus.members`).

    ``chunk`` is the size limit of one message of the bus, ``max_entry`` that of a message or the
    state of a room. ``max_outbound`` may wait for one other host; above that, broadcasts are
    dropped and messages refused. ``answer_timeout`` is the time limit of an answer. If
    ``sender_limit`` messages of one connection are unanswered, nothing more is read from it. A room
    has ``move_timeout`` to move. For ``window`` after a change of the ring, a room's new host asks
    the previous one for it.
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
        """Raise :class:`ValueError` for a limit that would refuse everything."""
        for name in ("points", "max_hosts", "chunk", "max_entry", "max_outbound", "sender_limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


__all__ = ["SpreadSettings"]
