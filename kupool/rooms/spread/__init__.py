"""Rooms spread over processes: each room is on one host, found by its code.

The hosts find each other over a :class:`kupool.bus.IBus`. A connection may be at any host:
what it says to a room of another one is carried there, and what comes back is carried here.
When a host comes or goes only its share of rooms moves.
"""

from __future__ import annotations

from kupool.rooms.spread.interfaces import ISpreadHooks

__all__ = ["ISpreadHooks"]
