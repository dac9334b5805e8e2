"""Who may use a route of the HTTP API.

A request says who it is from by ``Authorization: Bearer`` with a signed token, a token of an
account, or the secret of this machine; by ``Authorization: Basic`` with a name and a password; or
by the cookie of a login. Without any of these it may read what an operator may read if it comes
from this machine, and change nothing.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Container, Mapping
from ipaddress import ip_address
from typing import Any

from twisted.web.server import Request

from kupool.accounts.login_guard import TryAgain
from kupool.accounts.logins import Logins
from kupool.accounts.web_tokens import BadToken, WebIdentity, WebTokens
from kupool.permissions.offered import OFFERED, Offered
from kupool.permissions.roles import ADMIN, ANONYMOUS, OPERATOR, includes
from kupool.permissions.table import PermissionTable
from kupool.web.answers import MAX_BODY, ApiError, ApiResource, Handler, header
from kupool.web.audit import AuditTrail, Change
from kupool.web.control import KnownHosts, host_of
from kupool.web.upgrade import Origins

#: The cookie of a login.
COOKIE = "kupool_token"

#: Nobody who is known.
NOBODY = WebIdentity("", ANONYMOUS)

#: Whoever reads on this machine without saying who they are.
LOCAL = WebIdentity("", OPERATOR)

#: Headers that a proxy adds: the request is from somewhere else.
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-forwarded-host", b"via")

#: Methods that change nothing.
_READING = (b"GET", b"HEAD", b"OPTIONS")


class WebAccess:
    """Lets requests use routes by the user and the role, as the ``permissions`` say.

    ``secrets`` are bearer tokens that stand for somebody, such as the secret of this machine.
    ``proxies`` may name the client's address in a header. Without ``logins`` there are no logins;
    without ``tokens`` no signed token is accepted. With ``local``, requests from this machine may
    read without credentials. ``trail`` is told of each change.
    """

    def __init__(
        self,
        hosts: KnownHosts,
        *,
        secrets: Mapping[str, WebIdentity] | None = None,
        logins: Logins | None = None,
        tokens: WebTokens | None = None,
        proxies: Container[str] = (),
        permissions: PermissionTable | None = None,
        local: bool = True,
        trail: AuditTrail | None = None,
    ) -> None:
        self.hosts = hosts
        self._trail = trail
        self._pages = Origins((), hosts)
        self._permissions = permissions or PermissionTable()
        self.logins = logins
        self.tokens = tokens
        self._secrets = dict(secrets or {})
        self._local = local
        self._proxies = proxies

    def with_token(self, token: str) -> WebAccess:
        """Return the same with one more bearer token, that of an admin.

        This machine has no right to read by it then.
        """
        return WebAccess(
            self.hosts,
            secrets={**self._secrets, token: WebIdentity("token", ADMIN)},
            logins=self.logins,
            tokens=self.tokens,
            proxies=self._proxies,
            permissions=self._permissions,
            local=False,
            trail=self._trail,
        )

    def resource(
        self, path: str, handlers: Mapping[bytes, Handler], *, most_body: int = MAX_BODY
    ) -> ApiResource:
        """Return the resource of a route whose methods are for those who may use them.

        An open method of the table admits everybody by itself. Raises :class:`KeyError` for a
        method or a path that the table lacks.
        """
        return ApiResource(
            {method: self._guarded(path, method, handlers[method]) for method in handlers},
            most_body=most_body,
        )

    def _guarded(self, path: str, method: bytes, handler: Handler) -> Handler:
        route, trail = OFFERED[method.decode(), path], self._trail
        if route.open:
            return handler

        async def guarded(request: Request) -> object:
            self.require_page(request)
            identity = await self.authorize(request, path)
            if not route.audit or trail is None:
                return await handler(request)
            by = identity.user or identity.role
            return await trail.run(Change(route.audit, by, self.peer(request)), handler, request)

        return guarded

    async def authorize(self, request: Any, path: str) -> WebIdentity:
        """Return who a request to a route is from, if they may; raises :class:`ApiError`."""
        identity = await self.identify(request)
        method = b"GET" if request.method == b"HEAD" else request.method
        route = OFFERED[method.decode(), path]
        if identity is NOBODY and self._local and self.is_local(request):
            if request.method in _READING:
                identity = LOCAL
            elif not self._may(NOBODY, route):
                raise _unauthorized(
                    "log in, or send the secret in the file http-secret of the data folder as "
                    "Authorization: Bearer"
                )
        if self._may(identity, route):
            request.identity = identity
            return identity
        if identity is NOBODY:
            raise _unauthorized("log in first")
        least = self._permissions.least(route.action, route.name)
        raise ApiError(
            403, f"forbidden: needs the role {least}, {identity.user} is {identity.role}"
        )

    def is_operator(self, request: Any) -> bool:
        """Say, without checking a password, whether a request is from an operator or an admin.

        From this machine everybody counts as one.
        """
        if self._local and self.is_local(request):
            return True
        return includes(self.known(request).role, OPERATOR)

    def known(self, request: Any) -> WebIdentity:
        """Return who a request is from by a token or a cookie; nobody if that is wrong.

        A name with a password is not looked at.
        """
        kind, _, value = (header(request, b"authorization") or "").partition(" ")
        cookie = request.getCookie(COOKIE.encode())
        try:
            if kind.lower() == "bearer":
                return self._known(value.strip())
            if kind or cookie is None:
                return NOBODY
            return self._signed(cookie.decode(errors="replace"))
        except ApiError:
            return NOBODY

    def _may(self, identity: WebIdentity, route: Offered) -> bool:
        user, role = identity.user, identity.role
        return self._permissions.may(user, role, route.action, route.levels)

    async def identify(self, request: Request) -> WebIdentity:
        """Return who a request says it is from; raises :class:`ApiError` where that is wrong."""
        kind, _, value = (header(request, b"authorization") or "").partition(" ")
        if kind.lower() == "bearer":
            return self._known(value.strip())
        if kind.lower() == "basic":
            return await self._basic(value.strip(), request)
        if kind:
            raise ApiError(401, "Authorization: must be Bearer or Basic")
        cookie = request.getCookie(COOKIE.encode())
        return NOBODY if cookie is None else self._signed(cookie.decode(errors="replace"))

    def _known(self, token: str) -> WebIdentity:
        for secret, identity in self._secrets.items():
            if hmac.compare_digest(token.encode(), secret.encode()):
                return identity
        if token.count(".") == 2:
            return self._signed(token)
        if self.logins is not None:
            found = self.logins.authenticator.owner(token)
            if found is not None:
                return WebIdentity(*found)
        raise _unauthorized("the token is not known")

    def _signed(self, token: str) -> WebIdentity:
        try:
            if self.tokens is None:
                raise BadToken("this server accepts no signed tokens")
            return self.tokens.check(token)
        except BadToken as error:
            raise _unauthorized(str(error)) from None

    async def _basic(self, value: str, request: Request) -> WebIdentity:
        try:
            user, colon, password = b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            raise ApiError(401, "Authorization: expected the base64 of NAME:PASSWORD")
        return await self.log_in(user, password, request)

    async def log_in(self, user: str, password: str, request: Request) -> WebIdentity:
        """Return the identity of a name and a password; raises :class:`ApiError`."""
        if self.logins is None:
            raise ApiError(
                403, "forbidden: this server has no accounts, since it runs without --auth"
            )
        role = self.logins.knows(user, password)
        if not role:
            try:
                role = await self.logins.check(user, password, self.peer(request))
            except TryAgain as error:
                raise try_again(error) from None
        if not role:
            raise _unauthorized("wrong name or password")
        return WebIdentity(user, role)

    def require_page(self, request: Request) -> None:
        """Refuse a host that is not known, and what a page of another site asks for.

        Raises :class:`ApiError`.
        """
        self.hosts.require(request)
        self._pages.require(request)

    def is_local(self, request: Any) -> bool:
        """Say whether a request is from this machine, under a local name, and through no proxy."""
        host = getattr(request.client, "host", None)
        if host is not None and not _is_loopback(host):
            return False
        if any(request.getHeader(name) is not None for name in _FORWARDED):
            return False
        return self.hosts.known(request) and _is_local_name(header(request, b"host") or "")

    def peer(self, request: Any) -> str:
        """Return the address of who asks, which a trusted proxy names."""
        host = str(getattr(request.client, "host", None) or "")
        if host not in self._proxies:
            return host
        forwarded = header(request, b"x-forwarded-for") or ""
        for address in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
            host = address
            if host not in self._proxies:
                break
        return host


def try_again(error: TryAgain) -> ApiError:
    """Return the answer to who cannot be checked now."""
    seconds = max(1, round(error.wait))
    return ApiError(503, f"try again: {error}", {b"Retry-After": b"%d" % seconds})


def _unauthorized(why: str) -> ApiError:
    return ApiError(401, f"unauthorized: {why}", {b"WWW-Authenticate": b"Bearer"})


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _is_local_name(host: str) -> bool:
    name = host_of(host)
    return name == "localhost" or _is_loopback(name)


__all__ = ["COOKIE", "LOCAL", "NOBODY", "WebAccess", "try_again"]
