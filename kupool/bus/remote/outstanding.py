"""A client's publishes that have no outcome yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from kupool.bus.broker import BUS_CLOSED, BUS_FULL
from kupool.bus.messages import Kind, Message, Model, Outcome, Topic
from kupool.bus.publishing import MIN_TIMEOUT, make_message
from kupool.bus.remote.messages import encode_publish, read_outcome
from kupool.bus.settings import BusSettings
from kupool.bus.unguessable import Unguessable
from kupool.net.dialling.answers import Answers
from kupool.net.dialling.deadlines import Deadlines, Reading
from kupool.session.connection import Connection
from kupool.wire.incoming import ServerMessage

#: Seconds after its deadline at which the client gives up a call: the server's reply may still be
#: on its way.
GRACE = 0.05

NOT_CONNECTED = "not connected"


class Publishing:
    """A publish without an outcome; ``deadline`` is in seconds of the clock."""

    __slots__ = ("deadline", "message", "request", "sent")

    def __init__(self, message: Message, deadline: float) -> None:
        self.message = message
        self.deadline = deadline
        #: The id of the last request that sent it; 0 if there was none.
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
        self._now = clock.seconds
        self._settings = settings
        self._ids = Unguessable()
        self._link = link
        self._answers = answers
        self._refusal = refusal
        self._deadlines: Deadlines[Deferred[Outcome]] = Deadlines(clock, reading, self._overdue)
        self._publishing: dict[Deferred[Outcome], Publishing] = {}
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
        settings = self._settings
        message_id = self._ids.text()
        message = make_message(
            settings, message_id, model, topic, data=data, timeout=timeout, key=key, headers=headers
        )
        reason = self._why_not(model, len(data))
        if reason:
            return succeed(Outcome(Kind.REFUSED, reason=reason))
        limit = message.timeout or settings.timeout
        outcome: Deferred[Outcome] = Deferred(self._forget)
        publishing = Publishing(message, self._now() + limit)
        self._deadlines.add(outcome, limit + GRACE)
        self._publishing[outcome] = publishing
        self._size += len(data)
        link = self._link()
        if link is not None:
            self._send(link, outcome, publishing)
        return outcome

    def up(self, link: Connection) -> None:
        """Send the messages without an outcome over a new connection."""
        for outcome, publishing in list(self._publishing.items()):
            self._send(link, outcome, publishing)

    def _told(self, outcome: Deferred[Outcome], reply: ServerMessage | bytes | Exception) -> None:
        publishing = self._publishing.get(outcome)
        if publishing is None:
            return
        if isinstance(reply, ServerMessage):
            self._end(outcome, read_outcome(reply))
        elif not publishing.message.model.reliable:
            self._end(outcome, Outcome(Kind.REFUSED, reason="the connection was lost"))

    def gone(self) -> None:
        """There will be no connection again: refuse every call."""
        for outcome in list(self._publishing):
            self._end(outcome, Outcome(Kind.REFUSED, reason=self._refusal()))

    def close(self) -> None:
        """Refuse every call, and those that follow."""
        self._closed = True
        for outcome in list(self._publishing):
            self._end(outcome, Outcome(Kind.REFUSED, reason=BUS_CLOSED))

    def _why_not(self, model: Model, size: int) -> str:
        if self._closed:
            return BUS_CLOSED
        if refusal := self._refusal():
            return refusal
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

    def _send(self, link: Connection, outcome: Deferred[Outcome], publishing: Publishing) -> None:
        left = publishing.deadline - self._now()
        if left < MIN_TIMEOUT:
            return  # it is about to expire
        again, publishing.sent = publishing.sent, True
        publishing.request = request_id = self._answers.next_id()
        self._answers.expect(request_id, partial(self._told, outcome))
        try:
            link.send(encode_publish(request_id, publishing.message, left, redelivered=again))
        except ValueError as error:  # or over the limit of the connection's codec
            self._end(outcome, Outcome(Kind.REFUSED, reason=str(error)))

    def _forget(self, outcome: Deferred[Outcome]) -> None:
        publishing = self._publishing.pop(outcome, None)
        if publishing is not None:
            self._size -= len(publishing.message.data)
            self._deadlines.remove(outcome)
            if publishing.request:
                self._answers.forget(publishing.request)

    def _end(self, outcome: Deferred[Outcome], result: Outcome) -> None:
        if outcome in self._publishing:
            self._forget(outcome)
            outcome.callback(result)

    def _overdue(self, outcome: Deferred[Outcome], seconds: float) -> None:
        if self._publishing[outcome].message.model.reliable:
            reason = "" if self._link() else NOT_CONNECTED
            self._end(outcome, Outcome(Kind.TIMEOUT, reason=reason))
        else:
            self._end(outcome, Outcome(Kind.REFUSED, reason="the server said nothing"))


__all__ = ["GRACE", "NOT_CONNECTED", "Outstanding"]
