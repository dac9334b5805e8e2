"""Who may use the HTTP API of the daemon: its secret, the keys of its tokens, its accounts."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kupool.accounts.logins import Logins
from kupool.accounts.web_tokens import KEYS_FILE, SigningKeys, WebIdentity, WebTokens
from kupool.daemon.files import API_KEY_FILE, SECRET_FILE
from kupool.net.transport.proxied import TrustedProxies
from kupool.permissions.roles import ADMIN
from kupool.permissions.table import PermissionTable
from kupool.settings import Settings
from kupool.storage.copies import replace_file
from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.audit import AuditTrail
from kupool.web.control import KnownHosts
from kupool.web.login import LoginPages


@dataclass(frozen=True)
class HttpAccess:
    """Who may use the HTTP API, and the routes for logging in.

    ``api_key`` is that of the server API of live channels; empty if there is none.
    """

    access: WebAccess
    routes: Mapping[str, ApiResource]
    api_key: str = ""


def make_http_access(
    settings: Settings,
    wall: Callable[[], float],
    logins: Logins | None,
    *,
    permissions: PermissionTable,
    others: Sequence[Any] = (),
    folder: Path | None,
    trail: AuditTrail | None = None,
) -> HttpAccess:
    """Read the secret and the keys in the data folder, or make them. Blocking.

    Without a data folder and a secret in the settings there is none, and keys are made for this
    process alone. ``permissions`` say who may use a route. ``others`` are the public keys of those
    whose tokens are accepted too. ``trail`` is told of each change by HTTP. Raises
    :class:`OSError` and :class:`ValueError`.
    """
    own = settings.logins
    if own.token_secret:
        keys = SigningKeys.of_secret(own.token_secret, wall)
    elif folder is not None:
        keys = SigningKeys.of_file(folder / KEYS_FILE, wall)
    else:
        keys = SigningKeys([(secrets.token_hex(8), secrets.token_urlsafe(48), wall())], wall)
    tokens = WebTokens(keys, wall, others)
    secret = own.http_secret or ("" if folder is None else read_secret(folder / SECRET_FILE))
    known = {secret: WebIdentity("local", ADMIN)} if secret else {}
    access = WebAccess(
        KnownHosts(settings.listen.http_hosts),
        secrets=known,
        logins=logins,
        tokens=tokens,
        proxies=TrustedProxies(settings.listen.http_trusted_proxies),
        permissions=permissions,
        trail=trail,
    )
    pages = LoginPages(access, tokens, own.token_lifetime, wall)
    api_key = settings.live.api_key
    if not api_key and folder is not None and settings.live.offered == "on":
        api_key = read_secret(folder / API_KEY_FILE)
    return HttpAccess(access, pages.routes(), api_key)


def read_secret(path: Path) -> str:
    """Return the secret in a file; makes it, for its owner alone. Blocking.

    Raises :class:`OSError`, and :class:`ValueError` for a file that holds something else.
    """
    with suppress(FileNotFoundError):
        found = path.read_text("utf-8").strip()
        if len(found) < 32 or not found.isascii():
            raise ValueError(f"{path}: this is not a secret; move it away")
        return found
    replace_file(path, secrets.token_urlsafe(32).encode())
    return path.read_text("utf-8")


__all__ = ["HttpAccess", "make_http_access", "read_secret"]
