"""Turns of the reactor: calls at the end of one, and peers that go on in the next.

A peer that has sent more than its share of a turn waits here. Those that wait have
their turns one after another, together for at most :data:`SHARE` of each turn of the
reactor, so that a thousand that flood do not delay the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from kupool.timing.chunks import Chunks

#: Seconds of each turn of the reactor for the connections that wait.
SHARE = 0.003


class Turns(Protocol):
    """What knows when a turn begins and ends."""

    def after_turn(self, call: Callable[[], object]) -> None:
        """Call something once what was read in this turn has been handled."""

    def as_turn(self, call: Callable[[], object]) -> None:
        """Call something as a turn of its own: what it writes leaves together."""


class Behind(Protocol):
    """A peer of which more was read than is its share of a turn."""

    def go_on(self) -> object:
        """Handle the next share; harmless for one that has ended."""


class ReactorTurns:
    """Turns of a reactor whose transports join what is written in one by themselves."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def after_turn(self, call: Callable[[], object]) -> None:
        """Call something in the next turn."""
        self._clock.callLater(0, call)

    def as_turn(self, call: Callable[[], object]) -> None:
        """Call something now."""
        call()


class Queue:
    """The peers that have more to handle, in the order in which they came."""

    def __init__(self, clock: IReactorTime, turns: Callable[[], Turns]) -> None:
        self._clock = clock
        self._turns = turns
        self._waiting: deque[Behind] = deque()
        self._chunks = Chunks(clock, self._turn)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, peer: Behind) -> None:
        """Let a peer go on in a turn to come."""
        self._waiting.append(peer)
        self._chunks.wake()

    def _turn(self) -> bool:
        self._turns().as_turn(self._serve)
        return bool(self._waiting)

    def _serve(self) -> None:
        """Let those that wait now go on, as far as the share goes; at least one of them."""
        now = self._clock.seconds
        until = now() + SHARE
        for _ in range(len(self._waiting)):
            self._waiting.popleft().go_on()
            if now() >= until:
                return


__all__ = ["SHARE", "Behind", "Queue", "ReactorTurns", "Turns"]
