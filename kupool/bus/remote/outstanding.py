"""A client's publishes that have no outcome yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from kupool.bus.broker import BUS_CLOSED, BUS_FULL
from kupool.bus.messages import Kind, Message, Model, Outcome, Topic
from kupool.bus.publishing import MIN_TIMEOUT, make_message
from kupool.bus.remote.messages import PublishParams, encode_data, read_outcome
from kupool.bus.settings import BusSettings
from kupool.bus.unguessable import Unguessable
from kupool.net.dialling.answers import Answers
from kupool.net.dialling.deadlines import Deadlines, Reading
from kupool.session.connection import Connection
from kupool.wire.incoming import ServerMessage
from kupool.wire.messages import encode_request

#: Seconds after its deadline at which the client gives up a call: the server's reply may still be
#: on its way.
GRACE = 0.05

NOT_CONNECTED = "not connected"


class Publishing:
    """A publish without an outcome; ``deadline`` is in seconds of the clock."""

    __slots__ = ("deadline", "message", "outcome", "request", "sent")

    def __init__(self, message: Message, deadline: float, outcome: Deferred[Outcome]) -> None:
        self.message = message
        self.deadline = deadline
        self.outcome = outcome
        #: The id of the request that was sent.
        self.request = 0
        self.sent = False


class Outstanding:
    """Makes sure that each publish gets one outcome, however often the connection changes.

    ``link`` returns the connection, if there is one. ``refusal`` returns why there will be none, if
    that is so. ``answers`` matches the server's replies with requests.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: BusSettings,
        link: Callable[[], Connection | None],
        *,
        answers: Answers,
        reading: Reading,
        refusal: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._numbers = count(1)
        self._ids = Unguessable()
        self._link = link
        self._answers = answers
        self._refusal = refusal
        self._deadlines: Deadlines[int] = Deadlines(clock, reading, self._overdue)
        self._publishing: dict[int, Publishing] = {}
        self._size = 0
        self._closed = False

    def publish(
        self,
        model: Model,
        data: bytes,
        topic: Topic,
        *,
        timeout: float | None,
        key: str,
        headers: Mapping[str, str] | None,
    ) -> Deferred[Outcome]:
        """Send a message now or over the next connection; raises as a publish does."""
        number, settings = next(self._numbers), self._settings
        message_id = self._ids.text()
        message = make_message(
            settings, message_id, model, topic, data=data, timeout=timeout, key=key, headers=headers
        )
        reason = self._why_not(model, len(data))
        if reason:
            return succeed(Outcome(Kind.REFUSED, reason=reason))
        limit = message.timeout or settings.timeout
        outcome: Deferred[Outcome] = Deferred(lambda _: self._cancelled(number))
        publishing = Publishing(message, self._clock.seconds() + limit, outcome)
        self._deadlines.add(number, limit + GRACE)
        self._publishing[number] = publishing
        self._size += len(data)
        link = self._link()
        if link is not None:
            self._send(link, number, publishing)
        return outcome

    def up(self, link: Connection) -> None:
        """Send the messages without an outcome over a new connection."""
        for number, publishing in list(self._publishing.items()):
            self._send(link, number, publishing)

    def _told(self, number: int, reply: ServerMessage | bytes | Exception) -> None:
        publishing = self._publishing.get(number)
        if publishing is None:
            return
        if isinstance(reply, ServerMessage):
            self._end(number, read_outcome(reply))
        elif not publishing.message.model.reliable:
            self._end(number, Outcome(Kind.REFUSED, reason="the connection was lost"))

    def gone(self) -> None:
        """There will be no connection again: refuse every call."""
        for number in list(self._publishing):
            self._end(number, Outcome(Kind.REFUSED, reason=self._refusal()))

    def close(self) -> None:
        """Refuse every call, and those that follow."""
        self._closed = True
        for number in list(self._publishing):
            self._end(number, Outcome(Kind.REFUSED, reason=BUS_CLOSED))

    def _why_not(self, model: Model, size: int) -> str:
        if self._closed:
            return BUS_CLOSED
        if self._refusal():
            return self._refusal()
        settings = self._settings
        if (
            len(self._publishing) >= settings.max_calls
            or self._size + size > settings.max_calls_bytes
        ):
            return BUS_FULL
        if not model.reliable:
            link = self._link()
            if link is None:
                return NOT_CONNECTED
            if link.outbound:
                return "the connection is slow"
        return ""

    def _send(self, link: Connection, number: int, publishing: Publishing) -> None:
        message = publishing.message
        left = publishing.deadline - self._clock.seconds()
        if left < MIN_TIMEOUT:
            return  # it is about to expire
        text, base64 = encode_data(message.data)
        params = PublishParams(
            topic=message.topic,
            model=message.model,
            data=text,
            base64=base64,
            timeout_ms=left * 1000 if message.model.reliable else None,
            key=message.key,
            headers=dict(message.headers),
            message=message.id,
            redelivered=publishing.sent,
        )
        publishing.sent = True
        publishing.request = self._answers.next_id()
        self._answers.expect(publishing.request, partial(self._told, number))
        try:
            link.send(encode_request(publishing.request, "bus.publish", params))
        except ValueError as error:  # or over the limit of the connection's codec
            self._end(number, Outcome(Kind.REFUSED, reason=str(error)))

    def _forget(self, number: int) -> Publishing | None:
        publishing = self._publishing.pop(number, None)
        if publishing is not None:
            self._size -= len(publishing.message.data)
            self._deadlines.remove(number)
            self._answers.forget(publishing.request)
        return publishing

    def _cancelled(self, number: int) -> None:
        self._forget(number)

    def _end(self, number: int, outcome: Outcome) -> None:
        publishing = self._forget(number)
        if publishing is not None:
            publishing.outcome.callback(outcome)

    def _overdue(self, number: int, seconds: float) -> None:
        publishing = self._publishing[number]
        if publishing.message.model.reliable:
            self._end(number, Outcome(Kind.TIMEOUT, reason="" if self._link() else NOT_CONNECTED))
        else:
            self._end(number, Outcome(Kind.REFUSED, reason="the server said nothing"))


__all__ = ["GRACE", "NOT_CONNECTED", "Outstanding"]
