"""The core of the bus: subscribers, waiting messages, and the outcome of every message.

It does no input or output. Messages leave through the functions that subscribers gave; time comes
from the clock. :mod:`kupool.bus.calling` has the two reliable models, :mod:`kupool.bus.sending` the
unreliable ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.bus.accounts import Accounts, Note
from kupool.bus.buffer import Buffer, BufferOwner, Kept
from kupool.bus.calling import FIRST_FOREIGN, Calls
from kupool.bus.calls import Deliver, Done, Response, Subscriber, Taken
from kupool.bus.members import TopicWatches
from kupool.bus.messages import Kind, Message, Outcome
from kupool.bus.sending import Sending
from kupool.bus.settings import BusSettings
from kupool.bus.status import BusStatus, Step
from kupool.bus.topics import Trie, pattern_name
from kupool.bus.unguessable import Unguessable
from kupool.bus.watching import IBrokerWatcher
from kupool.timing.timers import Timers

#: The most topics whose subscribers are cached until any subscription changes.
MAX_MATCHES = 1024

#: Reasons for which the bus itself refuses a message.
BUS_FULL = "the bus is full"
BUS_CLOSED = "the bus is closed"
TOO_LARGE = "too large for every subscriber"
SHARE_FULL = "too much of one user or address waits for a subscriber"

#: Seconds between two log lines about refusals for the same reason.
LOG_PERIOD = 60.0


class Broker:
    """Takes messages for topics, and brings each to its outcome.

    ``wall`` returns seconds since 1970. ``random`` chooses among subscribers. ``watcher`` is told
    about subscribers, and about their answers to other brokers' calls.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settings: BusSettings | None = None,
        *,
        wall: Callable[[], float],
        random: Random | None = None,
        watcher: IBrokerWatcher | None = None,
    ) -> None:
        self.settings = settings or BusSettings()
        self._random = random or Random()
        self._wall = wall
        self._watcher = watcher
        self.clock = clock
        self._timers = Timers(clock)
        self._accounts = Accounts(self.settings, wall)
        self._buffer = Buffer(self._timers, self.settings, self._expired)
        self._subscribers: dict[str, Subscriber] = {}
        self._trie: Trie[Subscriber] = Trie()
        self._matches: dict[str, tuple[Subscriber, ...]] = {}
        self._sending = Sending(
            clock, self.settings, random=self._random, listening=self.listening, give=self._give
        )
        self._calls = Calls(
            clock,
            self.settings,
            self._accounts,
            random=self._random,
            listening=self.listening,
            dropped=self._drop_if_idle,
        )
        self._forget = self._calls.forget
        self._told: list[Callable[[], object]] = []
        #: The watches of members of topics.
        self.watches = TopicWatches(clock, self.listening)
        self._closed = False
        self._incomplete = ""
        #: The time of the last log line for each kind of refusal, in seconds of the clock.
        self._logged: dict[str, float] = {}
        self._ids = Unguessable()

    # -- subscribers

    def on_listeners_changed(self, call: Callable[[], object]) -> None:
        """Call a function whenever the topics of a subscriber have changed."""
        self._told.append(call)

    def _listeners_changed(self) -> None:
        self.watches.changed()
        for call in self._told:
            call()

    def subscribe(
        self,
        subscriber_id: str,
        topics: Iterable[object],
        deliver: Deliver,
        keys: Iterable[str] = (),
        *,
        since: float | None = None,
        elsewhere: bool = False,
    ) -> tuple[str, ...]:
        """Subscribe to topics; returns all topics of the subscriber.

        An existing subscriber keeps its ``deliver``. ``since`` is when it subscribed, in seconds
        since 1970, if that is not now. The watcher is not told if the subscriber is ``elsewhere``,
        on another node. Buffered messages of these topics are delivered before this returns, or in
        the next turns of the reactor. Raises :class:`ValueError` for an invalid pattern; then
        nothing has changed.
        """
        patterns = [pattern_name(topic) for topic in topics]
        if not patterns:
            raise ValueError("no topic to subscribe to")
        if self._closed:
            raise ValueError(BUS_CLOSED)
        subscriber = self._subscribers.get(subscriber_id)
        if subscriber is None:
            since = self._wall() if since is None else since
            subscriber = Subscriber(subscriber_id, deliver, since)
            self._subscribers[subscriber_id] = subscriber
        new_keys = tuple(keys)
        subscriber.keys.update(new_keys)
        new = [p for p in dict.fromkeys(patterns) if p not in subscriber.patterns]
        for pattern in new:
            subscriber.patterns[pattern] = None
            self._trie.add(pattern, subscriber)
        self._matches.clear()
        self._listeners_changed()
        for pattern in new:
            for topic in self._buffer.topics(pattern):
                self._buffer.drain(topic, self._giving(subscriber))
        self._calls.came(new)
        found = tuple(subscriber.patterns)
        if self._watcher is not None and not elsewhere:
            self._watcher.subscribed(
                subscriber_id, found, new_keys, deliver=deliver, since=subscriber.since
            )
        return found

    def unsubscribe(
        self, subscriber_id: str, topics: Iterable[object] | None = None
    ) -> tuple[str, ...]:
        """End a subscription to some topics, by default to all; returns the topics that are left.

        The subscriber may still answer calls that it has. Harmless if it is not subscribed. Raises
        :class:`ValueError` for an invalid pattern.
        """
        patterns = None if topics is None else [pattern_name(topic) for topic in topics]
        left = self._take_topics(subscriber_id, patterns)
        if self._watcher is not None:
            self._watcher.unsubscribed(subscriber_id, left)
        return left

    def _take_topics(self, subscriber_id: str, patterns: list[str] | None) -> tuple[str, ...]:
        subscriber = self._subscribers.get(subscriber_id)
        if subscriber is None:
            return ()
        for pattern in list(subscriber.patterns) if patterns is None else patterns:
            if pattern in subscriber.patterns:
                del subscriber.patterns[pattern]
                self._trie.remove(pattern, subscriber)
        self._matches.clear()
        self._listeners_changed()
        if not subscriber.patterns:
            subscriber.keys.clear()
        self._drop_if_idle(subscriber)
        return tuple(subscriber.patterns)

    def remove(self, subscriber_id: str, linger: float = 0.0) -> None:
        """Remove a subscriber that is gone; calls that it has not answered go to others.

        It stays a member of its topics for ``linger`` seconds.
        """
        subscriber = self._subscribers.get(subscriber_id)
        if subscriber is not None:
            self.watches.lost(subscriber, linger)
        self._take_topics(subscriber_id, None)
        if subscriber is not None:
            self._calls.lost(subscriber)  # with its last call it is forgotten
        if self._watcher is not None:
            self._watcher.removed(subscriber_id, linger)

    def listening(self, topic: str) -> tuple[Subscriber, ...]:
        """Return the subscribers of a topic, each once."""
        found = self._matches.get(topic)
        if found is None:
            if len(self._matches) >= MAX_MATCHES:
                self._matches.clear()
            found = self._matches[topic] = self._trie.match(topic)
        return found

    def incomplete(self, reason: str) -> None:
        """Set why some subscribers may be unknown now; empty if all are known.

        While it is set, unreliable messages are refused for this reason, and calls wait.
        """
        self._incomplete = reason
        self._calls.whole = not reason
        self.watches.complete(not reason)
        if not reason:
            self._calls.look_again()

    def _drop_if_idle(self, subscriber: Subscriber) -> None:
        if not subscriber.patterns and not subscriber.calls:
            self._subscribers.pop(subscriber.id, None)

    # -- messages

    def message_id(self) -> str:
        """Return a new id for a message, which is unique and cannot be guessed."""
        return self._ids.text()

    def publish(
        self, message: Message, done: Done, known_as: str = "", owners: Sequence[BufferOwner] = ()
    ) -> Callable[[], None]:
        """Bring a message to its outcome, which ``done`` is called with, maybe at once.

        The message comes from :func:`kupool.bus.publishing.make_message`; the ``timeout`` of a
        reliable one is its time limit. ``known_as`` is the publisher's own id of it, for traces
        only. ``owners`` are the user and address whose share it takes in the buffer. Returns a
        function that ends the publish without an outcome; it is harmless later.
        """
        note = self._accounts.published(message, known_as)
        if self._closed:
            self._refuse(message, note, BUS_CLOSED, done)
        elif message.model.reliable:
            call = self._calls.start(message, note, done)
            if call is not None:
                return partial(self._forget, call.number)
            self._refuse(message, note, BUS_FULL, done)
        elif self._incomplete:
            self._refuse(message, note, self._incomplete, done)
        else:
            self._send(message, note, done, owners)
        return _nothing

    def answer(self, subscriber_id: str, number: int, response: Response) -> None:
        """Take a subscriber's response to a call; a late or unexpected one is harmless."""
        if number >= FIRST_FOREIGN:
            if self._watcher is not None:
                self._watcher.answered(subscriber_id, number, response)
            return
        subscriber = self._subscribers.get(subscriber_id)
        if subscriber is not None:
            self._calls.answered(subscriber, number, response)

    def knows(self, subscriber_id: str) -> bool:
        """Return whether a subscriber is subscribed, or has calls that it may still answer."""
        return subscriber_id in self._subscribers

    def turned_away(self, reason: str) -> None:
        """Count a refusal of something that is not a message yet, and log it now and then.

        ``reason`` is one of a small number of texts.
        """
        counts, what = self._accounts.counts, f"turned away: {reason}"
        counts[what] += 1
        now = self.clock.seconds()
        if now - self._logged.get(reason, -LOG_PERIOD) >= LOG_PERIOD:
            self._logged[reason] = now
            self._log.warn(
                "The bus refused: {reason}: {count} since the start",
                reason=reason,
                count=counts[what],
            )

    def _refuse(self, message: Message, note: Note, reason: str, done: Done) -> None:
        self._accounts.ended(message, note, Kind.REFUSED.value)
        self._tell(done, Outcome(Kind.REFUSED, reason=reason))

    def _tell(self, done: Done, outcome: Outcome) -> None:
        try:
            done(outcome)
        except BaseException:
            self._log.failure("The outcome of a publish could not be reported to its caller")

    def _send(
        self, message: Message, note: Note, done: Done, owners: Sequence[BufferOwner]
    ) -> None:
        """Send an unreliable message, or buffer it."""

        def sent(told: Counter[Taken], meant: Sequence[Subscriber]) -> None:
            self._tell(done, self._sent(message, note, told, owners, meant=meant))

        if not self._sending.send(message, sent):
            self._refuse(message, note, BUS_FULL, done)

    def _give_kept(self, topic: str, others: Sequence[Subscriber]) -> None:
        """Deliver a message just buffered to subscribers that came before the others had it."""
        there = self.listening(topic)
        if there is not others:
            known = set(others)
            for subscriber in [each for each in there if each not in known]:
                self._buffer.drain(topic, self._giving(subscriber))

    def _sent(
        self,
        message: Message,
        note: Note,
        told: Counter[Taken],
        owners: Sequence[BufferOwner],
        *,
        meant: Sequence[Subscriber],
    ) -> Outcome:
        receivers = told[Taken.YES]
        reason = ""
        if receivers:
            self._accounts.ended(message, note, "delivered")
        elif told[Taken.FULL]:
            self._accounts.ended(message, note, "overflow")
            reason = "every subscriber has enough to do"
        elif told[Taken.TOO_LARGE]:
            self._accounts.ended(message, note, "overflow")
            reason = TOO_LARGE
        elif self._closed:
            self._accounts.ended(message, note, Kind.REFUSED.value)
            reason = BUS_CLOSED
        elif self._buffer.keep(message, note, owners):
            self._accounts.ended(message, note, "buffered")
            self._give_kept(message.topic, meant)
        else:
            self._accounts.ended(message, note, "overflow")
            reason = SHARE_FULL if self._buffer.over_share(message, owners) else BUS_FULL
        if reason:
            return Outcome(Kind.REFUSED, reason=reason)
        return Outcome(Kind.SENT, receivers=receivers)

    def _give(self, message: Message, subscriber: Subscriber) -> Taken:
        try:
            taken = subscriber.deliver(message, None)
        except BaseException:  # the other subscribers still get the message
            self._log.failure(
                "A message could not be delivered to subscriber {id}", id=subscriber.id
            )
            taken = Taken.GONE
        if taken is Taken.YES:
            self._accounts.step(message, "offered", subscriber.id)
        else:
            self._accounts.happened(message, f"not sent: {taken.value}")
        return taken

    def _giving(self, subscriber: Subscriber) -> Callable[[Kept], bool]:
        def give(kept: Kept) -> bool:
            taken = self._give(kept.message, subscriber)
            if taken is Taken.TOO_LARGE:
                self._accounts.ended(kept.message, kept.note, "overflow")
                return True  # other messages are not held up
            if taken is not Taken.YES:
                return False
            self._accounts.ended(kept.message, kept.note, "delivered")
            return True

        return give

    def _expired(self, kept: Kept) -> None:
        self._accounts.ended(kept.message, kept.note, "expired")

    # -- all of it

    def status(self) -> BusStatus:
        """Return topics, subscribers and counts."""
        return BusStatus(
            len(self._calls),
            self._calls.size,
            dict(self._accounts.counts),
            self._accounts.shown(self._calls.waiting, self._buffer.count),
            tuple(subscriber.shown() for subscriber in self._subscribers.values()),
        )

    def trace(self, message_id: str) -> tuple[Step, ...]:
        """Return the trace of a recent message, by its id or ``trace-id``."""
        return self._accounts.trace(message_id)

    def close(self) -> None:
        """Refuse every call, remove every subscriber, and stop all timers."""
        self._closed = True
        self.watches.close()
        for subscriber_id in list(self._subscribers):
            self.unsubscribe(subscriber_id)
        self._calls.close(BUS_CLOSED)
        self._buffer.clear()
        self._timers.clear()


def _nothing() -> None:
    """Do nothing: the message has its outcome already."""


__all__ = ["BUS_CLOSED", "BUS_FULL", "SHARE_FULL", "TOO_LARGE", "Broker"]
