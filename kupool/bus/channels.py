"""Ordered channels between members of a bus: each message arrives once and in order, on any bus.

Messages to one member are divided into numbered chunks. A chunk is sent after the previous one was
answered, and sent again if it was not answered. So a bus that loses or repeats messages only costs
time. A channel breaks only if the member is gone or has restarted, and then both ends are told.

The two streams between two members belong together. Each chunk names the stream that its sender
gets from the receiver. So an end that has begun anew can tell whether the other has heard of that,
and each end is told once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from secrets import token_hex
from struct import Struct

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.bus.interfaces import IBus
from kupool.bus.messages import Answer, Kind, Message, Outcome, Refusal
from kupool.timing.waiting import Waiters

#: The time limit of one attempt to deliver a chunk, and the time until the next attempt.
ATTEMPT = 1.0
AGAIN = 0.1

#: The status of an answer that says: this stream is unknown, start a new one.
STALE = 1

#: The most ended streams of one member that are remembered, so that a late chunk starts no new
#: stream.
OLD_STREAMS = 8

#: A channel breaks if this many times ``max_outbound`` wait.
FAR_OVER = 4

_LENGTH = Struct(">I")


@dataclass(frozen=True)
class ChannelSettings:
    """Limits of channels. Sizes are in bytes.

    ``chunk`` is the size limit of one message of the bus, ``max_message`` that of a message on a
    channel. A channel is full if ``max_outbound`` bytes wait for its member, and breaks at four
    times that. There are at most ``max_members``.
    """

    chunk: int = 40_000
    max_message: int = 1024 * 1024
    max_outbound: int = 8 * 1024 * 1024
    max_members: int = 256


class OutgoingChannel:
    """The channel to one other member. ``broken`` is called once if it cannot continue.

    ``headers`` returns the headers of each chunk, besides the stream's name and the chunk's number.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        settings: ChannelSettings,
        topic: str,
        *,
        headers: Callable[[], dict[str, str]],
        broken: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._bus = bus
        self._settings = settings
        self._topic = topic
        self._headers = headers
        self._broken = broken
        self.stream = token_hex(8)
        self._number = 0
        self._data = bytearray()
        self._chunk: bytes | None = None
        self._call: IDelayedCall | None = None
        self._flight: Deferred[Outcome] | None = None
        self._closed = False
        self._idle = Waiters[None]()
        #: Bytes that were ever sent, and who waits until so many have arrived.
        self._sent = 0
        self._arrivals: deque[tuple[int, Deferred[bool]]] = deque()

    @property
    def size(self) -> int:
        """Bytes that have not arrived, as far as is known."""
        return len(self._data) + len(self._chunk or b"")

    def send(self, data: bytes) -> None:
        """Send a message. Far over the limit the channel breaks, as nothing else can be done."""
        if self._closed:
            return
        self._data += _LENGTH.pack(len(data)) + data
        self._sent += _LENGTH.size + len(data)
        if self.size > FAR_OVER * self._settings.max_outbound:
            self._log.error(
                "The channel to {topic} broke: too many bytes wait for that member",
                topic=self._topic,
            )
            self._break()
        else:
            self._soon()

    def _soon(self) -> None:
        if self._call is None and self._flight is None and not self._closed:
            self._call = self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._call = None
        if self._closed:
            return
        if self._chunk is None:
            if not self._data:
                self._idle.tell(None)
                return
            self._chunk = bytes(self._data[: self._settings.chunk])
            del self._data[: self._settings.chunk]
        headers = {**self._headers(), "stream": self.stream, "n": str(self._number)}
        try:
            sent = self._bus.publish_reliable_random(
                self._chunk, self._topic, ATTEMPT, headers=headers
            )
        except BaseException:  # of the bus, or for a chunk that is larger than it takes
            self._log.failure("The bus refused a message for {topic}", topic=self._topic)
            self._call = self._clock.callLater(ATTEMPT, self._go_on)
            return
        self._flight = sent
        sent.addCallbacks(self._answered, self._failed)

    def _answered(self, outcome: Outcome) -> None:
        self._flight = None
        if self._closed:
            return
        if outcome.kind is not Kind.ANSWERED:
            self._call = self._clock.callLater(AGAIN, self._go_on)
        elif outcome.status == STALE:
            self._break()
        else:
            self._chunk = None
            self._number += 1
            self._tell_arrivals()
            self._soon()

    def _failed(self, failure: object) -> None:
        """Handle a cancelled call: only :meth:`close` cancels calls."""
        self._flight = None

    def _break(self) -> None:
        if not self._closed:
            # Not now: the sender is in the middle of something. But before a flush looks again,
            # for which what is then sent to others counts.
            self._clock.callLater(0, self._broken)
            self.close()

    def arrived(self) -> Deferred[bool]:
        """Fire when all that was sent so far has arrived: True, or False if it never will."""
        if self._closed:
            return succeed(False)
        done: Deferred[bool] = Deferred()
        self._arrivals.append((self._sent, done))
        return done

    def _tell_arrivals(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self._sent - self.size:
            self._arrivals.popleft()[1].callback(True)

    @property
    def busy(self) -> bool:
        """Whether something has not arrived, and still may."""
        return bool(self.size)

    def flushed(self) -> Deferred[None]:
        """Fire when everything has arrived, or the stream has ended."""
        if not self.busy:
            return succeed(None)
        return self._idle.wait()

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        self._data.clear()
        self._chunk = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._flight is not None:
            self._flight.cancel()
        self._idle.tell(None)
        while self._arrivals:
            self._arrivals.popleft()[1].callback(False)


class _Stream:
    """The received part of a stream: the number of chunks, and the start of the next message."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self.data = bytearray()

    def take(self, chunk: bytes, most: int) -> Iterator[bytes]:
        """Yield the messages that a chunk completes; raises :class:`ValueError` for an invalid
        size.
        """
        self.number += 1
        self.data += chunk
        while len(self.data) >= _LENGTH.size:
            size = _LENGTH.unpack_from(self.data)[0]
            if size > most:
                raise ValueError(f"a message of {size} bytes, at most {most} are taken")
            end = _LENGTH.size + size
            if len(self.data) < end:
                return
            message = bytes(self.data[_LENGTH.size : end])
            del self.data[:end]
            yield message


class IncomingChannels:
    """The channels from other members: ``received`` is called with each message, in order.

    ``expected`` returns whether a message is of a member that exists, and for this one as it is
    now. ``sent`` returns the name of the stream to a member, or None. ``renewed`` is called if a
    member has restarted without being reported as gone.
    """

    _log = Logger()

    def __init__(
        self,
        settings: ChannelSettings,
        expected: Callable[[Message], bool],
        sent: Callable[[str], str | None],
        *,
        received: Callable[[str, bytes], object],
        renewed: Callable[[str], object],
    ) -> None:
        self._expected = expected
        self._sent = sent
        self._received = received
        self._renewed = renewed
        self._most = settings.max_message
        self._streams: dict[str, _Stream] = {}
        self._old: deque[str] = deque(maxlen=OLD_STREAMS * settings.max_members)

    def handle(self, message: Message) -> Answer:
        """Handle a chunk; this is the handler of a subscription of the bus."""
        member = message.headers.get("from", "")
        try:
            number = int(message.headers.get("n", "-1"))
        except ValueError:
            raise Refusal("the chunk has no number") from None
        if not self._expected(message):
            raise Refusal("there is no known member of this name")
        stream = self._stream(member, message, number)
        if stream is None:
            return Answer(b"", STALE)
        if number < stream.number:
            return Answer()  # again
        if number > stream.number:
            return Answer(b"", STALE)
        try:
            for item in stream.take(message.data, self._most):
                self._take(member, item)
        except ValueError as error:
            self._log.error("Member {member} sent too much: {why}", member=member, why=str(error))
            self.forget(member)
            return Answer(b"", STALE)
        return Answer()

    def _stream(self, member: str, message: Message, number: int) -> _Stream | None:
        """Return the stream of a chunk, which may be a new one; None for one that has ended."""
        name, hears = message.headers.get("stream", ""), message.headers.get("hears", "")
        stream = self._streams.get(member)
        if hears and hears != self._sent(member):
            return None  # it does not know yet that this end has begun anew
        if stream is not None and stream.name == name:
            return stream
        # One that hears the stream to it, and has another one here, did not begin anew.
        if number != 0 or name in self._old or (stream is not None and hears):
            return None
        if stream is not None:
            self.forget(member)
            self._renewed(member)
        self._streams[member] = _Stream(name)
        return self._streams[member]

    def _take(self, member: str, item: bytes) -> None:
        try:
            self._received(member, item)
        except BaseException:
            self._log.failure("What member {member} sent could not be handled", member=member)

    def name(self, member: str) -> str:
        """Return the name of the stream from a member; empty if there is none."""
        stream = self._streams.get(member)
        return "" if stream is None else stream.name

    def forget(self, member: str) -> None:
        """Forget the stream of a member that is gone."""
        stream = self._streams.pop(member, None)
        if stream is not None:
            self._old.append(stream.name)


class Channels:
    """Sends messages to other members by name, and receives theirs.

    A member subscribes to the topic of ``prefix`` and its name. ``known`` returns whether another
    member exists, as a watch reports; messages to a missing member are dropped. ``received`` gets
    each message with its sender. ``broken`` is called with a member whose channel cannot continue,
    or that has restarted: then neither side keeps any state of the other.

    A member may begin anew under its name, in another epoch. ``epoch_of`` returns the epoch in
    which a member is known, or this one is. What was sent from or to one epoch is not taken in
    another.
    """

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        settings: ChannelSettings,
        prefix: str,
        *,
        member: str,
        known: Callable[[str], bool],
        received: Callable[[str, bytes], object],
        broken: Callable[[str], object],
        epoch_of: Callable[[str], str] = lambda member: "",
    ) -> None:
        self._clock = clock
        self._bus = bus
        self._settings = settings
        self._prefix = prefix
        self._member = member
        self._known = known
        self._broken = broken
        self._epoch_of = epoch_of
        self._out: dict[str, OutgoingChannel] = {}
        self._incoming = IncomingChannels(
            settings, self._expected, self._sent, received=received, renewed=broken
        )

    async def start(self) -> None:
        """Receive messages of the other members."""
        await self._bus.subscribe([f"{self._prefix}.{self._member}"], self._incoming.handle)

    def _expected(self, message: Message) -> bool:
        member, headers = message.headers.get("from", ""), message.headers
        return (
            self._known(member)
            and headers.get("epoch", "") == self._epoch_of(member)
            and headers.get("to", "") == self._epoch_of(self._member)
        )

    def _sent(self, member: str) -> str | None:
        out = self._out.get(member)
        return None if out is None else out.stream

    def _to(self, member: str) -> OutgoingChannel | None:
        out = self._out.get(member)
        if out is None and self._known(member):
            out = self._out[member] = self._new(member)
        return out

    def _new(self, member: str) -> OutgoingChannel:
        epochs = {"epoch": self._epoch_of(self._member), "to": self._epoch_of(member)}

        def headers() -> dict[str, str]:
            return {"from": self._member, **epochs, "hears": self._incoming.name(member)}

        def broken() -> None:
            if self._out.get(member) is out:  # else both ends have begun anew meanwhile
                self._broken(member)

        out = OutgoingChannel(
            self._clock,
            self._bus,
            self._settings,
            f"{self._prefix}.{member}",
            headers=headers,
            broken=broken,
        )
        return out

    def send(self, member: str, data: bytes) -> bool:
        """Send a message; returns False if the member does not exist."""
        out = self._to(member)
        if out is not None:
            out.send(data)
        return out is not None

    def arrived(self, member: str) -> Deferred[bool]:
        """Fire when all that was sent to a member so far has arrived: True, or False if it never
        will.
        """
        out = self._out.get(member)
        return succeed(False) if out is None else out.arrived()

    def size(self, member: str) -> int:
        """Return how many bytes wait for a member."""
        out = self._out.get(member)
        return 0 if out is None else out.size

    def full(self, member: str) -> bool:
        """Return whether nothing more should be sent to a member: too much waits for it, or it does
        not exist.
        """
        return self._to(member) is None or self.size(member) >= self._settings.max_outbound

    def waiting(self) -> int:
        """Return how many bytes wait for all members together."""
        return sum(out.size for out in self._out.values())

    def forget(self, member: str) -> None:
        """End the channels to and from a member that is gone."""
        out = self._out.pop(member, None)
        if out is not None:
            out.close()
        self._incoming.forget(member)

    async def flush(self, timeout: float) -> None:
        """Wait until everything has arrived, or for at most the given seconds.

        That includes what is sent again to others, as a member is found to be gone.
        """
        end = self._clock.seconds() + timeout
        while (left := end - self._clock.seconds()) > 0:
            waiting = [out.flushed() for out in self._out.values() if out.busy]
            if not waiting:
                break
            done: Deferred[object] = gatherResults(waiting, consumeErrors=True)  # type: ignore[assignment]
            done.addTimeout(left, self._clock)
            done.addErrback(lambda late: None)
            await done
            await deferLater(self._clock, 0)

    def stop(self) -> Deferred[None]:
        """Stop sending and receiving; fires when the bus has ended the subscription."""
        for member in list(self._out):
            self.forget(member)
        return self._bus.unsubscribe(self._incoming.handle)


__all__ = ["ChannelSettings", "Channels", "IncomingChannels", "OutgoingChannel"]
