"""Grants: what users or a role may do, as the settings say it in rules. Pure.

A rule is a line of text: WHO ACTION PATTERN, as ``@operator GET /bans`` or
``bank subscribe bank.>``. WHO is a user, a prefix of names followed by ``*``, ``*`` for everybody,
or ``@`` and a role, which includes the roles above it.
"""

from __future__ import annotations

from typing import NamedTuple

from kupool.bus.permissions import OWN_NAME, Rule, check_pattern, check_users
from kupool.bus.topics import matches
from kupool.patterns import levels_of
from kupool.permissions.offered import (
    ACTIONS,
    CHANNEL,
    DEFAULT_NAMES,
    METHOD,
    OFFERED,
    ROUTE,
    Offered,
    route_name,
)
from kupool.permissions.roles import ANONYMOUS, ORDER


class Grant(NamedTuple):
    """A rule for those users who have at least a role; ``source`` says where it is from."""

    rule: Rule
    role: str = ANONYMOUS
    source: str = ""

    @property
    def by_role(self) -> bool:
        """Whether it is for all users with the role."""
        return self.rule.users == "*"

    def covers(self, offered: Offered) -> bool:
        """Return whether it is about a method or a route."""
        rule = self.rule
        return rule.action == offered.action and matches(rule.pattern, offered.levels)


def default_grant(offered: Offered) -> Grant:
    """Return the grant of the default role of a method or a route."""
    return Grant(Rule("*", offered.action, offered.levels), offered.role, "default")


def default_name_grants() -> list[Grant]:
    """Return the grants of :data:`DEFAULT_NAMES`; rules of the settings add to them."""
    return [
        Grant(Rule("*", action, pattern), role, "default")
        for role, action, pattern in DEFAULT_NAMES
    ]


def parse_grant(text: str, source: str = "") -> Grant:
    """Return the grant in a rule; raises :class:`ValueError`, which quotes the rule."""
    try:
        return _parsed(text.split(), source)
    except ValueError as error:
        raise ValueError(f"{text!r:.100}: {error}") from None


def _parsed(words: list[str], source: str) -> Grant:
    if len(words) != 3 or words[1] not in ACTIONS:
        raise ValueError(
            f"expected WHO ACTION PATTERN, where ACTION is one of {', '.join(ACTIONS)}, as "
            f"'bank subscribe bank.>', '@worker publish inbox.{OWN_NAME}' or '@operator GET /stats'"
        )
    who, action, pattern = words
    role, users = ANONYMOUS, who
    if who.startswith("@"):
        role, users = who[1:], "*"
        if role not in ORDER:
            raise ValueError(f"{who} is not one of the roles @{', @'.join(ORDER)}")
    else:
        check_users(users)
    if action in ROUTE.actions:
        if not pattern.startswith("/") or "." in pattern:
            raise ValueError(f"{pattern!r} is not the path of a route, as /stats or /bans/*")
        pattern = route_name(pattern)
    if action in CHANNEL.actions:
        pattern = levels_of(pattern)
    grant = Grant(Rule(users, action, check_pattern(pattern)), role, source)
    if action in (*METHOD.actions, *ROUTE.actions):
        _check_offered(grant)
    return grant


def _check_offered(grant: Grant) -> None:
    """Refuse a rule about no method and no route, or one that would have no effect."""
    found = [offered for offered in OFFERED.values() if grant.covers(offered)]
    if not found:
        kind = METHOD if grant.rule.action in METHOD.actions else ROUTE
        raise ValueError(f"there is no such {kind.name}")
    if all(offered.open for offered in found):
        raise ValueError(f"{found[0].name} is open to everybody, and stays so")
    for offered in found:
        everybody = grant.by_role and grant.role == ANONYMOUS
        if everybody and offered.changes and offered.role != ANONYMOUS:
            raise ValueError(f"{offered.name} changes something, and needs a role or a user")


__all__ = ["Grant", "default_grant", "default_name_grants", "parse_grant"]
