"""Reactor turns: calls at the end of a turn, and a fair share of each turn for busy peers.

A peer that has sent more than its share of a turn is queued here. Queued peers get their
turns in order, and together at most :data:`SHARE` of each reactor turn. So a flood from
many peers does not delay the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from kupool.timing.chunks import Chunks

#: Seconds of each reactor turn for the queued connections.
SHARE = 0.003


class Turns(Protocol):
    """Schedules calls at the end of a reactor turn."""

    def after_turn(self, call: Callable[[], object]) -> None:
        """Call a function once the data that was read in this turn has been handled."""

    def as_turn(self, call: Callable[[], object]) -> None:
        """Call a function as a turn of its own: what it writes is sent together."""


class Behind(Protocol):
    """A peer with unhandled data beyond its share of a turn."""

    def go_on(self) -> object:
        """Handle the next share; does nothing for a connection that has ended."""


class ReactorTurns:
    """The turns of a reactor whose transports already join the writes of a turn."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def after_turn(self, call: Callable[[], object]) -> None:
        """Call a function in the next turn."""
        self._clock.callLater(0, call)

    def as_turn(self, call: Callable[[], object]) -> None:
        """Call a function now."""
        call()


class Queue:
    """The peers with unhandled data, in order of arrival."""

    def __init__(self, clock: IReactorTime, turns: Callable[[], Turns]) -> None:
        self._clock = clock
        self._turns = turns
        self._waiting: deque[Behind] = deque()
        self._chunks = Chunks(clock, self._turn)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, peer: Behind) -> None:
        """Queue a peer for a later turn."""
        self._waiting.append(peer)
        self._chunks.wake()

    def _turn(self) -> bool:
        self._turns().as_turn(self._serve)
        return bool(self._waiting)

    def _serve(self) -> None:
        """Serve the queued peers until the share of this turn is used up; at least one of them."""
        now = self._clock.seconds
        until = now() + SHARE
        for _ in range(len(self._waiting)):
            self._waiting.popleft().go_on()
            if now() >= until:
                return


__all__ = ["SHARE", "Behind", "Queue", "ReactorTurns", "Turns"]
