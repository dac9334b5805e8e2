"""The subscriptions of one client that have something for it, while it reads slowly.

It is driven by the client's connection: whenever there is space again, the subscriptions get their
turns. Of each 21 turns, up to 16 go to subscriptions in which an emergency waits, 4 to those with
something of high priority and 1 to the others. So none is starved. A subscription is served in
order: what is before an emergency in the same subscription goes first.
"""

from __future__ import annotations

from typing import Protocol

from kupool.live.interfaces import LivePeer
from kupool.timing.timers import Timer, Timers

#: The turns of a round, by priority; there is none of priority 0.
WEIGHTS = (0, 1, 4, 16)


class BacklogEntrant(Protocol):
    """A subscription that has something for its client."""

    @property
    def urgency(self) -> int:
        """The highest priority of what waits, or 0 if nothing does."""

    def resting_until(self, now: float) -> float:
        """Return the time until which it sends nothing; a time that has passed if it may."""

    def send_next(self) -> None:
        """Send the next publication, or begin to read the next ones. Never raises."""


class ClientBacklog:
    """Whose turn it is among the subscriptions of one client."""

    __slots__ = ("_credits", "_peer", "_pumping", "_resting", "_rings", "_timer", "_timers")

    def __init__(self, peer: LivePeer, timers: Timers) -> None:
        self._peer = peer
        self._timers = timers
        #: Those that have something, by priority, in the order of their turns.
        self._rings: tuple[dict[BacklogEntrant, None], ...] | None = None
        #: Those that may not send at this moment, as they have a maximum rate.
        self._resting: dict[BacklogEntrant, float] | None = None
        self._credits = list(WEIGHTS)
        self._timer: Timer | None = None
        self._pumping = False

    def __contains__(self, entrant: BacklogEntrant) -> bool:
        rings = self._rings or ()
        return any(entrant in ring for ring in rings) or entrant in (self._resting or ())

    def now(self) -> float:
        """Return the time, in seconds of the clock."""
        return self._timers.now()

    def enter(self, entrant: BacklogEntrant) -> None:
        """Give a subscription its turns; again, if its priority may have changed."""
        urgency = entrant.urgency
        if self._rings is None:
            self._rings = ({}, {}, {}, {})
            self._peer.wait_for_space(self)
        if self._resting is not None and entrant in self._resting:
            return
        if entrant not in self._rings[urgency]:
            self._take_out(entrant)
            self._rings[urgency][entrant] = None

    def leave(self, entrant: BacklogEntrant) -> None:
        """Give a subscription no more turns."""
        self._take_out(entrant)
        if self._resting is not None:
            self._resting.pop(entrant, None)
        self._settle()

    def changed(self) -> None:
        """There is space again, or the connection has ended; called by the connection."""
        self.pump()

    def pump(self) -> None:
        """Give turns while the client reads; does nothing if it is called in a turn."""
        if self._pumping:
            return
        self._pumping = True
        peer = self._peer
        try:
            while peer.sends and not peer.congested:
                entrant = self._next()
                if entrant is None:
                    break
                entrant.send_next()
                if entrant.urgency:
                    self.enter(entrant)
        finally:
            self._pumping = False
        if not peer.sends:
            self._rings = self._resting = None
        self._settle()

    def _next(self) -> BacklogEntrant | None:
        """Remove and return the one whose turn it is."""
        now = self._timers.now()
        while self._rings is not None and any(self._rings):
            for priority in (3, 2, 1):
                ring = self._rings[priority]
                while ring and self._credits[priority]:
                    entrant = next(iter(ring))
                    del ring[entrant]
                    until = entrant.resting_until(now)
                    if until <= now:
                        self._credits[priority] -= 1
                        return entrant
                    self._rest(entrant, until)
            self._credits[:] = WEIGHTS
        return None

    def _rest(self, entrant: BacklogEntrant, until: float) -> None:
        if self._resting is None:
            self._resting = {}
        self._resting[entrant] = until

    def _wake(self) -> None:
        self._timer = None
        now = self._timers.now()
        resting, self._resting = self._resting or {}, None
        for entrant, until in resting.items():
            if self._timers.passed(until) or until <= now:
                self.enter(entrant)
            else:
                self._rest(entrant, until)
        self.pump()

    def _take_out(self, entrant: BacklogEntrant) -> None:
        for ring in self._rings or ():
            ring.pop(entrant, None)

    def _settle(self) -> None:
        """Stop waiting for what is not needed, and set the timer for those that rest."""
        if self._rings is not None and not any(self._rings):
            self._rings = None
        if self._rings is None:
            self._peer.stop_waiting(self)
        due = min(self._resting.values()) if self._resting else None
        if self._timer is not None and (due is None or self._timer.due != due):
            self._timers.cancel(self._timer)
            self._timer = None
        if due is not None and self._timer is None:
            self._timer = self._timers.add(due, self._wake)


__all__ = ["WEIGHTS", "BacklogEntrant", "ClientBacklog"]
