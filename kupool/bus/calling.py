"""Delivery of reliable messages (calls): offers to subscribers, deadlines, and outcomes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from random import Random

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.bus.accounts import Accounts, Note
from kupool.bus.calls import (
    Call,
    CallVerdict,
    Done,
    OfferState,
    Response,
    Subscriber,
    Taken,
)
from kupool.bus.messages import Kind, Message, Model, Outcome, with_values
from kupool.bus.settings import BusSettings
from kupool.bus.topics import is_pattern, matches
from kupool.bus.unguessable import Unguessable
from kupool.timing.chunks import Chunks
from kupool.timing.timers import GRAIN, TICK, TimerQueue

#: Calls processed in one turn of the reactor, and offers made in one step of a fan-out.
CHUNK = 500

#: Seconds by which a timer may fire too early.
_EARLY = GRAIN * TICK

#: Seconds after an offer for which a call has no timer, unless it is due within twice as long.
FRESH = 0.05

#: The broker's own calls have random numbers below this: only a subscriber that was offered a call
#: can name it. Calls of other brokers have numbers from here on.
FIRST_FOREIGN = 1 << 63

#: Members of enumerations that every call uses: as attributes of their classes they take fifteen
#: times as long.
_RANDOM, _SPECIFIC = Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC
_ANSWER, _ANSWERED = CallVerdict.ANSWER, Kind.ANSWERED
_OPEN, _TAKEN = OfferState.OPEN, Taken.YES

#: Waiting calls that are tried again when a busy subscriber answers.
WAKE = 8


class Calls:
    """All calls without an outcome.

    A call is put into ``_work`` whenever something has changed for it. Processing a call never
    calls itself again, however subscribers come and go meanwhile.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settings: BusSettings,
        accounts: Accounts,
        *,
        random: Random,
        listening: Callable[[str], tuple[Subscriber, ...]],
        dropped: Callable[[Subscriber], object],
    ) -> None:
        self._clock = clock
        self._now = clock.seconds
        self._timers: TimerQueue[Call] = TimerQueue(
            clock, self._changed, TICK, per_turn=CHUNK, at_once=True
        )
        #: Calls by number that were offered a moment ago and have no timer yet: most are answered
        #: before they need one.
        self._fresh: dict[int, Call] = {}
        self._sweep: IDelayedCall | None = None
        self._settings = settings
        self._accounts = accounts
        self._random = random
        self._listening = listening
        self._dropped = dropped
        self._numbers = Unguessable()
        self._calls: dict[int, Call] = {}
        self._waiting: dict[str, dict[int, Call]] = {}
        self._work: deque[Call] = deque()
        self._working = False
        self._chunks = Chunks(clock, self._part)
        self.size = 0
        #: Whether all subscribers are known. If not, a call does not end because all known
        #: subscribers declined: it waits, as a call without subscribers does.
        self.whole = True

    def __len__(self) -> int:
        return len(self._calls)

    def waiting(self, topic: str) -> int:
        """Return how many calls of a topic wait for a subscriber."""
        return len(self._waiting.get(topic, ()))

    def start(self, message: Message, note: Note, done: Done) -> Call | None:
        """Start a call; returns None if there is no room for it."""
        settings, calls, size = self._settings, self._calls, len(message.data)
        if len(calls) >= settings.max_calls or self.size + size > settings.max_calls_bytes:
            return None
        number = self._numbers.number() % FIRST_FOREIGN
        while number in calls:
            number = self._numbers.number() % FIRST_FOREIGN
        deadline = self._now() + message.timeout
        call = calls[number] = Call(number, message, deadline, done, note=note)
        self.size += size
        if message.model is _SPECIFIC:
            self._wait(call)
        self._changed(call)
        return call

    def forget(self, number: int) -> None:
        """End a call without an outcome, because its publisher no longer wants it."""
        call = self._calls.get(number)
        if call is not None:
            self._end(call)
            self._accounts.ended(call.message, call.note, "cancelled")

    # -- events

    def look_again(self) -> None:
        """Process all waiting calls again: more subscribers may be known now."""
        for waiting in self._waiting.values():
            self._work.extend(waiting.values())
        self._go_on()

    def came(self, patterns: Iterable[str]) -> None:
        """A subscriber has subscribed to these patterns."""
        for pattern in patterns:
            for topic in self._waiting_for(pattern):
                self._work.extend(self._waiting[topic].values())
        self._go_on()

    def lost(self, subscriber: Subscriber) -> None:
        """A subscriber is gone, with calls that it has not answered."""
        for number in list(subscriber.calls):
            call = self._calls.get(number)
            if call is not None:
                self._settle(call, subscriber, OfferState.LOST)
                self._accounts.step(call.message, "lost", subscriber.id)
                self._work.append(call)
        self._go_on()

    def answered(self, subscriber: Subscriber, number: int, response: Response) -> None:
        """Take a subscriber's response to a call; a late or unexpected one is ignored."""
        call = self._calls.get(number)
        if call is None or call.offers.get(subscriber) is not _OPEN:
            return
        verdict = response.verdict
        if verdict is _ANSWER and len(response.data) > self._settings.max_data:
            verdict = CallVerdict.FAILED
            response = Response(verdict, text=f"answer of {len(response.data)} bytes: too large")
        if verdict is _ANSWER:
            answer = (_ANSWERED, response.data, response.status, "", subscriber.id, 0)
            self._finish(call, with_values(Outcome, answer))
        elif verdict is CallVerdict.REFUSE:
            self._finish(
                call, Outcome(Kind.REFUSED, reason=response.text, subscriber=subscriber.id)
            )
        else:
            if verdict is CallVerdict.NOT_MINE:
                self._settle(call, subscriber, OfferState.NOT_MINE)
            elif verdict is CallVerdict.LOST:
                self._settle(call, subscriber, OfferState.LOST)
            else:
                call.error, call.failed_by = response.text, subscriber.id
                self._settle(call, subscriber, OfferState.FAILED)
            self._accounts.step(call.message, verdict.value, subscriber.id)
            self._work.append(call)
        if subscriber.full:
            self._wake(subscriber)
        if self._work:
            self._go_on()

    def close(self, reason: str) -> None:
        """Refuse all calls."""
        while self._calls:
            call = next(iter(self._calls.values()))
            self._finish(call, Outcome(Kind.REFUSED, reason=reason))
        self._work.clear()
        self._timers.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    # -- processing

    def _changed(self, call: Call) -> None:
        if self._working or self._work:
            self._work.append(call)
            self._go_on()
            return
        self._working = True
        self._process(call)  # as most are: nothing else is under way
        self._working = False
        if self._work:
            self._go_on()

    def _go_on(self) -> None:
        """Process the calls that have changed: some at once, the others in later turns."""
        if not self._working and self._part():
            self._chunks.wake()

    def _part(self) -> bool:
        """Process some of the changed calls; returns whether others are left."""
        self._working = True
        work, left = self._work, CHUNK
        while work and left:
            left -= 1
            self._process(work.popleft())
        self._working = False
        return bool(work)

    def _process(self, call: Call) -> None:
        try:
            if call.number in self._calls:
                self._advance(call)
        except BaseException:  # the other calls are not affected
            self._log.failure("Call {number} failed unexpectedly", number=call.number)

    def _advance(self, call: Call) -> None:
        """Offer a call to the next subscribers, or end it."""
        now = self._now()
        if now >= call.deadline - _EARLY:
            self._expire(call)
            return
        if call.holder is not None and now >= call.share_ends - _EARLY:
            call.holder = None  # it may still answer, but others are asked as well
        if call.message.model is _RANDOM:
            more = call.holder is not None or self._offer_one(call, now)
        else:
            more = self._offer_all(call, now)
        if call.number not in self._calls:
            return
        if not more and self._concluded(call):
            return
        due = call.deadline
        if more and call.share_ends < due:
            due = call.share_ends
        if call.place >= 0:
            self._timers.remove(call)
        call.due = due
        if not call.offers or due < now + 2 * FRESH:
            self._fresh.pop(call.number, None)
            self._timers.add(call)
        else:
            self._fresh[call.number] = call
            if self._sweep is None:
                self._sweep = self._clock.callLater(FRESH, self._set_timers)

    def _stop_timer(self, call: Call) -> None:
        if call.place >= 0:
            self._timers.remove(call)
        else:
            self._fresh.pop(call.number, None)

    def _set_timers(self) -> None:
        """Set the timers of calls that are still unanswered, some of them in this turn."""
        self._sweep = None
        for call in list(islice(self._fresh.values(), CHUNK)):
            del self._fresh[call.number]
            self._timers.add(call)
        if self._fresh:
            self._sweep = self._clock.callLater(0, self._set_timers)

    def _offer_one(self, call: Call, now: float) -> bool:
        """Offer a call to one more subscriber; returns whether more is to be done for it later."""
        there = self._listening(call.message.topic)
        if call.offers:
            there = tuple(s for s in there if s not in call.offers)
        if there:
            call.met = True
            call.share_ends = now + call.message.timeout * self._settings.share
        full = False
        untried: Sequence[Subscriber] = there
        while untried:
            n = int(self._random.random() * len(untried))
            subscriber = untried[n]
            taken = self._offer(call, subscriber, now)
            if call.number not in self._calls:
                return full  # it has its outcome
            if taken is _TAKEN:
                if call.offers.get(subscriber) is _OPEN:
                    call.holder = subscriber
                    if self._waiting:
                        self._stop_waiting(call)
                    return True
            elif taken is Taken.FULL:
                full = True
            untried = _without(untried, n)
        self._wait(call)
        return full

    def _offer_all(self, call: Call, now: float) -> bool:
        """Offer a call to all that have not had it; returns as :meth:`_offer_one`."""
        full = False
        offers = 0
        for subscriber in self._meant(call.message):
            call.met = True
            if subscriber in call.offers:
                continue
            offers += 1
            if offers > CHUNK:
                self._clock.callLater(0, self._changed, call)
                full = True
                break
            full |= self._offer(call, subscriber, now) is Taken.FULL
            if call.number not in self._calls:
                return full  # it has its outcome
        if full:
            call.share_ends = now + call.message.timeout * self._settings.share
        return full

    def _meant(self, message: Message) -> tuple[Subscriber, ...]:
        """Return the intended receivers: the key's subscribers, on topics where keys count."""
        there = self._listening(message.topic)
        if message.key and any(matches(p, message.topic) for p in self._settings.direct):
            owners = tuple(s for s in there if message.key in s.keys)
            return owners or there
        return there

    def _offer(self, call: Call, subscriber: Subscriber, now: float) -> Taken:
        settings, message = self._settings, call.message
        size = len(message.data)
        if (
            len(subscriber.calls) >= settings.max_unanswered
            or subscriber.calls_bytes + size > settings.max_unanswered_bytes
        ):
            subscriber.full = True
            return Taken.FULL
        again = message.redelivered or call.lost
        if call.offers and message.model is _RANDOM:
            again = True
        call.offers[subscriber] = _OPEN
        subscriber.take(call.number, size)
        taken = subscriber.deliver(message.offered(call.deadline - now, again), call.number)
        if taken is _TAKEN:
            self._accounts.step(message, "offered", subscriber.id)
        elif call.offers.get(subscriber) is _OPEN:
            subscriber.drop(call.number)
            self._dropped(subscriber)
            if taken is Taken.FULL:
                subscriber.full = True
                del call.offers[subscriber]
            else:
                call.offers[subscriber] = OfferState.LOST
                call.lost = True
        return taken

    def _settle(self, call: Call, subscriber: Subscriber, state: OfferState) -> None:
        """One subscriber is done with a call; the call goes on."""
        call.offers[subscriber] = state
        if state is OfferState.LOST:
            call.lost = True
        subscriber.drop(call.number)
        self._dropped(subscriber)
        if call.holder is subscriber:
            call.holder = None

    def _wake(self, subscriber: Subscriber) -> None:
        """Try some waiting calls again, because a busy subscriber has room now."""
        waiting = (
            call
            for pattern in subscriber.patterns
            for topic in self._waiting_for(pattern)
            for call in self._waiting[topic].values()
            if subscriber not in call.offers
        )
        woken = list(islice(waiting, WAKE))
        self._work.extend(woken)
        subscriber.full = len(woken) == WAKE  # more may wait: they are tried at the next answer

    def _waiting_for(self, pattern: str) -> list[str]:
        """Return the topics of waiting calls that match a pattern."""
        if not is_pattern(pattern):
            return [pattern] if pattern in self._waiting else []
        return [topic for topic in self._waiting if matches(pattern, topic)]

    # -- the end

    def _concluded(self, call: Call) -> bool:
        """End a call that no subscriber holds and that waits for none."""
        states = set(call.offers.values())
        if _OPEN in states or not self.whole:
            return False
        if OfferState.FAILED in states:
            self._finish(call, Outcome(Kind.REFUSED, reason=call.error, subscriber=call.failed_by))
            return True
        if states == {OfferState.NOT_MINE}:
            self._finish(call, Outcome(Kind.NO_SUBSCRIBER))
            return True
        return False

    def _expire(self, call: Call) -> None:
        self._finish(call, Outcome(Kind.TIMEOUT if call.met else Kind.NO_SUBSCRIBER))

    def _finish(self, call: Call, outcome: Outcome) -> None:
        self._end(call)
        self._accounts.ended(call.message, call.note, outcome.kind.text)
        try:
            call.done(outcome)
        except BaseException:
            self._log.failure("The outcome of a call could not be reported to its caller")

    def _end(self, call: Call) -> None:
        del self._calls[call.number]
        self.size -= len(call.message.data)
        self._stop_timer(call)
        if self._waiting:
            self._stop_waiting(call)
        for subscriber, state in call.offers.items():
            if state is _OPEN:
                subscriber.drop(call.number)
                if not subscriber.patterns:
                    self._dropped(subscriber)

    def _wait(self, call: Call) -> None:
        self._waiting.setdefault(call.message.topic, {})[call.number] = call

    def _stop_waiting(self, call: Call) -> None:
        topic = call.message.topic
        waiting = self._waiting.get(topic)
        if waiting is not None:
            waiting.pop(call.number, None)
            if not waiting:
                del self._waiting[topic]


def _without(subscribers: Sequence[Subscriber], n: int) -> list[Subscriber]:
    """Return all subscribers but one, in no particular order."""
    rest = subscribers if isinstance(subscribers, list) else list(subscribers)
    rest[n] = rest[-1]
    rest.pop()
    return rest


__all__ = ["FIRST_FOREIGN", "Calls"]
