"""Who may use a route that pages elsewhere may ask for: the same access, and what browsers need."""

from __future__ import annotations

from collections.abc import Collection

from twisted.web.server import Request

from kupool.web.access import WebAccess
from kupool.web.answers import header
from kupool.web.control import KnownHosts
from kupool.web.upgrade import Origins


class VisitorGate:
    """Admits requests that name a known host and bear the ``token``, where there is one.

    With ``access``, requests that it lets use the route are admitted as well, and no others without
    the token. ``origins`` are the other sites whose pages may send requests and read the answers,
    such as ``https://example.org``. Raises :class:`ValueError` for a text that is not an origin,
    and for ``*``, which would mean every site.
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
        self._origins = Origins(origins, hosts, any_port=True, setting="--bus-origins")
        self._access = access
        if token:
            self._access = (access or WebAccess(hosts)).with_token(token)

    async def admit(self, request: Request, path: str) -> None:
        """Refuse a request to a route that may not be made; raises :class:`ApiError`."""
        self._hosts.require(request)
        self._admit_page(request)
        if self._access is not None:
            await self._access.authorize(request, path)

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
        self._origins.require(request)
        if self._origins.names(origin):
            request.setHeader("Access-Control-Allow-Origin", origin)


__all__ = ["VisitorGate"]
