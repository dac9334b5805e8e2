"""Who may use a route: under which host, with which token, from which pages."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from twisted.web.server import Request

from kupool.web.access import OPERATOR, WebAccess
from kupool.web.answers import ApiError, header
from kupool.web.control import KnownHosts
from kupool.web.upgrade import normal_origin


class VisitorGate:
    """Admits requests that name a known host and bear the ``token``, where there is one.

    With ``access``, an operator is admitted too, and nobody else without the token. ``origins``
    are the pages elsewhere that may ask from a browser, such as ``https://example.org``, and
    read the answers; no other page may. Raises :class:`ValueError` for one that is no origin,
    and for ``*``, which would be all.
    """

    def __init__(
        self,
        hosts: KnownHosts,
        token: str = "",
        origins: Collection[str] = (),
        access: WebAccess | None = None,
    ) -> None:
        if "*" in origins:
            raise ValueError("'*' is every page there is: name those that may")
        self._hosts = hosts
        self._token = token
        self._origins = frozenset(map(normal_origin, origins))
        self._access = access

    async def admit(self, request: Request) -> None:
        """Refuse a request that may not be made; raises :class:`ApiError`."""
        self._hosts.require(request)
        self._admit_page(request)
        if self._token:
            given = request.getHeader(b"authorization") or b""
            if hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                return
            if self._access is None:
                raise ApiError(401, "unauthorized", {b"WWW-Authenticate": b"Bearer"})
        if self._access is not None:
            await self._access.authorize(request, OPERATOR)

    def preflight(self, request: Request, method: str) -> object:
        """Tell a browser what pages elsewhere may do; raises :class:`ApiError`."""
        self._admit_page(request)
        request.setHeader("Access-Control-Allow-Methods", method)
        request.setHeader("Access-Control-Allow-Headers", "Authorization, Content-Type")
        return {}

    def _admit_page(self, request: Request) -> None:
        origin = header(request, b"origin")
        if origin is None:
            return
        request.setHeader("Vary", "Origin")
        try:
            known = normal_origin(origin) in self._origins
        except ValueError:
            known = False
        if known:
            request.setHeader("Access-Control-Allow-Origin", origin)
        elif not self._hosts.knows(origin.partition("://")[2]):
            raise ApiError(403, "Origin: pages of that site may not use this")


__all__ = ["VisitorGate"]
