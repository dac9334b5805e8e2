"""Publishing on the bus by HTTP: one request, one answer in JSON."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Collection
from typing import Any

from twisted.web.server import Request

from kupool.bus import IBus, Kind, Model, Outcome
from kupool.web.answers import Answer, ApiError, Route, read_json
from kupool.web.control import Hosts

#: The HTTP status of each outcome.
STATUS = {
    Kind.ANSWERED: 200,
    Kind.SENT: 202,
    Kind.REFUSED: 409,
    Kind.NO_SUBSCRIBER: 503,
    Kind.TIMEOUT: 504,
}


class BusPublishing:
    """Answers ``POST /bus/publish``, and GET where ``development`` says so.

    A request has ``topic`` (or ``cmd``), ``action``, the name of a model, and ``body``,
    text, or base64 where ``base64`` is true; ``timeout_ms``, ``key`` and ``headers`` as
    in ``bus.publish``. ``token`` is what ``Authorization: Bearer`` has to hold; None lets
    everybody publish that names a known host. ``origins`` are the pages elsewhere that
    may do so from a browser, such as ``https://example.org``.
    """

    def __init__(
        self,
        bus: IBus,
        hosts: Hosts,
        *,
        token: str | None = None,
        origins: Collection[str] = (),
        development: bool = False,
    ) -> None:
        self._bus: Any = bus
        self._hosts = hosts
        self._token = token
        self._origins = frozenset(origins)
        self._development = development

    def route(self) -> Route:
        """Return the resource."""
        handlers = {b"POST": self.post, b"OPTIONS": self.options}
        if self._development:
            handlers[b"GET"] = self.get
        return Route(handlers)

    async def post(self, request: Request) -> object:
        """Publish what is in the body, a JSON object."""
        self._admit(request)
        return await self._publish(read_json(request))

    async def get(self, request: Request) -> object:
        """Publish what is in the query; for development only."""
        self._admit(request)
        arguments: dict[bytes, list[bytes]] = request.args or {}
        try:
            params: dict[str, object] = {n.decode(): v[0].decode() for n, v in arguments.items()}
            if "timeout_ms" in params:
                params["timeout_ms"] = float(str(params["timeout_ms"]))
        except ValueError as error:
            raise ApiError(400, f"query: {error}") from None
        return await self._publish(params)

    async def options(self, request: Request) -> object:
        """Tell a browser what pages elsewhere may do."""
        self._cross_origin(request)
        request.setHeader("Access-Control-Allow-Methods", "POST")
        request.setHeader("Access-Control-Allow-Headers", "Authorization, Content-Type")
        return {}

    def _admit(self, request: Request) -> None:
        self._hosts.require(request)
        self._cross_origin(request)
        if self._token is not None:
            given = request.getHeader(b"authorization") or b""
            wanted = b"Bearer " + self._token.encode()
            if not hmac.compare_digest(given, wanted):
                raise ApiError(401, "unauthorized", {b"WWW-Authenticate": b"Bearer"})

    def _cross_origin(self, request: Request) -> None:
        origin = request.getHeader("origin")
        if origin is None:
            return
        if origin in self._origins:
            request.setHeader("Access-Control-Allow-Origin", origin)
            request.setHeader("Vary", "Origin")
        elif not self._hosts.knows(origin.partition("://")[2]):
            raise ApiError(403, "Origin: not a page that may publish")

    async def _publish(self, params: dict[str, Any]) -> Answer:
        topic = params.get("topic", params.get("cmd"))
        headers, body = params.get("headers"), params.get("body", "")
        try:
            model = Model(params.get("action"))
            if not isinstance(body, str):
                raise ValueError("body: must be text")
            if headers is not None and not isinstance(headers, dict):
                raise ValueError("headers: must be an object")
            base64 = params.get("base64") in (True, "true")
            data = b64decode(body, validate=True) if base64 else body.encode()
            outcome = await self._start(model, topic, data, params, headers)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        return Answer(STATUS[outcome.kind], shown(outcome))

    def _start(
        self, model: Model, topic: Any, data: bytes, params: dict[str, Any], headers: Any
    ) -> Any:
        if model is Model.UNRELIABLE_ALL:
            return self._bus.publish_unreliable_all(data, topic, headers=headers)
        if model is Model.UNRELIABLE_RANDOM:
            return self._bus.publish_unreliable_random(data, topic, headers=headers)
        milliseconds = params.get("timeout_ms")
        if milliseconds is not None and type(milliseconds) not in (int, float):
            raise ValueError("timeout_ms: must be a number")
        timeout = None if milliseconds is None else milliseconds / 1000
        if model is Model.RELIABLE_RANDOM:
            return self._bus.publish_reliable_random(data, topic, timeout, headers=headers)
        key = params.get("key", "")
        return self._bus.publish_reliable_specific(data, topic, timeout, key=key, headers=headers)


def shown(outcome: Outcome) -> dict[str, object]:
    """Return an outcome as it is answered; ``body`` is base64 where that is no text."""
    answer: dict[str, object] = {"outcome": outcome.kind.value}
    if outcome.kind is Kind.ANSWERED:
        try:
            answer["body"] = outcome.data.decode()
        except UnicodeDecodeError:
            answer.update(body=b64encode(outcome.data).decode(), base64=True)
        answer.update(status=outcome.status, subscriber=outcome.subscriber)
    elif outcome.kind is Kind.REFUSED:
        answer["reason"] = outcome.reason
    elif outcome.kind is Kind.SENT:
        answer["receivers"] = outcome.receivers
    return answer


__all__ = ["STATUS", "BusPublishing", "shown"]
