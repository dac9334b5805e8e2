"""Logging in by HTTP: a name and a password for a signed token, and a cookie for browsers.

POST /api/login     {"username":"alice","password":"..."}
{"user":"alice","role":"worker","token":"...","expires_in":3600}
POST /api/refresh   a new token, for as long as the account is there and the login is not old
POST /api/logout    removes the cookie
GET  /api/me        who the request is from
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.server import Request

from kupool.accounts.web_tokens import LONGEST, WebIdentity, WebTokens
from kupool.web.access import COOKIE, NOBODY, WebAccess
from kupool.web.answers import ApiError, ApiResource, Handler, read_json, tokens

#: The error for an empty name or password, by language.
EMPTY = {
    "en": "username and password must not be empty",
    "zh": "用户名或密码不能为空",
}


class LoginPages:
    """Answers the routes under ``/api`` for logins.

    A token is valid for ``lifetime`` seconds; ``wall`` returns seconds since the epoch.
    """

    def __init__(
        self, access: WebAccess, signer: WebTokens, lifetime: float, wall: Callable[[], float]
    ) -> None:
        self._access = access
        self._signer = signer
        self._lifetime = lifetime
        self._wall = wall

    def routes(self) -> dict[str, ApiResource]:
        """Return the resources by their paths."""
        table: dict[str, dict[bytes, Handler]] = {
            "/api/login": {b"POST": self.log_in},
            "/api/refresh": {b"POST": self.refresh},
            "/api/logout": {b"POST": self.log_out},
            "/api/me": {b"GET": self.me},
        }
        resource = self._access.resource
        return {path: resource(path, handlers) for path, handlers in table.items()}

    async def log_in(self, request: Request) -> object:
        """``POST /api/login``: a token for a name and a password."""
        self._access.require_page(request)
        params = read_json(request)
        user, password = params.get("username"), params.get("password")
        if not isinstance(user, str) or not isinstance(password, str) or not user or not password:
            raise ApiError(400, EMPTY[_language(request)])
        identity = await self._access.log_in(user, password, request)
        return self._answer(request, identity._replace(since=self._wall()))

    async def refresh(self, request: Any) -> object:
        """``POST /api/refresh``: a new token for one that is still valid."""
        identity: WebIdentity = request.identity
        logins = self._access.logins
        role = "" if logins is None else logins.authenticator.role_of(identity.user)
        if not role or not identity.since:
            raise ApiError(401, "unauthorized: log in again")
        if identity.since < self._wall() - LONGEST:
            raise ApiError(401, "unauthorized: this login is too old; log in again")
        return self._answer(request, identity._replace(role=role))

    async def log_out(self, request: Request) -> object:
        """``POST /api/logout``: remove the cookie."""
        self._access.require_page(request)
        self._set_cookie(request, "", 0)
        return {}

    async def me(self, request: Any) -> object:
        """``GET /api/me``: the name and the role; an empty name for an unknown visitor."""
        identity = getattr(request, "identity", NOBODY)
        return {"user": identity.user, "role": identity.role}

    def _answer(self, request: Request, identity: WebIdentity) -> object:
        token = self._signer.sign(identity, self._lifetime)
        self._set_cookie(request, token, int(self._lifetime))
        return {
            "user": identity.user,
            "role": identity.role,
            "token": token,
            "expires_in": int(self._lifetime),
        }

    def _set_cookie(self, request: Request, token: str, seconds: int) -> None:
        request.addCookie(
            COOKIE,
            token,
            path="/",
            max_age=str(seconds),
            httpOnly=True,
            sameSite="strict",
            secure=request.isSecure(),
        )


def _language(request: Request) -> str:
    """Return the language of a request, of the languages that we have."""
    preferred = (element.partition(";")[0][:2] for element in tokens(request, b"accept-language"))
    return next((language for language in preferred if language in EMPTY), "en")


__all__ = ["EMPTY", "LoginPages"]
