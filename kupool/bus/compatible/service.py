"""The service for clients of the predecessor's bus: translates their frames to calls of a broker.

These clients do not authorize and send no keepalive. They know two outcomes of a call: an answer
and a timeout. A frame that is not valid closes the connection without a reply, because the client
would take a reply for a message and answer it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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

#: The time limit of a call in seconds.
CALL_TIMEOUT = 3.0

#: The values of a publish's second reserved number.
MODELS: Mapping[int, Model] = {
    10: Model.UNRELIABLE_ALL,
    11: Model.UNRELIABLE_RANDOM,
    12: Model.RELIABLE_RANDOM,
    13: Model.RELIABLE_SPECIFIC,
}
_LOWS = {model: low for low, model in MODELS.items()}

#: The model of a reliable message without a sequence, whose publisher waits for no answer.
_WITHOUT_ANSWER = {
    Model.RELIABLE_RANDOM: Model.UNRELIABLE_RANDOM,
    Model.RELIABLE_SPECIFIC: Model.UNRELIABLE_ALL,
}

#: The header in which such a message carries the number that it came with, as its subscribers
#: get that.
LOW_HEADER = "reserve-low"
_LOWS_BY_TEXT: dict[str | None, int] = {str(low): low for low in MODELS}

#: The broker's own sequences start here; a client's start far below.
FIRST_SEQUENCE = 2**31

#: The most calls that one subscriber holds before expired ones are removed.
SWEEP_AT = 64

#: Seconds added to the pause of a peer that sends too much, because rounding must not shorten the
#: pause.
LATER = 0.001

#: The status in the acknowledgement of a refused subscription.
FAILED = 1


@dataclass(frozen=True)
class PredecessorLimits:
    """Limits for these clients; 0 turns ``rate`` and ``idle`` off.

    ``peers`` are the limits of one connection, and of one address over all of its connections.
    ``rate`` messages a second are read from a connection, without answers; one second's worth may
    come at once. A connection without subscriptions and open calls is closed after ``idle`` seconds
    without a message.
    """

    peers: PeerLimits
    rate: float
    idle: float


class TopicRules(NamedTuple):
    """The topics that these clients may publish to and subscribe to."""

    may_publish: Callable[[str], bool]
    may_subscribe: Callable[[str], bool]


class _Offer(NamedTuple):
    """A call that a subscriber holds: its number, and its deadline."""

    number: int
    expires: float


class Offers:
    """The calls that one subscriber holds, by the sequences of their frames.

    ``now`` returns seconds of a clock that is never set.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._offers: dict[int, _Offer] = {}
        self._sweep_at = SWEEP_AT

    def __len__(self) -> int:
        return len(self._offers)

    def add(self, sequence: int, number: int, timeout: float) -> None:
        """Add a call that has ``timeout`` seconds; now and then remove expired calls."""
        now = self._now()
        if len(self._offers) >= self._sweep_at:
            self._offers = {s: o for s, o in self._offers.items() if o.expires > now}
            self._sweep_at = max(SWEEP_AT, 2 * len(self._offers))
        self._offers[sequence] = _Offer(number, now + timeout)

    def take(self, sequence: int) -> _Offer | None:
        """Remove and return the answered call, by its sequence."""
        return self._offers.pop(sequence, None)


class _Peer:
    """The state of a connection."""

    def __init__(self, connection: Connection, shares: tuple[Share, ...]) -> None:
        self.connection = connection
        #: Its publishes without an outcome, and its topics.
        self.has = BusPeer(connection.host, shares)
        self.id = f"predecessor/{connection.id}"
        self.topics: set[int] = set()
        self.offers = Offers(connection.around.now)
        #: Its allowance of messages, and the rate that the allowance was made for.
        self.bucket: Bucket | None = None
        self.rate: float | None = None
        #: The timer that resumes a connection that sent too much.
        self.pause: IDelayedCall | None = None


@implementer(IClosingObserver, IRouter)
class PredecessorService:
    """The observer and the router of a server for clients of the predecessor's bus.

    Its connections have the framing :data:`~kupool.bus.compatible.frames.PREDECESSOR`, or are
    WebSockets. ``limits`` may be replaced at any time. ``refusals`` counts and logs what is
    refused. ``shares`` are those of the broker's other clients, so that an address has one share
    over all of its connections; by default this service has its own.
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
        """Apply other rules from now on; returns how many subscriptions that ended."""
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
        """Prepare a new connection; TCP keepalive detects a peer that vanished."""
        connection.router = self
        peer = self._peers[connection.id] = _Peer(
            connection, self._shares.join("", connection.host)
        )
        end_when_gone(connection.transport, self.limits.idle)
        self._expect(peer)

    def closing(self, connection: Connection, reason: CloseReason | None) -> None:
        """Pass on the calls of a connection that receives nothing more, and end its own calls."""
        peer = self._peers[connection.id]
        self._leave(peer)
        self._end_publishes(peer)
        if reason is not None and reason is not GOING_DOWN:
            self._refused(reason.reason)

    def closed(self, connection: Connection, reason: Failure) -> None:
        """End the publishes and subscriptions of the connection."""
        peer = self._peers.pop(connection.id)
        self._leave(peer)
        if peer.pause is not None:
            peer.pause.cancel()
        self._end_publishes(peer)
        self._shares.leave(peer.has.shares)

    def settle(self, connection: Connection) -> Deferred[None] | None:
        """Wait for the outcomes of the peer's publishes; it can answer no calls now."""
        peer = self._peers[connection.id]
        self._leave(peer)
        if not peer.has.publishing:
            return None
        peer.has.settled = Deferred()
        return peer.has.settled

    def finish(self) -> Deferred[None]:
        """Refuse messages from now on; fires when all earlier publishes have an outcome."""
        return self._publishes.finish()

    def _leave(self, peer: _Peer) -> None:
        if peer.topics:
            peer.topics.clear()
            peer.has.leave()
            self._broker.remove(peer.id)

    def _end_publishes(self, peer: _Peer) -> None:
        self._publishes.end(peer.has.end_publishes())

    def _expect(self, peer: _Peer) -> None:
        """Start the idle timeout of a peer without subscriptions and open calls."""
        waits = peer.topics or peer.has.publishing
        peer.connection.expect_within(0.0 if waits else self.limits.idle, IDLE_TIMEOUT)

    def _refused(self, reason: str) -> None:
        self._refusals.note(f"predecessor's clients, {reason}")

    # -- incoming frames

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
        """Handle a frame; returns False if it is not valid.

        An answer may have any command and other numbers, so only its sequence distinguishes it from
        a publish. A late answer is not a publish either.
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
        """Pause reading from a peer that sent too much."""
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
        # Buffered messages of a topic are delivered while the subscription is added.
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
            low = _LOWS_BY_TEXT.get(message.headers.get(LOW_HEADER), _LOWS[message.model])
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
        """Return whether a sequence belongs to a message that was sent to a subscriber."""
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
            except ValueError:  # the rest of the frame is valid
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
        """Send an outcome to a publisher; None means that the call was refused.

        Every outcome is a timeout for the publisher, except an answer that fits its frame.
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
