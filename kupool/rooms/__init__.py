"""Rooms: places where members meet, each with its own order of things.

A room handles one message at a time, from one bounded queue; what a room's members do to it
costs the members of other rooms nothing. A :class:`~kupool.rooms.lobby.Lobby` keeps the
rooms of a process and knows who is where; the application is an implementation of
:class:`IRoomHooks`. Everything runs on the clock it is given.
"""

from __future__ import annotations

from kupool.rooms.events import (
    Closing,
    Created,
    Disconnected,
    Incoming,
    Joined,
    Left,
    Renamed,
    Returned,
    RoomBusy,
    RoomGone,
    TakenOver,
    TimerFired,
)
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.interfaces import IRoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.matchmaking import Matchmaker, MatchOutcome, MatchRequest
from kupool.rooms.members import Member, Presence
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Room
from kupool.rooms.settings import RoomSettings
from kupool.rooms.wheel import Wheel

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
    "Wheel",
]
