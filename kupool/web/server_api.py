"""The routes of the server API of live channels: ``POST /api/METHOD`` with the API key.

The key is in the header ``X-API-Key``, or in ``Authorization: apikey KEY``. Without a key, a
request is for those who may use the route: admins. ``/api/refresh`` is also a route of logins;
a request with an API key is for this one.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.web.server import Request

from kupool.live.centrifuge.server_api import ABSENT_METHODS, ServerApi
from kupool.net.refusals import Refusals
from kupool.web.access import WebAccess
from kupool.web.answers import ApiError, ApiResource, header

#: How a refused key is counted and logged.
WRONG_KEY = "wrong API key"

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

    Wrong keys are logged and counted as ``refusals``.
    """

    def __init__(
        self, api: ServerApi, access: WebAccess, key: str, refusals: Refusals, *, most_body: int
    ) -> None:
        self._api = api
        self._access = access
        self._key = key.encode()
        self._refusals = refusals
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
            await self._access.authorize(request, path)
        elif not (key and self._key) or not hmac.compare_digest(key.encode(), self._key):
            self._refusals.note(WRONG_KEY, self._access.peer(request))
            raise ApiError(401, "unauthorized: the API key is wrong")
        body: bytes = request.content.read()
        try:
            msgspec.json.decode(body or b"{}", type=dict[str, msgspec.Raw])
        except (ValueError, RecursionError):
            raise ApiError(400, "body: must be a JSON object") from None
        return await self._api.answer(method, body)


class _Route(ApiResource):
    """The route of a method, and perhaps of another resource for requests without a key."""

    def __init__(
        self, routes: ServerApiRoutes, method: str, most_body: int, other: ApiResource | None
    ) -> None:
        async def answer(request: Request) -> object:
            return await routes.answer(method, f"/api/{method}", request)

        super().__init__({b"POST": answer}, most_body=most_body)
        self._other = other
        # Those that there are not have routes to say so.
        self.listed = method not in ABSENT_METHODS

    def render(self, request: Any) -> int:
        """Answer a request."""
        if self._other is not None and given_key(request) is None:
            return self._other.render(request)
        return super().render(request)


__all__ = ["WRONG_KEY", "ServerApiRoutes", "given_key"]
