"""The routes of the server API of live channels: ``POST /api/METHOD`` with the API key.

The key is in the header ``X-API-Key``, or in ``Authorization: apikey KEY``. Without a key, a
request is for those who may use the route: admins. ``/api/refresh`` is also a route of logins;
a request with an API key is for this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.web.server import Request

from kupool.accounts.key_guard import KeyGuard
from kupool.accounts.login_guard import TryAgain
from kupool.live.centrifuge.server_api import ABSENT_METHODS, ServerApi
from kupool.web.access import WebAccess, try_again
from kupool.web.answers import ApiError, ApiResource, header

#: Begins the value of Authorization that is an API key.
_SCHEME = "apikey"


def given_key(request: Request) -> str | None:
    """Return the API key of a request, right or wrong; None if it has none."""
    key = header(request, b"x-api-key")
    if key is not None:
        return key.strip()
    kind, _, value = (header(request, b"authorization") or "").partition(" ")
    return value.strip() if kind.lower() == _SCHEME else None


class ServerApiRoutes:
    """Answers the routes; ``key`` is the API key, empty if there is none.

    The ``guard`` counts, logs and delays wrong keys.
    """

    def __init__(
        self, api: ServerApi, access: WebAccess, key: str, guard: KeyGuard, *, most_body: int
    ) -> None:
        self._api = api
        self._access = access
        self._key = key
        self._guard = guard
        self._most_body = most_body

    def routes(self, others: Mapping[str, ApiResource]) -> dict[str, ApiResource]:
        """Return the routes by their paths; where one of ``others`` has the same path, both."""
        return {
            path: _Route(self, method, self._most_body, others.get(path))
            for method in (*self._api.methods, *ABSENT_METHODS)
            for path in (f"/api/{method}",)
        }

    async def answer(self, method: str, path: str, request: Any) -> object:
        """Answer a request; raises :class:`ApiError`."""
        key = given_key(request)
        if key is None and method not in ABSENT_METHODS:
            self._access.require_page(request)
            await self._authorize(request, path)
        else:
            await self._check(key or "", self._access.peer(request))
        body: bytes = request.content.read()
        try:
            msgspec.json.decode(body or b"{}", type=dict[str, msgspec.Raw])
        except (ValueError, RecursionError):
            raise ApiError(400, "body: must be a JSON object") from None
        return await self._api.answer(method, body)

    async def _authorize(self, request: Any, path: str) -> None:
        """Raise :class:`ApiError` for a request without a key that is not from an admin."""
        try:
            await self._access.authorize(request, path)
        except ApiError as error:
            if error.code != 401:
                raise
            text = f"{error.text}; or send the API key as X-API-Key"
            raise ApiError(401, text, error.headers) from None

    async def _check(self, key: str, host: str) -> None:
        """Raise :class:`ApiError` for a wrong key."""
        try:
            right = await self._guard.check(key, self._key, host)
        except TryAgain as error:
            raise try_again(error) from None
        if right:
            return
        if not self._key:
            raise ApiError(
                401, "unauthorized: this server has no API key: set --live-api-key, or --data"
            )
        where = "that of --live-api-key, or in the file live-api-key of the data folder"
        raise ApiError(401, f"unauthorized: the API key is wrong; the right one is {where}")


class _Route(ApiResource):
    """The route of a method, and of what another resource does without a key."""

    def __init__(
        self, routes: ServerApiRoutes, method: str, most_body: int, other: ApiResource | None
    ) -> None:
        async def answer(request: Request) -> object:
            return await routes.answer(method, f"/api/{method}", request)

        super().__init__({b"POST": answer}, most_body=most_body)
        self._other = other
        # Those that there are not have routes to say so.
        self.listed = method not in ABSENT_METHODS

    @property
    def methods(self) -> list[str]:
        """The methods that are allowed, those of the other resource included."""
        others = () if self._other is None else self._other.methods
        return sorted({*super().methods, *others})

    def render(self, request: Any) -> int:
        """Answer a request."""
        other = self._other
        method = request.method.decode(errors="replace")
        if other is not None and given_key(request) is None and method in other.methods:
            return other.render(request)
        return super().render(request)


__all__ = ["ServerApiRoutes", "given_key"]
