"""Rooms: members meet in a room, which handles one message at a time.

A room takes its messages from one bounded queue, and does not affect the members of other rooms. A
:class:`~kupool.rooms.lobby.Lobby` keeps the rooms of a process and knows which member is where. An
application implements :class:`IRoomHooks`. All times come from the given clock.
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

#: The new places of names that this package used to have.
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
