"""Matchmaking and a small game: the lowest of the numbers 1 to 9 that only one player picked wins.

``{"id":1,"method":"play","params":{"player":"ann","mode":"duel"}}`` waits for other players. When
there are enough, the game begins. In each round ``{"id":2,"method":"pick","params":{"number":3}}``
picks a number before time is up. ``stats`` counts matches and timers. Ctrl-C ends the program.
"""

from argparse import ArgumentParser, Namespace
from collections import Counter
from itertools import count
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from kupool.errors import ALREADY_EXISTS, FORBIDDEN, RequestError
from kupool.net import Connection, Router, Server, run
from kupool.rooms import (
    Disconnected,
    Incoming,
    Left,
    Lobby,
    LobbyObserver,
    MatchOutcome,
    MatchRequest,
    Returned,
    Room,
    RoomHooks,
    RoomSettings,
)

#: How many players each mode needs.
MODES = {"duel": 2, "party": 4}
ROUNDS = 3


class Play(Struct):
    """The params of ``play``."""

    player: Annotated[str, Meta(min_length=1, max_length=20)]
    mode: Literal["duel", "party"]


class Pick(Struct):
    """The params of ``pick``."""

    number: Annotated[int, Meta(ge=1, le=9)]


class Back(Struct):
    """The params of ``back``, from a player whose connection was lost."""

    player: str


class Game(Struct):
    """The state of a room's game."""

    round: int = 0
    picks: dict[str, int] = field(default_factory=dict)
    points: Counter[str] = field(default_factory=Counter)


class Games(RoomHooks):
    """Waits ``wait`` seconds for enough players, and ``turn`` seconds for their picks."""

    def __init__(self, wait: float, turn: float) -> None:
        self.wait = wait
        self.turn = turn
        self.numbers = count(1)

    def on_init(self, lobby: Lobby) -> None:
        """Keep the lobby."""
        self.lobby = lobby

    # -- before the game

    def on_parse_match(self, connection: Connection, request: Any) -> MatchRequest:
        """Say who wants to play what, unless they are in a game."""
        player, mode = request.params.player, request.params.mode
        if self.lobby.members.of(connection) or self.lobby.members.find(player):
            raise RequestError(ALREADY_EXISTS.about(f"a game of {player}"))
        return MatchRequest(player, mode, MODES[mode], self.wait)

    def on_match_players(self, lobby: Lobby, outcome: MatchOutcome) -> None:
        """Put the matched players into a room, or tell them that there were not enough."""
        if outcome.matched:
            room = lobby.gather(f"{outcome.mode} {next(self.numbers)}", outcome)
            room.once("round", 0, self.begin)
        else:
            for request in outcome.players:
                request.notify("nobody", {"mode": outcome.mode})

    def on_parse_user(self, connection: Connection, request: Any) -> object:
        """Let a player back in who was in a game and has lost the connection."""
        match request.params:
            case Back(player):
                member = self.lobby.members.find(player)
                if member is not None and not member.online:
                    return member.room.code, player
        return None

    # -- the game

    def on_create_room(self, room: Room) -> None:
        """Set up the game."""
        room.data = Game()

    def begin(self, room: Room, key: str) -> None:
        """Begin a round, which ends when time is up."""
        if len(room.members) < 2:  # the others were gone before it began
            self.finish(room)
            return
        game: Game = room.data
        game.round += 1
        game.picks.clear()
        players = list(room.members)
        room.notify("round", {"number": game.round, "players": players, "seconds": self.turn})
        room.once("turn", self.turn, self.end)

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        """Take a player's pick; the last one ends the round."""
        game: Game = room.data
        match incoming.body.params:
            case Pick(number):
                if incoming.member.user in game.picks or not room.has_timer("turn"):
                    return FORBIDDEN
                game.picks[incoming.member.user] = number
                if len(game.picks) == len(room.members):
                    room.once("turn", 0, self.end)
        return True

    def end(self, room: Room, key: str) -> None:
        """End a round: the lowest number that only one player picked wins it."""
        game: Game = room.data
        often = Counter(game.picks.values())
        alone = {number: user for user, number in game.picks.items() if often[number] == 1}
        winner = alone[min(alone)] if alone else None
        if winner is not None:
            game.points[winner] += 1
        room.notify("result", {"picks": game.picks, "winner": winner})
        if game.round < ROUNDS:
            room.once("round", self.turn / 4, self.begin)
        else:
            self.finish(room)

    def on_dispatch_system_message(self, room: Room, event: object) -> None:
        """Tell the others who is away, and end a game in which only one is left."""
        match event:
            case Disconnected(member):
                room.notify("away", {"player": member.user})
            case Returned(member):
                room.notify("back", {"player": member.user})
            case Left() if len(room.members) == 1:
                self.finish(room)

    def finish(self, room: Room) -> None:
        """Say who has won, and end the room."""
        room.notify("over", {"points": room.data.points})
        room.close("over")

    def stats(self, connection: Connection, request: Any) -> object:
        """Return the statistics: matches by mode, timers by name."""
        return {
            "games": len(self.lobby),
            "matches": self.lobby.matchmaker.statistics(),
            "timers": self.lobby.tasks.snapshot(),
        }


def make(reactor: Any, arguments: Namespace) -> Server:
    """Return the server."""
    games = Games(arguments.wait, arguments.turn)
    lobby, router = Lobby(reactor, games, RoomSettings(grace=arguments.turn)), Router()
    router.add("play", lobby.match, Play)
    router.add("pick", lobby.request, Pick)
    router.add("back", lobby.request, Back)
    router.add("stats", games.stats)
    server = Server(reactor, LobbyObserver(router, lobby))
    server.before_stop(lambda stopping: lobby.close())
    return server


def options(parser: ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("--wait", type=float, default=30.0, help="seconds for enough players")
    parser.add_argument("--turn", type=float, default=10.0, help="seconds to pick a number")


if __name__ == "__main__":
    run(make, __doc__, options)
