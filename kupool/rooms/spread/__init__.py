"""Rooms on several hosts: each room is on one host, which is determined by its code.

The hosts find each other over a :class:`kupool.bus.IBus`. A connection may be at any host. Its
messages to a room on another host are forwarded there, and answers are sent back. When a host comes
or goes, only its share of the rooms moves.
"""

from __future__ import annotations

from kupool.rooms.spread.interfaces import ISpreadHooks

__all__ = ["ISpreadHooks"]
