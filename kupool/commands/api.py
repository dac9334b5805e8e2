"""The daemon's HTTP API as a command uses it: one call of an operation, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from twisted.internet import error as errors
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from kupool.client.failures import ClientError

#: Seconds within which an answer comes.
TIMEOUT = 10.0

#: The same for what frees much storage, or goes through a whole topic.
LONG = 600.0

#: The most connections that are kept for further requests.
KEPT = 32

#: Statuses that another request may not get: too many requests, or away for now.
_LATER = (408, 429, 502, 503, 504)


class ApiTarget(NamedTuple):
    """Where the API is, as ``http://HOST:PORT``, and what the header ``Authorization`` has, empty
    for nobody.
    """

    url: str
    authorization: str = ""


class ApiRefused(ClientError):
    """The daemon answered with an error: the HTTP status, a text, and a code of the error table.

    ``later`` says that it may answer otherwise later.
    """

    def __init__(self, status: int, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.code = code
        self.later = status in _LATER


class ApiAway(ClientError):
    """There was no answer: it is not known whether the daemon did anything."""


class ApiClient:
    """Calls operations of the HTTP API, many at once if need be."""

    def __init__(self, reactor: Any, target: ApiTarget) -> None:
        self.reactor = reactor
        self._target = target
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = KEPT
        # What failed is repeated by those who know that it may be.
        self._pool.retryAutomatically = False
        self._agent = Agent(reactor, connectTimeout=TIMEOUT, pool=self._pool)

    async def read(
        self, operation: str, params: Mapping[str, object], *, timeout: float = TIMEOUT
    ) -> Any:
        """Call an operation that changes nothing, such as ``topic.list``; returns its result.

        Raises :class:`ApiRefused`, or :class:`ApiAway` if there is no answer in ``timeout``
        seconds. May be cancelled.
        """
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params.items()}
        path = f"{_path(operation)}?{urlencode(texts)}" if texts else _path(operation)
        return await self._call(b"GET", path, None, timeout=timeout)

    async def change(
        self, operation: str, params: Mapping[str, object], *, timeout: float = TIMEOUT
    ) -> Any:
        """Call any operation and return its result; raises as :meth:`read` does."""
        body = msgspec.json.encode(params)
        return await self._call(b"POST", _path(operation), body, timeout=timeout)

    async def _call(self, method: bytes, path: str, body: bytes | None, *, timeout: float) -> Any:
        headers = Headers({"User-Agent": ["kupool"]})
        if self._target.authorization:
            headers.setRawHeaders("Authorization", [self._target.authorization])
        producer = None
        if body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
            producer = FileBodyProducer(BytesIO(body))

        def too_late(_: object, seconds: float) -> Failure:
            return Failure(ApiAway(f"{self._target.url}: no answer in {seconds:g} s"))

        url = (self._target.url + path).encode()
        asked = self._agent.request(method, url, headers, producer)
        try:
            response = await asked.addTimeout(timeout, self.reactor, too_late)
            reading = readBody(response)
            data = await reading.addTimeout(timeout, self.reactor, too_late)
        except ApiAway:
            raise
        except Exception as error:  # of many libraries: connection, TLS, DNS, HTTP
            if _is_cancelled(error):
                raise CancelledError() from None
            raise ApiAway(f"{self._target.url}: {_reason(error)}") from None
        return self._result(response.code, data)

    def _result(self, status: int, data: bytes) -> Any:
        try:
            found = msgspec.json.decode(data)
        except ValueError:
            raise ApiRefused(
                status,
                f"{self._target.url} answered with status {status} and no JSON: is it the HTTP "
                "API of KuPool?",
            ) from None
        if status < 300:
            return found
        told = found if isinstance(found, dict) else {}
        code = told.get("code")
        text = str(told.get("error", f"status {status}"))
        raise ApiRefused(status, text, code if isinstance(code, int) else None)

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._pool.closeCachedConnections()


def _path(operation: str) -> str:
    return f"/api/{operation.replace('.', '/')}"


def _cause(error: Exception) -> BaseException:
    """Return the first of the reasons that an error of the HTTP client has, or itself."""
    reasons = getattr(error, "reasons", None)
    if not reasons:
        return error
    cause: BaseException = reasons[0].value
    return cause


def _is_cancelled(error: Exception) -> bool:
    return isinstance(_cause(error), CancelledError)


def _reason(error: Exception) -> str:
    """Return in one line why there is no answer, and what to do where that is known."""
    cause = _cause(error)
    if isinstance(cause, errors.ConnectionRefusedError):
        return "connection refused: is the daemon running? --url says where its HTTP API is"
    return " ".join((str(cause) or type(cause).__name__).split())


__all__ = ["LONG", "TIMEOUT", "ApiAway", "ApiClient", "ApiRefused", "ApiTarget"]
