"""Answers to pages of other sites that may use a route (CORS)."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.web.server import Request

from kupool.web.answers import NO_CONTENT, JsonAnswer
from kupool.web.upgrade import Origins

#: Seconds for which a browser remembers what a route allows.
REMEMBERED = 300


class CrossOrigin:
    """Tells browsers which pages may read what the routes answer.

    These are the pages of ``origins``; cookies are sent too.
    """

    def __init__(self, origins: Origins) -> None:
        self.origins = origins

    def admit(self, request: Request) -> None:
        """Set the headers that let a page read the answer, if it may."""
        origin = request.getHeader(b"origin")
        if origin is None or not self.origins.allows(request):
            return
        request.setHeader(b"Access-Control-Allow-Origin", origin)
        request.setHeader(b"Access-Control-Allow-Credentials", b"true")
        request.setHeader(b"Vary", b"Origin")

    def preflight(self, request: Request, methods: Sequence[bytes]) -> JsonAnswer:
        """Answer the question of a browser whether a page may send a request.

        Raises :class:`~kupool.web.answers.ApiError` if it may not.
        """
        self.origins.require(request)
        request.setHeader(b"Access-Control-Allow-Methods", b", ".join([*methods, b"OPTIONS"]))
        request.setHeader(b"Access-Control-Max-Age", b"%d" % REMEMBERED)
        wanted = request.getHeader(b"access-control-request-headers")
        if wanted is not None:
            request.setHeader(b"Access-Control-Allow-Headers", wanted)
        return JsonAnswer(NO_CONTENT, None)


__all__ = ["REMEMBERED", "CrossOrigin"]
