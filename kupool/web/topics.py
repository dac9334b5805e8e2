"""Topics over HTTP: a route for each operation, with its params as JSON or in the query."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from twisted.web.server import Request

from kupool.errors import (
    BAD_PARAMS,
    FORBIDDEN,
    MALFORMED,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    ErrorText,
    RequestError,
)
from kupool.topics.api.access import Caller
from kupool.topics.api.params import FetchParams
from kupool.topics.api.table import OPERATIONS, Operation, TopicApi
from kupool.web.access import NOBODY, WebAccess
from kupool.web.answers import MAX_BODY, ApiError, ApiResource, JsonAnswer, read_json
from kupool.wire.messages import describe

#: The HTTP status of the rows of the table of errors.
STATUS = {
    20: 500,
    24: 401,
    27: 503,
    30: 400,
    32: 400,
    33: 403,
    34: 429,
    35: 404,
    36: 409,
    39: 409,
    40: 416,
    41: 409,
    42: 421,
    43: 413,
}

#: Operations whose requests may be larger than others.
LARGE = ("log.produce", "log.delay")

#: What those are told who ask for longer than there is room to wait.
TOO_MANY_POLLS = "fetches that wait for records"

#: Returns who a request is from, which comes from an address.
CallerOf = Callable[[Request, str], Caller]


class TopicRoutes:
    """Answers the routes of the operations.

    A fetch that waits for records does not count as a request meanwhile. What only reads ends when
    its visitor disconnects. What changes something goes on to its end: half done, the engine would
    not know what its file holds.
    """

    def __init__(self, api: TopicApi, access: WebAccess, caller_of: CallerOf) -> None:
        self._api = api
        self._access = access
        self._caller_of = caller_of

    async def post(self, operation: Operation, request: Request) -> object:
        """Call an operation with the params in the body, a JSON object."""
        try:
            given = read_json(request)
        except ApiError as error:
            return JsonAnswer(error.code, {"error": error.text, "code": MALFORMED.code})
        return await self._call(operation, request, given, strict=True)

    async def get(self, operation: Operation, request: Request) -> object:
        """Call an operation with the params in the query, where all values are text."""
        arguments: dict[bytes, list[bytes]] = request.args or {}
        try:
            given = {name.decode(): values[-1].decode() for name, values in arguments.items()}
        except ValueError as error:
            return _refusal(request, BAD_PARAMS.about(f"query: {error}"))
        return await self._call(operation, request, given, strict=False)

    async def _call(
        self, operation: Operation, request: Any, given: dict[str, Any], *, strict: bool
    ) -> JsonAnswer:
        try:
            params = msgspec.convert(given, operation.params, strict=strict)
        except msgspec.ValidationError as error:
            return _refusal(request, BAD_PARAMS.about(describe(error)))
        if isinstance(params, FetchParams) and params.wait_ms and not request.place.wait():
            return _refusal(request, TOO_MANY_REQUESTS.about(TOO_MANY_POLLS))
        caller = self._caller_of(request, self._access.peer(request))
        called = self._api.call(operation, caller, params)
        request.notifyFinish().addErrback(lambda _: called.cancel() if operation.reads else None)
        try:
            return JsonAnswer(200, await called)
        except RequestError as error:
            return _refusal(request, error.error)


def _refusal(request: Any, error: ErrorText) -> JsonAnswer:
    if error.code == FORBIDDEN.code and getattr(request, "identity", NOBODY) is NOBODY:
        request.setHeader(b"WWW-Authenticate", b"Bearer")
        error = UNAUTHORIZED.about("log in first")
    return JsonAnswer(STATUS.get(error.code, 500), {"error": error.text, "code": error.code})


def topic_routes(
    api: TopicApi, access: WebAccess, caller_of: CallerOf, *, most_body: int
) -> dict[str, ApiResource]:
    """Return the routes by their paths; ``most_body`` is the largest body that writes records."""
    routes = TopicRoutes(api, access, caller_of)
    found = {}
    for operation in OPERATIONS:
        handlers: dict[bytes, Any] = {b"POST": partial(routes.post, operation)}
        if operation.reads:
            handlers[b"GET"] = partial(routes.get, operation)
        most = most_body if operation.name in LARGE else MAX_BODY
        found[operation.path] = access.resource(operation.path, handlers, most_body=most)
    return found


__all__ = ["LARGE", "STATUS", "TOO_MANY_POLLS", "TopicRoutes", "topic_routes"]
