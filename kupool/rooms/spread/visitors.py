"""Connections of other hosts that are in rooms of this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import MALFORMED, UNAVAILABLE, ErrorText, RequestError
from kupool.incidents import report
from kupool.rooms.events import RoomBusy, RoomGone
from kupool.rooms.spread.entries import Enter, Gone, Hold, Out, RoomReply, Say
from kupool.rooms.spread.exchange import Exchange
from kupool.rooms.spread.packing import Packing
from kupool.rooms.spread.seats import LEFT, MOVED
from kupool.session.outbox import EventPolicy
from kupool.wire.framing import INT32, Framing

if TYPE_CHECKING:
    from kupool.rooms.spread.lobby import SpreadLobby


def _as_it_is(payload: bytes) -> bytes:
    return payload


#: What goes to another host is a payload still; the connection's framing is put on there.
CARRIED = Framing("carried", INT32.splitter, _as_it_is, b"".join)


class Visitor:
    """A connection of another host, as rooms see it; ``context`` is for the application.

    ``host`` and ``number`` say whose it is.
    """

    framing = CARRIED

    def __init__(self, exchange: Exchange, host: str, number: int) -> None:
        self.host = host
        self.number = number
        self.sends = True
        self.context: Any = None
        self.queue: deque[Callable[[], object]] | None = None
        self._exchange = exchange

    def _push(self, data: bytes, key: str | None, policy: str | None) -> bool:
        if not self.sends:
            return False
        return self._exchange.push(self.host, self.number, data, key=key, policy=policy)

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send a payload, which is never dropped."""
        self._push(data, None, None)

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send a payload that replaces what still waits under ``key``."""
        self._push(encoded, key, None)

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        """Send a payload that may be dropped; returns whether it was kept so far."""
        return self._push(encoded, None, policy.value)

    def hold(self) -> None:
        """Have nothing more read of it, until :meth:`release`."""
        self._exchange.send(self.host, Hold(self.number, True))

    def release(self) -> None:
        """Have it read again."""
        self._exchange.send(self.host, Hold(self.number, False))


class Visitors:
    """All of them; what their hosts say goes to the lobby, and answers go back."""

    _log = Logger()

    def __init__(self, lobby: SpreadLobby, exchange: Exchange, packing: Packing) -> None:
        self._lobby = lobby
        self._exchange = exchange
        self._packing = packing
        self._visitors: dict[tuple[str, int], Visitor] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._visitors)

    def _of(self, host: str, number: int) -> Visitor:
        visitor = self._visitors.get((host, number))
        if visitor is None:
            visitor = self._visitors[host, number] = Visitor(self._exchange, host, number)
        return visitor

    def _in_order(self, visitor: Visitor, call: Callable[[], object]) -> None:
        """Call something when what came before of this visitor has been done."""
        if visitor.queue is None:
            call()
        else:
            visitor.queue.append(call)

    def say(self, host: str, entry: Say) -> None:
        """Take a message to its room."""
        visitor = self._of(host, entry.peer)
        if visitor.queue is not None and len(visitor.queue) >= 4 * self._lobby.spread.sender_limit:
            answer = self._answer(visitor, entry.number) if entry.number else None
            busy = Failure(RoomBusy(f"messages of room {entry.code}"))
            self._lobby.refuse(None, busy, entry.body, answer)
            return
        self._in_order(visitor, lambda: self._say(visitor, entry))

    def _say(self, visitor: Visitor, entry: Say) -> None:
        answer = self._answer(visitor, entry.number) if entry.number else None
        try:
            body = self._packing.unpack(entry.body)
        except BaseException as error:
            expected = isinstance(error, ValueError | RecursionError)
            failure = Failure(RequestError(MALFORMED)) if expected else Failure()
            self._lobby.refuse(None, failure, entry.body, answer)
            self._leave_if_nowhere(visitor, entry.code, "malformed message")
            return

        def place() -> None:
            self._lobby.place(visitor, entry.code, entry.user, body, answer=answer)
            self._leave_if_nowhere(visitor, entry.code, "refused")

        def refuse(failure: Failure) -> None:
            self._lobby.refuse(None, failure, body, answer)
            self._leave_if_nowhere(visitor, entry.code, "refused")

        if entry.first or self._lobby.members.of(visitor) is not None:
            self._there(visitor, entry.code, place, refuse)
        else:
            refuse(Failure(RoomGone(entry.code)))

    def enter(self, host: str, entry: Enter) -> None:
        """Let a member in who was one where the room was before."""
        visitor = self._of(host, entry.peer)

        def place() -> None:
            try:
                self._lobby.enter(entry.code, entry.user, visitor)
            except RequestError as error:
                self._leave_if_nowhere(visitor, entry.code, error.error.text)

        def refuse(failure: Failure) -> None:
            self._out(visitor, entry.code, moved=True, reason=MOVED)

        self._in_order(visitor, lambda: self._there(visitor, entry.code, place, refuse))

    def _there(
        self,
        visitor: Visitor,
        code: str,
        place: Callable[[], object],
        refuse: Callable[[Failure], object],
    ) -> None:
        """Do something when the room of this code is here, unless it is another host's."""
        if self._lobby.members.of(visitor) is not None:
            place()
            return
        if not self._lobby.owns(code):
            refuse(Failure(RequestError(UNAVAILABLE)))
            return
        visitor.queue = deque()

        def ready(result: object) -> None:
            queue, visitor.queue = visitor.queue or deque(), None
            if visitor.sends:
                place()
            while queue and visitor.queue is None:
                queue.popleft()()
            if queue and visitor.queue is not None:
                visitor.queue.extend(queue)

        self._lobby.ready(code).addBoth(ready)

    def _leave_if_nowhere(self, visitor: Visitor, code: str, reason: str) -> None:
        if self._lobby.members.of(visitor) is None and visitor.sends:
            self._out(visitor, code, moved=False, reason=reason)

    def _out(self, visitor: Visitor, code: str, *, moved: bool, reason: str) -> None:
        self._exchange.send(visitor.host, Out(visitor.number, code, moved, reason))
        self._forget(visitor)

    def _forget(self, visitor: Visitor) -> None:
        visitor.sends = False
        if self._visitors.get((visitor.host, visitor.number)) is visitor:
            del self._visitors[visitor.host, visitor.number]

    def detached(self, visitor: Visitor, code: str, *, moved: bool) -> None:
        """A visitor is no member any more: its host is told, in order with the rest."""
        if visitor.sends:
            self._out(visitor, code, moved=moved, reason=MOVED if moved else LEFT)

    # -- answers

    def _answer(self, visitor: Visitor, number: int) -> Deferred[object]:
        """Return what fires with a room's answer, which then goes to the visitor's host."""

        def reply(result: object) -> None:
            self._exchange.send(visitor.host, self._reply(visitor.number, number, result))

        answer: Deferred[object] = Deferred()
        answer.addBoth(reply)
        return answer

    def _reply(self, peer: int, number: int, result: object) -> RoomReply:
        if isinstance(result, Failure) and isinstance(result.value, RequestError):
            result = result.value.error
        if not isinstance(result, ErrorText | Failure):
            try:
                data = self._packing.pack_result(result)
            except BaseException:
                result = Failure()
            else:
                if len(data) <= self._lobby.spread.max_entry:
                    return RoomReply(peer, number, data)
                result = Failure(ValueError(f"an answer of {len(data)} bytes"))
        if isinstance(result, Failure):
            result = report(self._log, "A message from another host failed", result)
        assert isinstance(result, ErrorText)
        return RoomReply(peer, number, b"", result.code, result.text)

    # -- the end

    def gone(self, host: str, entry: Gone) -> None:
        """A connection has ended at its host."""
        visitor = self._visitors.get((host, entry.peer))
        if visitor is not None:
            self._in_order(visitor, lambda: self._gone(visitor))

    def _gone(self, visitor: Visitor) -> None:
        self._forget(visitor)
        self._lobby.members.disconnected(visitor)

    def lost(self, host: str) -> None:
        """A host is gone, and all of its connections with it."""
        for visitor in [v for v in self._visitors.values() if v.host == host]:
            self._gone(visitor)


__all__ = ["CARRIED", "Visitor", "Visitors"]
