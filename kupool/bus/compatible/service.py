"""The bus for clients of its predecessor: their frames on one side, a broker on the other.

They say neither who they are nor that they are there, and know two ends of a call, an answer
and a timeout. Whatever cannot be understood ends their connection, and is not answered: they
would take an answer for a message, and answer it in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.bus.broker import Broker
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.compatible.frames import (
    ANSWERED,
    MAX_BODY,
    SUBSCRIBE,
    SUBSCRIBED,
    UNANSWERED,
    Acknowledgement,
    PredecessorFrame,
    read_frame,
    read_topics,
)
from kupool.bus.messages import Kind, Message, Model, Outcome
from kupool.bus.publishing import make_message
from kupool.bus.remote.peers import BusPeer
from kupool.bus.remote.shares import Share, Shares
from kupool.bus.settings import PeerLimits
from kupool.errors import CLOSE_MALFORMED, GOING_DOWN, IDLE_TIMEOUT, CloseReason
from kupool.net.interfaces import IClosingObserver
from kupool.net.refusals import Refusals
from kupool.net.routing.interfaces import IRouter
from kupool.net.transport.silence import end_when_gone
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.timing.buckets import Bucket
from kupool.timing.waiting import UnderWay
from kupool.wire.framing import Item

#: Seconds that a call has for its answer.
CALL_TIMEOUT = 3.0

#: What the second reserved number of a publish says.
MODELS: Mapping[int, Model] = {
    10: Model.UNRELIABLE_ALL,
    11: Model.UNRELIABLE_RANDOM,
    12: Model.RELIABLE_RANDOM,
    13: Model.RELIABLE_SPECIFIC,
}
_LOWS = {model: low for low, model in MODELS.items()}

#: How a reliable message goes whose publisher gave no sequence, as it waits for no answer.
_WITHOUT_ANSWER = {
    Model.RELIABLE_RANDOM: Model.UNRELIABLE_RANDOM,
    Model.RELIABLE_SPECIFIC: Model.UNRELIABLE_ALL,
}

#: The header in which such a message carries the number that it came with, as its subscribers
#: get that.
LOW_HEADER = "reserve-low"
_LOWS_BY_TEXT = {str(low): low for low in MODELS}

#: The broker's own sequences are from here on; a client begins far below.
FIRST_SEQUENCE = 2**31

#: Messages in the hands of one subscriber before those are looked for that have no time left.
SWEEP_AT = 64

#: Seconds by which a peer that says too much is heard again later than it might be, as rounding
#: must not make that earlier.
LATER = 0.001

#: What an acknowledgement says of a subscription that was refused.
FAILED = 1


@dataclass(frozen=True)
class PredecessorLimits:
    """What these clients may have at a time; 0 turns ``rate`` and ``idle`` off.

    ``peers`` are the limits of one connection, and of one address over all of them. A
    connection is heard ``rate`` times a second, answers not counted, of which one second's
    may come at once. One that listens to nothing and waits for nothing is closed after
    ``idle`` seconds without a message.
    """

    peers: PeerLimits = field(default_factory=PeerLimits)
    rate: float = 100.0
    idle: float = 180.0


class TopicRules(NamedTuple):
    """Which topics these clients may publish to, and which they may subscribe to."""

    may_publish: Callable[[str], bool]
    may_subscribe: Callable[[str], bool]


class _Offer(NamedTuple):
    """A call in a subscriber's hands: its number, and when its time is over."""

    number: int
    expires: float


