"""The grants of the settings: the setting ``permissions``, and the short forms of bus and rooms."""

from __future__ import annotations

from collections.abc import Iterator

from kupool.bus.permissions import Rule, check_pattern, parse_rule
from kupool.permissions.grants import Grant, parse_grant
from kupool.permissions.offered import ROOM, TOPIC
from kupool.settings import Settings, value_of

#: The settings whose patterns are for every session, with their actions.
PATTERNS = {
    "bus_publish": "publish",
    "bus_subscribe": "subscribe",
    "rooms_create": "create",
    "rooms_join": "join",
    "rooms_match": "match",
}

#: The settings whose rules are for named users, with the actions that they take.
RULES = {"bus_permissions": TOPIC.actions, "rooms_permissions": ROOM.actions}

#: The setting whose rules are of any kind.
GRANTS = "permissions"


def grants_of(settings: Settings) -> Iterator[Grant]:
    """Yield the grants of all settings, with their names as sources.

    Raises :class:`ValueError` for an invalid one.
    """
    for name, action in PATTERNS.items():
        for pattern in value_of(settings, name):
            yield Grant(Rule("*", action, check_pattern(pattern)), source=name)
    for name, actions in RULES.items():
        for text in value_of(settings, name):
            yield Grant(parse_rule(text, actions), source=name)
    for text in value_of(settings, GRANTS):
        yield parse_grant(text, GRANTS)


__all__ = ["GRANTS", "PATTERNS", "RULES", "grants_of"]
