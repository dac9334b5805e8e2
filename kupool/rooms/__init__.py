"""Rooms: places where members meet, each with its own order of things.

A room handles one message at a time, from one bounded queue; what a room's members do to it
costs the members of other rooms nothing. A :class:`~kupool.rooms.lobby.Lobby` keeps the
rooms of a process and knows who is where; the application is an implementation of
:class:`IRoomHooks`. Everything runs on the clock it is given.
"""

from __future__ import annotations

from kupool.moved import moved_names
from kupool.rooms.audience import Presence
from kupool.rooms.events import Closing, Created, TakenOver, TimerFired
from kupool.rooms.failures import RoomBusy, RoomGone
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import IRoomHooks, Lobby
from kupool.rooms.matchmaking import Matchmaker, MatchOutcome, MatchRequest
from kupool.rooms.membership import Disconnected, Joined, Left, Renamed, Returned
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Incoming, Member, Room
from kupool.rooms.settings import RoomSettings

#: Where names are now that this package had before.
MOVED = {"Wheel": "kupool.rooms.timers.LobbyTimers"}

__getattr__ = moved_names(__name__, MOVED)

__all__ = [
    "Closing",
    "Created",
    "Disconnected",
    "IRoomHooks",
    "Incoming",
    "Joined",
    "Left",
    "Lobby",
    "LobbyObserver",
    "MatchOutcome",
    "MatchRequest",
    "Matchmaker",
    "Member",
    "Presence",
    "Renamed",
    "Returned",
    "Room",
    "RoomBusy",
    "RoomGone",
    "RoomHooks",
    "RoomSettings",
    "TakenOver",
    "TimerFired",
]
