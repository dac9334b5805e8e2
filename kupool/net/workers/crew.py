"""What threads and processes for blocking calls share: who takes which call, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import UNAVAILABLE, RequestError
from kupool.ranges import check, whole
from kupool.timing.waiting import Waiters

_EXPECTED = {"size": whole(1), "queue": whole(), "most_stuck": whole()}


class BlockingCall:
    """A function to be called elsewhere, and the Deferred of what it returns."""

    __slots__ = ("arguments", "deferred", "function", "hand")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.deferred: Deferred[Any] | None = None
        self.hand: Hand | None = None


class Hand(ABC):
    """One thread or process.

    A ``prompt`` one ends when it is told to, and calls ``Crew.gone`` then; one that is
    not may linger in its call, and calls it at the end of that.
    """

    prompt: bool

    @abstractmethod
    def take(self, call: BlockingCall) -> None:
        """Begin a call; ``Crew.ended`` is to be called with what came of it."""

    @abstractmethod
    def dismiss(self) -> None:
        """End, having no call."""

    @abstractmethod
    def abandon(self) -> None:
        """End, with a call that nobody waits for."""


class Crew(ABC):
    """Up to ``size`` hands, begun when they are needed, for calls that block.

    A call whose Deferred is cancelled is abandoned, and a new hand takes its place: so a
    worker pool's timeout frees it. At most ``most_stuck`` abandoned ones may linger; then
    there are fewer hands until some end, and calls fail when there are none; so where the
    system has no room for another hand. At most ``queue`` calls wait. Calls that cannot be
    taken fail with :class:`RequestError`.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, size: int = 4, *, queue: int = 1024, most_stuck: int = 16
    ) -> None:
        check(_EXPECTED, size=size, queue=queue, most_stuck=most_stuck)
        self.reactor = reactor
        self._size = size
        self._queue = queue
        self._most_stuck = most_stuck
        self._idle: list[Hand] = []
        self._busy: dict[Hand, BlockingCall] = {}
        self._stuck: set[Hand] = set()
        self._leaving: set[Hand] = set()
        self._waiting: deque[BlockingCall] = deque()
        self._stopping = False
        self._emptied = Waiters[None]()

    @property
    def stuck(self) -> int:
        """Abandoned calls that have not ended."""
        return len(self._stuck)

    @abstractmethod
    def _hire(self) -> Hand:
        """Begin another hand."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function elsewhere; fires with what it returns or raises.

        Cancelling the Deferred abandons the call.
        """
        hand = None if self._stopping else self._free_hand()
        room = self._busy and len(self._waiting) < self._queue
        if self._stopping or (hand is None and not room):
            return fail(RequestError(UNAVAILABLE))
        call = BlockingCall(function, arguments)
        call.deferred = Deferred(lambda deferred: self._cancelled(call))
        result = call.deferred
        if hand is None:
            self._waiting.append(call)
        else:
            self._give(hand, call)
        return result

    def _free_hand(self) -> Hand | None:
        if self._idle:
            return self._idle.pop()
        hands = len(self._busy)
        if hands < self._size and hands + len(self._stuck) < self._size + self._most_stuck:
            try:
                return self._hire()
            except Exception:  # the system has no thread, process or descriptor for it
                self._log.failure("Another worker could not be started")
        return None

    def _give(self, hand: Hand, call: BlockingCall) -> None:
        self._busy[hand] = call
        call.hand = hand
        hand.take(call)

    def _cancelled(self, call: BlockingCall) -> None:
        call.deferred = None
        hand, call.hand = call.hand, None
        if hand is None:
            self._waiting.remove(call)
        elif self._busy.pop(hand, None) is not None:
            (self._leaving if hand.prompt else self._stuck).add(hand)
            hand.abandon()
            self._go_on()

    def ended(self, hand: Hand, result: object, *, alive: bool = True) -> None:
        """Take what came of a call, in the reactor's thread; called by its hand."""
        call = self._busy.pop(hand, None)
        if call is None:
            self.gone(hand)
            return
        call.hand = None
        if not alive:
            pass
        elif self._stopping:
            self._dismiss(hand)
        else:
            self._idle.append(hand)
        self._go_on()
        deferred, call.deferred = call.deferred, None
        if deferred is not None:
            deferred.callback(result)

    def gone(self, hand: Hand) -> None:
        """Forget a hand without a call, or an abandoned one, that has ended; called by it."""
        self._stuck.discard(hand)
        self._leaving.discard(hand)
        if hand in self._idle:
            self._idle.remove(hand)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and (hand := self._free_hand()) is not None:
            self._give(hand, self._waiting.popleft())
        if self._waiting and not self._busy:
            self._refuse_waiting()  # every hand is stuck
        if not self._busy and not self._leaving:
            self._emptied.tell(None)

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            deferred, call.deferred = call.deferred, None
            if deferred is not None:
                deferred.callback(Failure(RequestError(UNAVAILABLE)))

    async def stop(self, deadline: float = 10.0) -> int:
        """Refuse what waits, and wait for what runs; returns how many were abandoned.

        That happens to calls that have not ended ``deadline`` seconds later; they fail
        as cancelled.
        """
        self._stopping = True
        idle, self._idle = self._idle, []
        for hand in idle:
            self._dismiss(hand)
        self._refuse_waiting()
        if not self._busy and not self._leaving:
            return 0
        emptied = self._emptied.wait()
        left: list[BlockingCall] = []
        late = self.reactor.callLater(deadline, self._abandon_all, left)
        await emptied
        if late.active():
            late.cancel()
        return len(left)

    def _dismiss(self, hand: Hand) -> None:
        if hand.prompt:
            self._leaving.add(hand)
        hand.dismiss()

    def _abandon_all(self, left: list[BlockingCall]) -> None:
        for hand in self._leaving:
            hand.abandon()
        left += self._busy.values()
        for call in left:
            if call.deferred is not None:
                call.deferred.cancel()


__all__ = ["BlockingCall", "Crew", "Hand"]
