"""The status of the bus over HTTP: its topics and subscribers, and the steps of a message."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from kupool.bus import BusError, BusStatus, IBus, TopicStatus
from kupool.web.answers import ApiError, ApiResource, Handler
from kupool.web.queries import show_moment, show_time
from kupool.web.visitors import VisitorGate

STATUS_PATH, TRACE_PATH = "/bus/status", "/bus/trace"

#: The most subscribers in one answer.
MAX_SUBSCRIBERS = 1000


class _Tail(ApiResource):
    """A path, and every path below it."""

    isLeaf = True


class BusStatusPages:
    """Answers ``GET /bus/status`` and ``GET /bus/trace/ID``."""

    def __init__(self, bus: IBus, visitors: VisitorGate) -> None:
        self._bus: Any = bus
        self._visitors = visitors

    def status_route(self) -> ApiResource:
        """Return the resource of the status."""
        return ApiResource(self._methods(self.status))

    def trace_route(self) -> ApiResource:
        """Return the resource whose child paths are the ids of messages."""
        return _Tail(self._methods(self.trace))

    def _methods(self, get: Handler) -> dict[bytes, Handler]:
        return {b"GET": get, b"OPTIONS": self.options}

    async def options(self, request: Request) -> object:
        """Tell a browser which requests pages of other sites may make."""
        return self._visitors.preflight(request, "GET")

    async def status(self, request: Request) -> object:
        """Return the topics with the latest messages, or with ``?topic=`` one topic."""
        await self._visitors.admit(request, STATUS_PATH)
        arguments: dict[bytes, list[bytes]] = request.args or {}
        for name in arguments:
            if name != b"topic":
                raise ApiError(400, f"{name.decode(errors='replace')}: unknown parameter")
        wanted = [topic.decode(errors="replace") for topic in arguments.get(b"topic", ())]
        return shown_status(await self._asked(self._bus.status()), wanted)

    async def trace(self, request: Request) -> object:
        """Return the steps of a message, by its id or ``trace-id``."""
        await self._visitors.admit(request, TRACE_PATH)
        postpath: Any = request.postpath
        message_id = b"/".join(postpath).decode(errors="replace")
        steps = await self._asked(self._bus.trace(message_id))
        if not steps:
            raise ApiError(404, f"not found: message {message_id!r:.300}")
        return {
            "id": message_id,
            "steps": [
                {
                    "at": show_moment(step.at),
                    "message": step.message,
                    "event": step.event,
                    "subscriber": step.subscriber,
                }
                for step in steps
            ],
        }

    async def _asked(self, answer: Any) -> Any:
        try:
            return await answer
        except BusError as error:
            raise ApiError(503, f"bus: {error}") from None


def shown_status(status: BusStatus, wanted: list[str]) -> dict[str, object]:
    """Return a status as JSON values: the wanted topics, or all."""
    return {
        "calls": status.calls,
        "calls_bytes": status.calls_bytes,
        "counts": status.counts,
        "topics": [_topic(t) for t in status.topics if not wanted or t.topic in wanted],
        "subscriber_count": len(status.subscribers),
        "subscribers": [
            {
                "id": subscriber.id,
                "since": show_time(subscriber.since),
                "topics": subscriber.topics,
                "unanswered": subscriber.unanswered,
            }
            for subscriber in status.subscribers[:MAX_SUBSCRIBERS]
        ],
    }


def _topic(topic: TopicStatus) -> dict[str, object]:
    return {
        "topic": topic.topic,
        "counts": topic.counts,
        "waiting": topic.waiting,
        "buffered": topic.buffered,
        "recent": [
            {
                "id": message.id,
                "at": show_moment(message.at),
                "model": message.model,
                "size": message.size,
                "start": message.start.decode(errors="replace"),
                "outcome": message.outcome,
            }
            for message in topic.recent
        ],
    }


__all__ = ["MAX_SUBSCRIBERS", "BusStatusPages", "shown_status"]
