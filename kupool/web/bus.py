"""Publishes on the bus over HTTP: one request, one answer in JSON."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.web.server import Request

from kupool.bus import IBus, Kind, Model, Outcome
from kupool.bus.publishing import MAX_TIMEOUT, MIN_TIMEOUT
from kupool.bus.topics import topic_name
from kupool.errors import ErrorText
from kupool.web.answers import ApiError, ApiResource, JsonAnswer, read_json
from kupool.web.bus_status import STATUS_PATH, TRACE_PATH, BusStatusPages
from kupool.web.visitors import VisitorGate

PUBLISH_PATH = "/bus/publish"

#: The HTTP status of each outcome.
STATUS = {
    Kind.ANSWERED: 200,
    Kind.SENT: 202,
    Kind.REFUSED: 409,
    Kind.NO_SUBSCRIBER: 503,
    Kind.TIMEOUT: 504,
}


#: Says why nothing may be published to a topic; None if it may.
Refuse = Callable[[str], ErrorText | None]


class BusPublishing:
    """Answers ``POST /bus/publish``, and with ``by_get`` also GET, for development.

    A request has ``topic`` (or ``cmd``), ``action``, which is the name of a model, and ``body``,
    which is text, or base64 with ``"base64": true``. ``timeout_ms``, ``key`` and ``headers`` are as
    in ``bus.publish``.
    """

    def __init__(
        self,
        bus: IBus,
        visitors: VisitorGate,
        *,
        refuse: Refuse = lambda topic: None,
        by_get: bool = False,
    ) -> None:
        self._bus: Any = bus
        self._visitors = visitors
        self._refuse = refuse
        self._by_get = by_get

    def route(self) -> ApiResource:
        """Return the resource."""
        handlers = {b"POST": self.post, b"OPTIONS": self.options}
        if self._by_get:
            handlers[b"GET"] = self.get
        return ApiResource(handlers)

    async def post(self, request: Request) -> object:
        """Publish the message in the body, a JSON object."""
        await self._visitors.admit(request, PUBLISH_PATH)
        return await self._publish(request, read_json(request))

    async def get(self, request: Request) -> object:
        """Publish the message in the query; for development only."""
        await self._visitors.admit(request, PUBLISH_PATH)
        arguments: dict[bytes, list[bytes]] = request.args or {}
        try:
            params: dict[str, object] = {n.decode(): v[0].decode() for n, v in arguments.items()}
            if "timeout_ms" in params:
                params["timeout_ms"] = float(str(params["timeout_ms"]))
        except ValueError as error:
            raise ApiError(400, f"query: {error}") from None
        return await self._publish(request, params)

    async def options(self, request: Request) -> object:
        """Tell a browser which requests pages of other sites may make."""
        return self._visitors.preflight(request, "POST")

    async def _publish(self, request: Request, params: dict[str, Any]) -> JsonAnswer:
        """Publish; if the visitor disconnects before there is an outcome, end the call."""
        topic = params.get("topic", params.get("cmd"))
        headers, body = params.get("headers"), params.get("body", "")
        try:
            model = _model(params.get("action"))
            if not isinstance(body, str):
                raise ValueError("body: must be text")
            if headers is not None and not isinstance(headers, dict):
                raise ValueError("headers: must be an object")
            data = self._data(body, params.get("base64") in (True, "true"))
            refusal = self._refuse(topic_name(topic))
            if refusal is not None:
                raise ApiError(403, refusal.text)
            waiting = self._start(model, topic, data, params, headers=headers)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        request.notifyFinish().addErrback(lambda _: waiting.cancel())
        try:
            outcome = await waiting
        except CancelledError:
            raise ApiError(408, "the publisher has disconnected") from None
        return JsonAnswer(STATUS[outcome.kind], shown(outcome))

    def _data(self, body: str, base64: bool) -> bytes:
        if not base64:
            return body.encode()
        try:
            return b64decode(body, validate=True)
        except ValueError as error:
            raise ValueError(f"body: {error}") from None

    def _start(
        self, model: Model, topic: Any, data: bytes, params: dict[str, Any], *, headers: Any
    ) -> Any:
        if model is Model.UNRELIABLE_ALL:
            return self._bus.publish_unreliable_all(data, topic, headers=headers)
        if model is Model.UNRELIABLE_RANDOM:
            return self._bus.publish_unreliable_random(data, topic, headers=headers)
        milliseconds = params.get("timeout_ms")
        timeout = None if milliseconds is None else _timeout(milliseconds)
        if model is Model.RELIABLE_RANDOM:
            return self._bus.publish_reliable_random(data, topic, timeout, headers=headers)
        key = params.get("key", "")
        return self._bus.publish_reliable_specific(data, topic, timeout, key=key, headers=headers)


def _model(name: object) -> Model:
    try:
        return Model(name)
    except ValueError:
        known = ", ".join(model.value for model in Model)
        raise ValueError(f"action: {name!r:.60} is not one of {known}") from None


def _timeout(milliseconds: Any) -> float:
    if type(milliseconds) not in (int, float):
        raise ValueError("timeout_ms: must be a number")
    # Compared without arithmetic: an integer may be larger than any float.
    if not MIN_TIMEOUT * 1000 <= milliseconds <= MAX_TIMEOUT * 1000:
        bounds = f"from {MIN_TIMEOUT * 1000:g} to {MAX_TIMEOUT * 1000:.0f}"
        raise ValueError(f"timeout_ms: {milliseconds!r:.20} is not {bounds}")
    return float(milliseconds) / 1000


def bus_routes(
    bus: IBus,
    visitors: VisitorGate,
    *,
    refuse: Refuse = lambda topic: None,
    by_get: bool = False,
) -> dict[str, ApiResource]:
    """Return the routes of a bus by their paths.

    ``refuse`` is called for every topic that is published to. ``by_get`` lets GET publish as well,
    which any page in a browser can cause.
    """
    pages = BusStatusPages(bus, visitors)
    return {
        PUBLISH_PATH: BusPublishing(bus, visitors, refuse=refuse, by_get=by_get).route(),
        STATUS_PATH: pages.status_route(),
        TRACE_PATH: pages.trace_route(),
    }


def shown(outcome: Outcome) -> dict[str, object]:
    """Return an outcome as JSON values; ``body`` is base64 if it is not text."""
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


__all__ = ["STATUS", "BusPublishing", "bus_routes", "shown"]