class Offers:
    """The calls in the hands of one subscriber, by the sequence that they went with.

    ``now`` returns seconds of a clock that is never set.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._offers: dict[int, _Offer] = {}
        self._sweep_at = SWEEP_AT

    def __len__(self) -> int:
        return len(self._offers)

    def add(self, sequence: int, number: int, timeout: float) -> None:
        """Note one that has ``timeout`` seconds; forget, now and then, those that have none."""
        now = self._now()
        if len(self._offers) >= self._sweep_at:
            self._offers = {s: o for s, o in self._offers.items() if o.expires > now}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._offers))
        self._offers[sequence] = _Offer(number, now + timeout)

    def take(self, sequence: int) -> _Offer | None:
        """Return the one that a sequence stands for, which is answered."""
        return self._offers.pop(sequence, None)


class _Peer:
    """What is known of a connection."""

    def __init__(self, connection: Connection, shares: tuple[Share, ...]) -> None:
        self.connection = connection
        #: What it has of the bus: publishes without an outcome, and topics.
        self.has = BusPeer(connection.host, shares)
        self.id = f"predecessor/{connection.id}"
        self.topics: set[int] = set()
        self.offers = Offers(connection.around.now)
        #: How often it may be heard, and the rate that this was made of.
        self.bucket: Bucket | None = None
        self.rate = 0.0
        #: What goes on with it when it was heard too often.
        self.pause: IDelayedCall | None = None


@implementer(IClosingObserver, IRouter)
class PredecessorService:
    """The observer and the router of a server for clients of the predecessor's bus.

    Its connections have the framing :data:`~kupool.bus.compatible.frames.PREDECESSOR`, or are
    WebSockets. ``limits`` may be replaced at any time. What is refused is counted and logged by
    ``refusals``. ``shares`` are those of the broker's other clients, where an address has its
    share once for all of its connections; by default it has one of its own here.
    """

    def __init__(
        self,
        clock: IReactorTime,
        broker: Broker,
        *,
        limits: PredecessorLimits,
        rules: TopicRules,
        refusals: Refusals,
        shares: Shares | None = None,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._broker = broker
        self._rules = rules
        self._refusals = refusals
        self._peers: dict[int, _Peer] = {}
        self._shares = Shares() if shares is None else shares
        self._sequences = 0
        self._publishes = UnderWay()

    def use_rules(self, rules: TopicRules) -> int:
        """Go by other rules from now on; returns how many subscriptions end by that."""
        self._rules = rules
        ended = 0
        for peer in self._peers.values():
            topics = [topic for topic in peer.topics if not rules.may_subscribe(str(topic))]
            if topics:
                ended += len(topics)
                peer.topics.difference_update(topics)
                left = self._broker.unsubscribe(peer.id, topics)
                peer.has.unsubscribed("", left, lambda n: False)
                self._expect(peer)
        return ended

    # -- connections

    def opened(self, connection: Connection) -> None:
        """Begin to listen; the system tells of a peer that is gone without a word."""
        connection.router = self
        peer = self._peers[connection.id] = _Peer(
            connection, self._shares.join("", connection.host)
        )
        end_when_gone(connection.transport, self.limits.idle)
        self._expect(peer)

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """Let others have the calls of a connection that hears nothing more, and end its own."""
        peer = self._peers[connection.id]
        self._leave(peer)
        self._end_publishes(peer)
        if reason is not None and reason is not GOING_DOWN:
            self._refused(reason.reason)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """End what the connection has published, and its subscriptions."""
        peer = self._peers.pop(connection.id)
        self._leave(peer)
        if peer.pause is not None:
            peer.pause.cancel()
        self._end_publishes(peer)
        self._shares.leave(peer.has.shares)

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for the outcomes of what the peer has published; it can answer nothing now."""
        peer = self._peers[connection.id]
        self._leave(peer)
        if not peer.has.publishing:
            return None
        peer.has.settled = Deferred()
        return peer.has.settled

    def finish(self) -> Deferred[None]:
        """Refuse what comes from now on; fires when all before has its outcome."""
        return self._publishes.finish()

    def _leave(self, peer: _Peer) -> None:
        if peer.topics:
            peer.topics.clear()
            peer.has.leave()
            self._broker.remove(peer.id)

    def _end_publishes(self, peer: _Peer) -> None:
        self._publishes.end(peer.has.end_publishes())

    def _expect(self, peer: _Peer) -> None:
        """Expect something of a peer that listens to nothing and waits for nothing."""
        waits = peer.topics or peer.has.publishing
        peer.connection.expect_within(0.0 if waits else self.limits.idle, IDLE_TIMEOUT)

    def _refused(self, reason: str) -> None:
        self._refusals.note(f"predecessor's clients, {reason}")

    # -- what comes in

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one frame."""
        peer = self._peers[connection.id]
        # No text over WebSocket is a frame: the magic is not UTF-8.
        frame = read_frame(item) if isinstance(item, bytes) else None
        if frame is None or not self._handle(peer, frame):
            connection.complain(b"")
            connection.close(CLOSE_MALFORMED)
        elif connection.state is OPEN:
            self._expect(peer)
        return None

    def _handle(self, peer: _Peer, frame: PredecessorFrame) -> bool:
        """Do what a frame says; False where it cannot be understood.

        The command of an answer and its other numbers may be any, so that the sequence alone
        tells it from a publish. One that comes too late is none either.
        """
        offer = peer.offers.take(frame.sequence)
        if offer is not None:
            answer = Response(CallVerdict.ANSWER, frame.body)
            self._broker.answer(peer.id, offer.number, answer)
            return True
        if peer.topics and self._is_own(frame.sequence):
            return True
        if frame.command == SUBSCRIBE:
            topics = read_topics(frame.body)
            if topics is not None:
                self._pace(peer)
                self._subscribe(peer, frame, topics)
            return topics is not None
        model = MODELS.get(frame.low)
        if model is None or frame.command <= SUBSCRIBED:
            return False
        self._pace(peer)
        self._publish(peer, frame, model)
        return True

    def _pace(self, peer: _Peer) -> None:
        """Hear a peer no more for a moment, when it has said too much."""
        rate, now = self.limits.rate, self._clock.seconds()
        if peer.rate != rate:
            peer.rate = rate
            peer.bucket = Bucket(rate, max(1, ceil(rate)), now) if rate else None
        bucket = peer.bucket
        if bucket is None:
            return
        bucket.spend(now)
        if peer.pause is None and bucket.empty(now):
            peer.connection.hold()
            pause = bucket.wait(now) + LATER
            peer.pause = self._clock.callLater(pause, self._go_on, peer)

    def _go_on(self, peer: _Peer) -> None:
        peer.pause = None
        peer.connection.release()

    # -- subscribing

    def _subscribe(self, peer: _Peer, frame: PredecessorFrame, topics: list[int]) -> None:
        wanted = dict.fromkeys(topics)
        refusal = self._why_not_subscribe(peer, wanted)
        if refusal:
            self._refused(refusal)
            self._acknowledge(peer, frame, Acknowledgement(FAILED, refusal, []))
            return
        if wanted:
            peer.has.subscribed("", map(str, wanted), ())
        # What waits for a topic comes to the subscriber while it is being added.
        self._acknowledge(peer, frame, Acknowledgement(0, "", topics))
        if wanted:
            peer.topics.update(wanted)
            self._broker.subscribe(peer.id, wanted, self._deliver(peer))

    def _why_not_subscribe(self, peer: _Peer, wanted: Mapping[int, object]) -> str:
        if self._publishes.finishing:
            return GOING_DOWN.reason
        if len(peer.topics | wanted.keys()) > self.limits.peers.topics:
            return "too many topics"
        if not all(self._rules.may_subscribe(str(topic)) for topic in wanted):
            return "a topic that they may not subscribe to"
        full = peer.has.refuses_subscriber(self.limits.peers, "", set(map(str, wanted)), set())
        return f"too many {full}" if full else ""

    def _acknowledge(
        self, peer: _Peer, frame: PredecessorFrame, acknowledgement: Acknowledgement
    ) -> None:
        body = acknowledgement.encode()
        peer.connection.send(PredecessorFrame(SUBSCRIBED, frame.sequence, body).encode())

    def _deliver(self, peer: _Peer) -> Callable[[Message, int | None], Taken]:
        connection = peer.connection

        def deliver(message: Message, number: int | None) -> Taken:
            if not connection.sends:
                return Taken.GONE
            size = len(message.data)
            if size > MAX_BODY:
                if number is None:
                    return Taken.TOO_LARGE
                text = f"{size} bytes are too large for this subscriber"
                failed = Response(CallVerdict.FAILED, text=text)
                self._broker.answer(peer.id, number, failed)
                return Taken.YES
            sequence = self._next_sequence()
            low = _LOWS_BY_TEXT.get(message.headers.get(LOW_HEADER, ""), _LOWS[message.model])
            frame = PredecessorFrame(int(message.topic), sequence, message.data, low=low)
            if not connection.send_event(connection.framing.encode(frame.encode())):
                return Taken.FULL if connection.sends else Taken.GONE
            if number is not None:
                peer.offers.add(sequence, number, message.timeout)
            return Taken.YES

        return deliver

    def _next_sequence(self) -> int:
        sequence = FIRST_SEQUENCE + self._sequences % FIRST_SEQUENCE
        self._sequences += 1
        return sequence

    def _is_own(self, sequence: int) -> bool:
        """Say whether a sequence is one that some message went to a subscriber with."""
        return 0 <= sequence - FIRST_SEQUENCE < self._sequences

    # -- publishing

    def _publish(self, peer: _Peer, frame: PredecessorFrame, model: Model) -> None:
        headers = {}
        if not frame.sequence and model in _WITHOUT_ANSWER:
            headers[LOW_HEADER] = str(frame.low)
            model = _WITHOUT_ANSWER[model]
        broker = self._broker
        refusal = self._why_not_publish(peer, frame)
        if not refusal:
            try:
                message = make_message(
                    broker.settings,
                    broker.message_id(),
                    model,
                    frame.command,
                    data=frame.body,
                    timeout=CALL_TIMEOUT,
                    headers=headers,
                )
            except ValueError:  # all the rest of it is right
                refusal = "a message that is too large for the bus"
        if refusal:
            self._refused(refusal)
            self._reply(peer, frame, model, None)
            return
        self._publishes.begin()
        number = peer.has.begin(len(frame.body))

        def done(outcome: Outcome) -> None:
            self._reply(peer, frame, model, outcome)
            if peer.has.finished(number):  # otherwise its publisher is gone
                if peer.connection.state is OPEN:
                    self._expect(peer)
                self._publishes.end()

        owners = [share.owner for share in peer.has.shares]
        peer.has.opened(number, broker.publish(message, done, owners=owners))

    def _why_not_publish(self, peer: _Peer, frame: PredecessorFrame) -> str:
        if self._publishes.finishing:
            return GOING_DOWN.reason
        limits = self.limits.peers
        if peer.has.publishing >= limits.publishing:
            return "too many publishes without an outcome"
        if not self._rules.may_publish(str(frame.command)):
            return "a topic that they may not publish to"
        full = peer.has.refuses_call(limits, len(frame.body))
        return f"over the limit of {full}" if full else ""

    def _reply(
        self, peer: _Peer, frame: PredecessorFrame, model: Model, outcome: Outcome | None
    ) -> None:
        """Tell a publisher the outcome, or None: its call is refused. Either is a timeout to
        it, unless that is an answer that its frame can carry.
        """
        if not model.reliable:
            return
        high, body = UNANSWERED, frame.body
        if outcome is not None and outcome.kind is Kind.ANSWERED and len(outcome.data) <= MAX_BODY:
            high, body = ANSWERED, outcome.data
        reply = PredecessorFrame(frame.command, frame.sequence, body, high)
        peer.connection.send(reply.encode())


__all__ = [
    "CALL_TIMEOUT",
    "FIRST_SEQUENCE",
    "LOW_HEADER",
    "MODELS",
    "Offers",
    "PredecessorLimits",
    "PredecessorService",
    "TopicRules",
]
