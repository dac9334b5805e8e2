"""Players who wait for a match, by the connection on which they asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kupool.errors import ALREADY_EXISTS, FORBIDDEN, RequestError
from kupool.rooms.matchmaking import Matchmaker, MatchOutcome, MatchRequest
from kupool.rooms.names import check_name
from kupool.rooms.quotas import RoomQuotas
from kupool.rooms.running import Running
from kupool.rooms.settings import RoomSettings
from kupool.rooms.timers import LobbyTimers
from kupool.session.connection import Connection


class Seeking:
    """Passes players from their connections to the matchmaker, and outcomes to the hooks.

    ``quotas`` limits how many players of one address may wait. ``call`` is the hook that gets each
    outcome. ``failed`` is called with the hook's failure and the outcome.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timers: LobbyTimers,
        settings: RoomSettings,
        quotas: RoomQuotas,
        *,
        call: Callable[[MatchOutcome], object],
        failed: Callable[[Failure, MatchOutcome], object],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._quotas = quotas
        self._call = call
        self._failed = failed
        self._players: dict[Connection, str] = {}
        self._connections: dict[str, Connection] = {}
        self.matchmaker = Matchmaker(clock, timers, self._outcome, limit=settings.max_waiting)

    def start(self, connection: Connection, request: object) -> None:
        """Add a player who waits for the match that ``on_parse_match`` returned.

        Raises :class:`RequestError` if it is refused.
        """
        if request is None:
            raise RequestError(FORBIDDEN)
        if not isinstance(request, MatchRequest):
            raise TypeError(f"on_parse_match returned {request!r}")
        for name in (request.player, request.mode):
            check_name(name, self._settings.max_name)
        for known in (self._players.get(connection), request.player):
            if known is not None and (known in self.matchmaker or known in self._connections):
                raise RequestError(ALREADY_EXISTS.about(f"player {known}"))
        self._quotas.address_waiting.check(connection.host)
        self._quotas.address_waiting.take(connection.host)
        self._players[connection] = request.player
        self._connections[request.player] = connection
        limit = self._settings.max_waiting
        if limit and len(self.matchmaker) >= limit:
            self._quotas.refusals.note("players who wait")  # the matchmaker refuses the player
        try:
            self.matchmaker.join(request._replace(connection=connection))
        except BaseException:  # also if the hook returned an invalid number
            self._forget(request.player)
            raise

    def cancel(self, player: str) -> bool:
        """Remove a waiting player; returns whether they waited."""
        if not self.matchmaker.cancel(player):
            return False  # they may be about to be told that their time is up
        self._forget(player)
        return True

    def disconnected(self, connection: Connection) -> None:
        """Remove the waiting player of a connection."""
        player = self._players.get(connection)
        if player is not None:
            self._forget(player)
            self.matchmaker.cancel(player)

    def stop(self) -> None:
        """Remove all waiting players."""
        for request in self.matchmaker.stop():
            self._forget(request.player)

    def disappoint(self, mode: str, players: Iterable[MatchRequest]) -> None:
        """Tell matched players in the next turn that their match failed.

        Players who have disconnected are not told.
        """
        present = tuple(player for player in players if player.present)
        if present:
            self._clock.callLater(0, self._tell, MatchOutcome(mode, False, present))

    def _forget(self, player: str) -> None:
        connection = self._connections.pop(player, None)
        if connection is not None:
            del self._players[connection]
            self._quotas.address_waiting.give_back(connection.host)

    def _outcome(self, outcome: MatchOutcome) -> None:
        for request in outcome.players:
            # A player who disconnected and came back waits under the same name.
            if self._connections.get(request.player) is request.connection:
                self._forget(request.player)
        self._tell(outcome)

    def _tell(self, outcome: MatchOutcome) -> None:
        def done(result: object) -> None:
            if isinstance(result, Failure):
                self._failed(result, outcome)

        Running(done).start(
            lambda: self._call(outcome), self._clock, self._settings.handler_timeout
        )


__all__ = ["Seeking"]
