"""Matchmaking: players wait until enough of them have come for their mode, or their time is up."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.errors import ALREADY_EXISTS, BAD_PARAMS, TOO_MANY_REQUESTS, RequestError
from kupool.rooms.broadcast import notification
from kupool.rooms.timers import LobbyTimers, RoomTimer
from kupool.session.connection import Connection

#: The mode under which further modes are counted when the statistics are full.
OTHER = "other"


class MatchRequest(NamedTuple):
    """A player's request for a match with others of the same mode and ``needed`` number.

    ``needed`` includes the player. ``timeout`` is in seconds. ``data`` belongs to the application.
    ``connection`` is the one on which the player asked a lobby.
    """

    player: str
    mode: str
    needed: int
    timeout: float
    data: object = None
    connection: Connection | None = None

    @property
    def present(self) -> bool:
        """Whether the player can be told the outcome; True without a connection."""
        return self.connection is None or self.connection.sends

    def notify(self, method: str, params: object) -> None:
        """Send the player a notification, if the connection still exists."""
        if self.connection is not None:
            self.connection.send(notification(method, params))


class MatchOutcome(NamedTuple):
    """The outcome for players in the order they came: ``matched``, or their time is up."""

    mode: str
    matched: bool
    players: tuple[MatchRequest, ...]

    @property
    def present(self) -> list[MatchRequest]:
        """The players who have not disconnected since."""
        return [player for player in self.players if player.present]


@dataclass(slots=True)
class MatchCounts:
    """The counts of one mode. Wait times are those of matched players, in seconds."""

    waiting: int = 0
    joined: int = 0
    matches: int = 0
    matched: int = 0
    timed_out: int = 0
    cancelled: int = 0
    wait_total: float = 0.0
    wait_max: float = 0.0


class _Seeker(NamedTuple):
    request: MatchRequest
    since: float


class Matchmaker:
    """Matches players first come, first served.

    ``done`` is called with every :class:`MatchOutcome`; players whose time is up at the same moment
    are in one outcome. Each player that joined is in exactly one outcome, unless they were
    cancelled. At most ``limit`` players wait (0: no limit).
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        timers: LobbyTimers,
        done: Callable[[MatchOutcome], object],
        *,
        limit: int = 0,
        max_modes: int = 1000,
    ) -> None:
        self._clock = clock
        self._timers = timers
        self._done = done
        self._limit = limit
        self._max_modes = max_modes
        self._seekers: dict[str, _Seeker] = {}
        self._queues: dict[tuple[str, int], OrderedDict[str, _Seeker]] = {}
        self._counts: dict[str, MatchCounts] = {}
        self._expired: dict[str, list[MatchRequest]] = {}

    def __len__(self) -> int:
        """Return how many players wait."""
        return len(self._seekers)

    def __contains__(self, player: object) -> bool:
        """Say whether a player waits."""
        return player in self._seekers

    def join(self, request: MatchRequest) -> None:
        """Add a player who waits; the match may be made before this returns.

        Raises :class:`RequestError`: ``bad params`` for a number below 1 or a timeout that is not
        above 0, ``already exists`` for a player who waits already, and ``too many requests``.
        """
        if request.needed < 1 or not request.timeout > 0:
            raise RequestError(BAD_PARAMS.about("needed and timeout must be above 0"))
        if request.player in self._seekers:
            raise RequestError(ALREADY_EXISTS.about(f"player {request.player}"))
        if self._limit and len(self._seekers) >= self._limit:
            raise RequestError(TOO_MANY_REQUESTS.about(f"{self._limit} players wait"))
        try:
            self._timers.once(
                self, request.player, request.timeout, self._overdue, name="match timeout"
            )
        except ValueError:
            raise RequestError(BAD_PARAMS.about("timeout is too long")) from None
        seeker = _Seeker(request, self._clock.seconds())
        counts = self._of(request.mode)
        counts.joined += 1
        counts.waiting += 1
        self._seekers[request.player] = seeker
        queue = self._queues.setdefault((request.mode, request.needed), OrderedDict())
        queue[request.player] = seeker
        if len(queue) >= request.needed:
            self._match(request.mode, list(queue.values()))

    def cancel(self, player: str) -> bool:
        """Remove a waiting player; returns whether they waited."""
        seeker = self._seekers.get(player)
        if seeker is None:
            return False
        self._remove(seeker)
        self._of(seeker.request.mode).cancelled += 1
        return True

    def stop(self) -> list[MatchRequest]:
        """Remove all waiting players, and return them."""
        left = [seeker.request for seeker in self._seekers.values()]
        for request in left:
            self.cancel(request.player)
        return left

    def statistics(self) -> dict[str, MatchCounts]:
        """Return a copy of the counts, by mode."""
        return {mode: replace(counts) for mode, counts in self._counts.items()}

    def _of(self, mode: str) -> MatchCounts:
        counts = self._counts.get(mode)
        if counts is None:
            if len(self._counts) >= self._max_modes:
                mode = OTHER
            counts = self._counts.setdefault(mode, MatchCounts())
        return counts

    def _remove(self, seeker: _Seeker) -> None:
        request = seeker.request
        del self._seekers[request.player]
        self._timers.cancel(self, request.player)
        key = (request.mode, request.needed)
        queue = self._queues[key]
        del queue[request.player]
        if not queue:
            del self._queues[key]
        self._of(request.mode).waiting -= 1

    def _match(self, mode: str, seekers: list[_Seeker]) -> None:
        counts, now = self._of(mode), self._clock.seconds()
        counts.matches += 1
        for seeker in seekers:
            self._remove(seeker)
            waited = now - seeker.since
            counts.matched += 1
            counts.wait_total += waited
            counts.wait_max = max(counts.wait_max, waited)
        self._tell(MatchOutcome(mode, True, tuple(seeker.request for seeker in seekers)))

    def _overdue(self, timer: RoomTimer) -> None:
        seeker = self._seekers[timer.key]
        self._remove(seeker)
        mode = seeker.request.mode
        self._of(mode).timed_out += 1
        if not self._expired:
            self._clock.callLater(0, self._tell_expired)
        self._expired.setdefault(mode, []).append(seeker.request)

    def _tell_expired(self) -> None:
        expired, self._expired = self._expired, {}
        for mode, requests in expired.items():
            self._tell(MatchOutcome(mode, False, tuple(requests)))

    def _tell(self, outcome: MatchOutcome) -> None:
        try:
            self._done(outcome)
        except BaseException:
            self._log.failure("A match of mode {mode} could not be handled", mode=outcome.mode)


__all__ = ["OTHER", "MatchCounts", "MatchOutcome", "MatchRequest", "Matchmaker"]
