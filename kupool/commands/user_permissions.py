"""``kupool config --user``: what one user may do, and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kupool.accounts.entries import BrokenAccounts
from kupool.accounts.file import AccountFile
from kupool.daemon.checks import check
from kupool.daemon.permissions import grants_of
from kupool.permissions.grants import Grant
from kupool.permissions.offered import KINDS, ROUTE, TOPIC, route_path
from kupool.permissions.roles import ANONYMOUS, ORDER, WORKER
from kupool.permissions.table import PermissionTable
from kupool.printable import printable
from kupool.settings import Loaded

#: The columns of what is shown.
COLUMNS = ("kind", "action", "pattern", "from")


class Known(NamedTuple):
    """A role of a user, and where that comes from."""

    role: str
    source: str


def permission_rows(loaded: Loaded, user: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each role of a user, and for each permission with the highest of them.

    Raises :class:`ValueError` for settings that the daemon would refuse, and for a user without an
    account; :class:`OSError` if the account file cannot be read.
    """
    check(loaded)
    roles = known_roles(loaded, user)
    for known in roles:
        yield "role", "", known.role, known.source
    highest = max((known.role for known in roles), key=ORDER.index)
    granted = list(PermissionTable(grants_of(loaded.settings)).applied(user, highest))
    for kind in KINDS:
        for action in kind.actions:
            for grant in granted:
                if grant.rule.action == action:
                    yield kind.name, action, _pattern(grant), _source(loaded, grant.source)
        if kind is TOPIC and user in loaded.settings.bus.operators:
            for action in kind.actions:
                yield kind.name, action, ">", _source(loaded, "bus_operators")


def known_roles(loaded: Loaded, user: str) -> list[Known]:
    """Return the roles of a user: of the password, and of tokens with others; at least one."""
    checkers = loaded.settings.listen.auth
    if not checkers:
        return [Known(ANONYMOUS, "no --auth")]
    found: dict[str, Known] = {}
    for kind, _, path in (text.partition(":") for text in checkers):
        if kind != "file":
            continue
        try:
            accounts = AccountFile(path).read()
        except BrokenAccounts as error:
            raise ValueError(f"{path}: {error}") from None
        password = accounts.passwords.get(user)
        secrets = [password] if password is not None else []
        secrets += [token for token in accounts.tokens.values() if token.name == user]
        for secret in secrets:
            token = f", token {secret.label}" if secret is not password else ""
            found.setdefault(secret.role, Known(secret.role, f"{path}{token}"))
    if found:
        return list(found.values())
    others = [text.partition(":")[0] for text in checkers if not text.startswith("file:")]
    if others:
        return [Known(WORKER, f"checker {others[0]}, which has no roles")]
    raise ValueError(f"auth: there is no account {printable(user)!r}")


def _pattern(grant: Grant) -> str:
    rule = grant.rule
    return route_path(rule.pattern) if rule.action in ROUTE.actions else rule.pattern


def _source(loaded: Loaded, name: str) -> str:
    return f"{name}, {loaded.sources[name]}" if name in loaded.sources else name


__all__ = ["COLUMNS", "permission_rows"]
