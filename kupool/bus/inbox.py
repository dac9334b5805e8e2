"""Runs the handler of a subscription on its messages, and reports the result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.messages import Answer, Handler, Message, NotMine, Refusal, with_values
from kupool.bus.settings import BusSettings
from kupool.callbacks import attempt
from kupool.incidents import report
from kupool.timing.chunks import Chunks

#: Messages handled in one turn of the reactor.
CHUNK = 100

#: Gets the handler's response to a call.
Respond = Callable[[Response], object]

#: The largest status of an answer; the smallest is as far below 0.
MAX_STATUS = 2**63 - 1

#: The most characters of a refusal or an error that are sent to the publisher.
MAX_REASON = 1000

#: The reason in the outcome if the answer cannot be sent over any form of the bus.
UNSENDABLE = "an answer that cannot be sent"

_NOT_MINE = Response(CallVerdict.NOT_MINE)

#: As attributes of their classes, members of enumerations take fifteen times as long.
_ANSWER, _TAKEN = CallVerdict.ANSWER, Taken.YES


class Inbox:
    """A bounded queue in front of a handler.

    The bus never calls a handler from within a publish. An exception in a handler is logged and
    affects nobody else. Up to ``max_running`` results of a handler may be pending Deferreds. A
    pending one is cancelled when its answer would be too late, or after ``handler_timeout`` seconds
    if no answer is expected.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, settings: BusSettings, handler: Handler) -> None:
        self._clock = clock
        self._now = clock.seconds
        self._settings = settings
        self._handler = handler
        self._queue: deque[tuple[Message, Respond | None, float]] = deque()
        self._size = 0
        #: Pending results of handlers, and the timers that cancel them; a handler may return the
        #: same Deferred again.
        self._running: dict[object, tuple[Deferred[Any], IDelayedCall]] = {}
        self._chunks = Chunks(clock, self._turn)
        self._closed = False

    def put(self, message: Message, respond: Respond | None) -> Taken:
        """Queue a message; ``respond`` is called once if an answer is expected."""
        settings, size = self._settings, len(message.data)
        if self._closed:
            return Taken.GONE
        if (
            len(self._queue) >= settings.max_unanswered
            or self._size + size > settings.max_unanswered_bytes
        ):
            return Taken.FULL
        self._queue.append((message, respond, self._now()))
        self._size += size
        self._schedule()
        return _TAKEN

    def close(self) -> None:
        """Take no more messages, drop those that have not begun, and cancel the others."""
        self._closed = True
        self._queue.clear()
        for result, _ in list(self._running.values()):
            result.cancel()

    def _schedule(self) -> None:
        if self._ready():
            self._chunks.wake()

    def _ready(self) -> bool:
        """Return whether a message could begin."""
        return bool(self._queue) and len(self._running) < self._settings.max_running

    def _turn(self) -> bool:
        for _ in range(CHUNK):
            if not self._ready():
                break
            message, respond, since = self._queue.popleft()
            self._size -= len(message.data)
            if respond is not None:
                left = message.timeout - (self._now() - since)
                if left <= 0:
                    continue  # nobody waits for the answer any more
                message = message.offered(left, message.redelivered)
            self._handle(message, respond)
        return self._ready()

    def _handle(self, message: Message, respond: Respond | None) -> None:
        result = attempt(self._handler, message)
        # Most results are bytes; to ask whether something is a Deferred takes five times as long.
        if type(result) is bytes or not isinstance(result, Deferred):
            self._respond(result, message, respond)
            return
        limit = message.timeout if respond is not None else self._settings.handler_timeout
        key = object()
        self._running[key] = result, self._clock.callLater(limit, result.cancel)
        result.addBoth(self._ended, key, message, respond)

    def _ended(
        self, result: object, key: object, message: Message, respond: Respond | None
    ) -> None:
        _, timer = self._running.pop(key)
        if timer.active():
            timer.cancel()
            if not self._closed:
                self._respond(result, message, respond)
        else:  # whoever waited for it waits no more
            self._log.warn(
                "The handler of message {id} on {topic} took too long",
                id=message.id,
                topic=message.topic,
            )
        self._schedule()

    def _respond(self, result: object, message: Message, respond: Respond | None) -> None:
        response = self._response(result, message)
        if respond is not None:
            try:
                respond(response)
            except BaseException:
                self._log.failure("The answer to message {id} could not be sent", id=message.id)

    def _response(self, result: Any, message: Message) -> Response:
        if type(result) is bytes and len(result) <= self._settings.max_data:
            return with_values(Response, (_ANSWER, result, 0, ""))  # as most are
        if result is None:
            return Response(CallVerdict.ANSWER)
        if isinstance(result, bytes):
            result = Answer(result)
        if isinstance(result, Answer):
            return answered(result, self._settings.max_data)
        if not isinstance(result, Failure):
            result = Failure(TypeError(f"a handler returned {type(result).__name__}"))
        if result.check(NotMine):
            return _NOT_MINE
        if result.check(Refusal):
            text = attempt(str, result.value)
            if isinstance(text, str):
                # The text may contain what the wire cannot carry, such as the name of a file.
                text = text[:MAX_REASON].encode(errors="backslashreplace").decode()
                return Response(CallVerdict.REFUSE, text=text)
            result = text
        told = report(
            self._log,
            "Message {id} on {topic} failed",
            result,
            id=message.id,
            topic=message.topic,
        )
        return Response(CallVerdict.FAILED, text=told.text)


def answered(answer: Answer, max_data: int) -> Response:
    """Return the response for an answer: a failure if no form of the bus can carry it."""
    data, status = answer
    if not isinstance(data, bytes) or type(status) is not int:
        return Response(CallVerdict.FAILED, text=UNSENDABLE)
    if not -MAX_STATUS <= status <= MAX_STATUS:
        return Response(CallVerdict.FAILED, text=UNSENDABLE)
    if len(data) > max_data:
        return Response(CallVerdict.FAILED, text=f"answer of {len(data)} bytes: too large")
    return Response(CallVerdict.ANSWER, bytes(data), status)


__all__ = ["MAX_REASON", "MAX_STATUS", "UNSENDABLE", "Inbox", "Respond", "answered"]
