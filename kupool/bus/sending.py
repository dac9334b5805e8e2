"""Delivery of unreliable messages, to all subscribers or to one, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from twisted.internet.interfaces import IReactorTime

from kupool.bus.calls import Subscriber, Taken, in_any_order
from kupool.bus.messages import Message, Model
from kupool.bus.settings import BusSettings
from kupool.timing.chunks import CHUNK, ChunkQueue, Chunks, Piece

#: Hands a message to one subscriber; never raises.
Give = Callable[[Message, Subscriber], Taken]

#: Called when a message has been sent: how many subscribers took it, or why none did, and who was
#: to get it.
Sent = Callable[[Counter[Taken], Sequence[Subscriber]], object]


class _OneSend:
    """A message on its way to those who were subscribed when it was published."""

    __slots__ = ("_give", "_listening", "everybody", "message", "told")

    def __init__(
        self, message: Message, give: Give, listening: Callable[[str], tuple[Subscriber, ...]]
    ) -> None:
        self.message = message
        self.everybody = listening(message.topic)
        self.told: Counter[Taken] = Counter()
        self._give = give
        self._listening = listening

    def to_all(self, part: Sequence[Subscriber]) -> None:
        """Send it to some of the subscribers, without those that have unsubscribed since."""
        there = self._listening(self.message.topic)
        if there is not self.everybody:
            still = set(there)
            part = [subscriber for subscriber in part if subscriber in still]
        for subscriber in part:
            self.told[self._give(self.message, subscriber)] += 1

    def to_one(self, random: Random, there: Sequence[Subscriber]) -> None:
        """Send it to one of the current subscribers."""
        for n in in_any_order(random, len(there)):
            taken = self._give(self.message, there[n])
            self.told[taken] += 1
            if taken is Taken.YES:
                break


class Sending:
    """The queue of unreliable messages: each reaches all subscribers before the next one is sent.

    A small message is sent at once if the queue is empty. Otherwise a chunk is sent in each reactor
    turn. The queue is limited like the calls.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: BusSettings,
        *,
        random: Random,
        listening: Callable[[str], tuple[Subscriber, ...]],
        give: Give,
    ) -> None:
        self._settings = settings
        self._random = random
        self._listening = listening
        self._give = give
        self._queue: ChunkQueue[Subscriber] = ChunkQueue()
        self._turns = Chunks(clock, self._go_on)
        #: Bytes of data in the queue.
        self._size = 0

    def send(self, message: Message, sent: Sent) -> bool:
        """Send a message; returns False if there is no room for it.

        ``sent`` is called when all subscribers have it, maybe at once; it never raises.
        """
        one = _OneSend(message, self._give, self._listening)
        everybody, to_one = one.everybody, message.model is Model.UNRELIABLE_RANDOM
        if not everybody:  # a subscriber that comes next must find it in the buffer
            sent(one.told, everybody)
        elif (to_one or len(everybody) <= CHUNK) and self._queue.begin():
            try:
                if to_one:
                    one.to_one(self._random, everybody)
                else:
                    one.to_all(everybody)
            finally:
                self._queue.end()
            sent(one.told, everybody)
            if self._queue.pending:  # it was published from within a delivery
                self._turns.begin()
        elif self._has_room(message):
            self._wait(one, to_one, sent)
        else:
            return False
        return True

    def _has_room(self, message: Message) -> bool:
        settings, size = self._settings, self._size + len(message.data)
        return len(self._queue) < settings.max_calls and size <= settings.max_calls_bytes

    def _wait(self, one: _OneSend, to_one: bool, sent: Sent) -> None:
        size = len(one.message.data)
        self._size += size
        recipients: Sequence[Subscriber] = one.everybody
        work: Callable[[Sequence[Subscriber]], object] = one.to_all
        if to_one:
            recipients = recipients[:1]  # it counts as one in its turn

            def work(_: Sequence[Subscriber]) -> None:
                one.to_one(self._random, self._listening(one.message.topic))

        def ended() -> None:
            self._size -= size
            sent(one.told, one.everybody)

        first = self._queue.idle  # otherwise another turn continues with it
        self._queue.add(Piece(recipients, work, ended), CHUNK)
        if first and self._queue.pending:
            self._turns.wake()

    def _go_on(self) -> bool:
        self._queue.run(CHUNK)
        return self._queue.pending


__all__ = ["Sending"]
