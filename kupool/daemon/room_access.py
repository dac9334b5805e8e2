"""Permissions for the daemon's rooms and matches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kupool.bus.permissions import Permissions, Rule, check_pattern, parse_rule
from kupool.session.connection import Connection
from kupool.settings import NodeRoomsSettings

#: What a rule may let users do. The names are those of :mod:`kupool.rooms.service`, which is
#: imported only where there are rooms.
CREATE, JOIN, MATCH = ROOM_ACTIONS = ("create", "join", "match")


class RoomAccess:
    """Decides which rooms a session may create and join, and in which modes it may wait.

    ``create``, ``join`` and ``match`` of the settings are patterns that apply to every session;
    ``permissions`` are rules for some users. Names have levels like topics of the bus. ``user_of``
    returns the user of a connection. Raises :class:`ValueError` for an invalid rule.
    """

    def __init__(self, settings: NodeRoomsSettings, user_of: Callable[[Connection], str]) -> None:
        self._user_of = user_of
        self.use(settings)

    def use(self, settings: NodeRoomsSettings) -> None:
        """Apply other settings from now on; users who are in a room stay in it."""
        self._rules = Permissions(_rules(settings))

    def __call__(self, connection: Connection, action: str, name: str) -> bool:
        """Return whether the user of a connection may do something with a room or a mode."""
        return self._rules.allow(self._user_of(connection), action, name)


def _rules(settings: NodeRoomsSettings) -> Iterator[Rule]:
    for action, patterns in (
        (CREATE, settings.create),
        (JOIN, settings.join),
        (MATCH, settings.match),
    ):
        for pattern in patterns:
            yield Rule("*", action, check_pattern(pattern))
    for text in settings.permissions:
        yield parse_rule(text, ROOM_ACTIONS)


__all__ = ["ROOM_ACTIONS", "RoomAccess"]
