"""Permissions: rules that let users do something with topics or names. Pure.

A rule is a line of text: a user, an action and a pattern, as ``bank subscribe orders.>``. The user
is a name, a prefix of names followed by ``*``, or ``*`` for everybody. The pattern is a pattern of
topics; a level ``{user}`` stands for the name of the user who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kupool.bus.topics import MAX_LENGTH, covers, matches, pattern_name

#: The level of a pattern that stands for the user's own name.
OWN_NAME = "{user}"

#: Users whose patterns are cached.
MAX_REMEMBERED = 1000


class Rule(NamedTuple):
    """Lets some users do something with the names that a pattern covers."""

    users: str
    action: str
    pattern: str

    @property
    def personal(self) -> bool:
        """Whether the pattern contains the user's own name."""
        return self.users != "*" or OWN_NAME in self.pattern

    def is_for(self, user: str) -> bool:
        """Return whether the rule applies to a user."""
        if self.users.endswith("*"):
            return user.startswith(self.users[:-1])
        return user == self.users


def parse_rule(text: str, actions: Sequence[str]) -> Rule:
    """Return the rule in a line; raises :class:`ValueError`, which says what is expected."""
    words = text.split()
    if len(words) != 3 or words[1] not in actions:
        raise ValueError(
            f"{text!r:.100}: expected USER {'|'.join(actions)} PATTERN, "
            f"as 'bank {actions[0]} orders.{OWN_NAME}.>'"
        )
    users, action, pattern = words
    try:
        check_users(users)
    except ValueError as error:
        raise ValueError(f"{text!r:.100}: {error}") from None
    return Rule(users, action, check_pattern(pattern))


def check_users(users: str) -> str:
    """Return the users of a rule; raises :class:`ValueError` if they are neither a name nor a
    prefix.
    """
    if "*" in users[:-1]:
        raise ValueError(
            "in the name of a user '*' can only be the last character: a name, the beginning of "
            "names as 'bank*', or '*' for everybody"
        )
    return users


def check_pattern(pattern: object) -> str:
    """Return the pattern of a rule as text; raises :class:`ValueError` if it is invalid."""
    name = pattern_name(pattern)
    for level in name.split("."):
        if OWN_NAME in level and level != OWN_NAME:
            raise ValueError(f"topic {name!r}: {OWN_NAME} stands for a whole level")
    return name


class Permissions:
    """The permissions: everything that at least one rule allows."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def patterns(self, user: str, action: str) -> tuple[str, ...]:
        """Return all patterns of a user for an action, with the user's name inserted.

        If the name cannot be a level of a topic, such as a name with a wildcard, patterns with
        ``{user}`` are left out.
        """
        found = self._known.get((user, action))
        if found is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            rules = (r for r in self._rules if r.action == action and r.is_for(user))
            own = is_level(user)
            found = self._known[user, action] = tuple(
                with_name(r.pattern, user) for r in rules if own or OWN_NAME not in r.pattern
            )
        return found

    def allow(self, user: str, action: str, name: str) -> bool:
        """Return whether a user may do something with a valid name."""
        return any(matches(p, name) for p in self.patterns(user, action))

    def allow_all(self, user: str, action: str, pattern: str) -> bool:
        """Return whether a user may do something with everything that a valid pattern covers."""
        return any(covers(p, pattern) for p in self.patterns(user, action))


def is_level(name: str) -> bool:
    """Return whether a name can be a level of a topic."""
    if not name.isprintable() or any(c in name for c in " .*>"):
        return False
    return 0 < len(name) <= MAX_LENGTH


def with_name(pattern: str, user: str) -> str:
    """Return a pattern with the name of a user in it."""
    return ".".join(user if level == OWN_NAME else level for level in pattern.split("."))


__all__ = [
    "OWN_NAME",
    "Permissions",
    "Rule",
    "check_pattern",
    "check_users",
    "is_level",
    "parse_rule",
    "with_name",
]
