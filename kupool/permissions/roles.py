"""The roles of users, in their order. Pure."""

from __future__ import annotations

#: ``anonymous`` is everybody whose name is not proved. Each role may do what those before it may.
ANONYMOUS, WORKER, OPERATOR, ADMIN = ORDER = ("anonymous", "worker", "operator", "admin")

#: The roles that an account may have.
ACCOUNT_ROLES = ORDER[1:]


def includes(role: str, least: str) -> bool:
    """Return whether a role may do what another one may; a role that is unknown may nothing."""
    return role in ORDER and ORDER.index(role) >= ORDER.index(least)


__all__ = ["ACCOUNT_ROLES", "ADMIN", "ANONYMOUS", "OPERATOR", "ORDER", "WORKER", "includes"]
