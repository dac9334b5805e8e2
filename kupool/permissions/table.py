"""The table of permissions: whether a user with a role may do something with a name. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from kupool.bus.permissions import OWN_NAME, Permissions, Rule, is_level, with_name
from kupool.patterns import levels_of
from kupool.permissions.grants import Grant, default_grant, default_name_grants
from kupool.permissions.offered import METHODS, OFFERED, ROUTES
from kupool.permissions.roles import ANONYMOUS, ORDER, includes


class PermissionTable:
    """All grants: those of the settings, the default roles of methods and routes, and what roles
    may do with topics of the log by default.

    Everything is allowed that one grant allows, and nothing else. A grant to a role takes the place
    of the default role of each method or route that it covers; a grant to users adds to it.
    """

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self.use(grants)

    def use(self, grants: Iterable[Grant]) -> None:
        """Go by other grants of the settings from now on."""
        given = tuple(grants)
        defaults = [
            default_grant(offered)
            for offered in (*METHODS, *ROUTES)
            if offered.open or not any(g.by_role and g.covers(offered) for g in given)
        ]
        self._grants = (*defaults, *default_name_grants(), *given)
        self._of = self.select(lambda rule: True)
        #: The methods with a grant that is not for everybody: others may be called by all.
        self._limited = tuple(
            found.name
            for found in METHODS
            if not any(g.by_role and g.role == ANONYMOUS and g.covers(found) for g in self._grants)
        )

    def of(self, role: str) -> Permissions:
        """Return what users with a role may do, by their names."""
        return self._of.get(role) or self._of[ANONYMOUS]

    def select(self, wanted: Callable[[Rule], bool]) -> Mapping[str, Permissions]:
        """Return the permissions of each role from those rules alone that are wanted."""
        return {
            role: Permissions(
                g.rule for g in self._grants if includes(role, g.role) and wanted(g.rule)
            )
            for role in ORDER
        }

    def may(self, user: str, role: str, action: str, name: str) -> bool:
        """Return whether a user may do something with a valid name."""
        return self.of(role).allow(user, action, name)

    def may_channel(self, user: str, role: str, action: str, channel: str) -> bool:
        """Return whether a user may do something with a live channel, such as ``subscribe``.

        The name is any text; a colon ends a namespace.
        """
        return self.may(user, role, f"channel.{action}", levels_of(channel))

    def may_some(self, user: str, role: str, action: str) -> bool:
        """Return whether there is any name with which a user may do something."""
        return bool(self.of(role).patterns(user, action))

    def may_call_all(self, user: str, role: str) -> bool:
        """Return whether a user may call every method."""
        return all(self.may(user, role, "call", name) for name in self._limited)

    def least(self, action: str, name: str) -> str:
        """Return the least role that is enough for a method or a route, whatever the user's name.

        Empty if no role is.
        """
        offered = OFFERED[action, name]
        roles = [g.role for g in self._grants if g.by_role and g.covers(offered)]
        return min(roles, key=ORDER.index, default="")

    def applied(self, user: str, role: str) -> Iterator[Grant]:
        """Yield the grants that apply to a user, with the user's name inserted."""
        own = is_level(user)
        for grant in self._grants:
            rule = grant.rule
            if not includes(role, grant.role) or not rule.is_for(user):
                continue
            if own or OWN_NAME not in rule.pattern:
                yield grant._replace(rule=rule._replace(pattern=with_name(rule.pattern, user)))


__all__ = ["PermissionTable"]
