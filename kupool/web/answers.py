"""What all routes of the API share: JSON, status codes, and errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from kupool.incidents import report
from kupool.printable import printable_json

#: The largest body of a request in bytes, unless a route takes larger ones.
MAX_BODY = 65536

JSON = b"application/json"

#: The status of an answer without a body.
NO_CONTENT = 204


class ApiError(Exception):
    """Raised by a route to answer with an error; ``text`` says what was wrong."""

    def __init__(self, code: int, text: str, headers: Mapping[bytes, bytes] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.headers = dict(headers or {})


class JsonAnswer(NamedTuple):
    """The answer of a route: an HTTP status code, and a value that is sent as JSON."""

    code: int
    body: object


#: The result of a handler that has handed the connection over: there is nothing to send.
HANDED_OVER = JsonAnswer(0, None)

#: A route's handler for one method. A result that is not a :class:`JsonAnswer` is sent with status
#: 200. The handler may raise :class:`ApiError`.
Handler = Callable[[Request], Awaitable[object]]


def encode(body: object) -> bytes:
    """Return the bytes of an answer, with a newline at the end for terminals.

    Names that peers chose are escaped, because a terminal may show the answer.
    """
    data = msgspec.json.encode(body)
    return (data if data.isascii() else printable_json(data.decode()).encode()) + b"\n"


def headers(length: int) -> dict[bytes, bytes]:
    """Return the headers of every answer."""
    return {
        b"Content-Type": JSON,
        b"Content-Length": b"%d" % length,
        b"Cache-Control": b"no-store",
        b"X-Content-Type-Options": b"nosniff",
    }


class ApiResource(Resource):
    """A path of the API, with a handler for each method; GET answers HEAD too.

    ``most_body`` is the largest body of a request, in bytes.
    """

    _log = Logger()

    #: Whether the list of all routes has it.
    listed = True

    def __init__(self, handlers: Mapping[bytes, Handler], *, most_body: int = MAX_BODY) -> None:
        Resource.__init__(self)
        self.most_body = most_body
        self._handlers = dict(handlers)
        if b"GET" in self._handlers:
            self._handlers[b"HEAD"] = self._handlers[b"GET"]

    @property
    def methods(self) -> list[str]:
        """The methods that are allowed, sorted."""
        return sorted(method.decode() for method in self._handlers)

    def getChild(self, path: bytes, request: Any) -> IResource:
        """Return a 404 for every path below."""
        return NotFound()

    def render(self, request: Any) -> int:
        """Answer a request, now or later."""
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        answered: Deferred[JsonAnswer] = Deferred.fromCoroutine(self._answer(request))
        answered.addCallback(lambda answer: None if gone else self._send(request, answer))
        answered.addErrback(
            lambda failure: self._log.failure("An HTTP answer could not be sent", failure)
        )
        return int(NOT_DONE_YET)

    async def _answer(self, request: Request) -> JsonAnswer:
        handler = self._handlers.get(request.method)
        try:
            if handler is None:
                allowed = ", ".join(self.methods)
                method = request.method.decode(errors="replace")
                raise ApiError(
                    405,
                    f"method {method} is not allowed here, only {allowed}",
                    {b"Allow": allowed.encode()},
                )
            result = await handler(request)
        except ApiError as error:
            for name, value in error.headers.items():
                request.setHeader(name, value)
            return JsonAnswer(error.code, {"error": error.text})
        except GeneratorExit:
            raise  # the coroutine is closed: it may not wait again
        except BaseException:  # including SystemExit
            path = request.path.decode(errors="replace")
            told = report(self._log, "Request for {path} failed", path=path)
            return JsonAnswer(500, {"error": told.text})
        return result if isinstance(result, JsonAnswer) else JsonAnswer(200, result)

    def _send(self, request: Request, answer: JsonAnswer) -> None:
        if answer is HANDED_OVER:
            return
        request.setResponseCode(answer.code)
        if answer.code == NO_CONTENT:
            request.finish()
            return
        body = encode(answer.body)
        for name, value in headers(len(body)).items():
            request.setHeader(name, value)
        request.write(body)  # HEAD sends no body
        request.finish()


def header(request: Request, name: bytes) -> str | None:
    """Return a header as text.

    Bytes that are not UTF-8 become a replacement character, which no valid name contains.
    """
    value = request.getHeader(name)
    return None if value is None else value.decode(errors="replace")


def tokens(request: Request, name: bytes) -> list[str]:
    """Return the elements of a header that is a list, in lower case."""
    values = request.requestHeaders.getRawHeaders(name) or ()
    texts = (value.decode(errors="replace") for value in values)
    return [element.strip().lower() for text in texts for element in text.split(",")]


class NotFound(ApiResource):
    """Every path that is not a route of the API."""

    def __init__(self) -> None:
        super().__init__({})

    async def _answer(self, request: Request) -> JsonAnswer:
        return JsonAnswer(404, {"error": f"not found: {request.path.decode(errors='replace')}"})


def read_json(request: Request) -> dict[str, object]:
    """Return the JSON object in the body of a request; an empty body is an empty object.

    Raises :class:`ApiError` unless the content type is JSON, which a form on another site cannot
    send.
    """
    declared = request.getHeader(b"content-type") or b""
    if declared.split(b";")[0].strip().lower() != JSON:
        raise ApiError(415, "Content-Type: must be application/json")
    content: Any = request.content
    text: bytes = content.read()
    if not text.strip():
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (ValueError, RecursionError):
        raise ApiError(400, "body: must be a JSON object") from None


__all__ = [
    "HANDED_OVER",
    "JSON",
    "MAX_BODY",
    "NO_CONTENT",
    "ApiError",
    "ApiResource",
    "JsonAnswer",
    "NotFound",
    "encode",
    "header",
    "headers",
    "read_json",
    "tokens",
]
