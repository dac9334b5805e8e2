"""Streams between hosts: entries in order, each once, however the bus does.

A stream is cut into chunks that are numbered; the next one is sent when the one before was
answered, and a chunk that was not is sent again. So a bus that loses or repeats messages
costs time alone, until the other host counts as gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from secrets import token_hex

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.bus import Answer, IBus, Kind, Message, Outcome, Refusal
from kupool.rooms.spread.entries import AnyEntry, Push, decode, encode
from kupool.rooms.spread.settings import SpreadSettings
from kupool.timing.waiting import Waiters
from kupool.wire.framing import INT32

#: How long one attempt to deliver a chunk may take, and when the next one begins.
ATTEMPT = 1.0
AGAIN = 0.1

#: The status of an answer that says: this stream is not known, begin another.
STALE = 1

#: Streams of one host that have ended are remembered, so that a late chunk opens none.
OLD_STREAMS = 8


class Outbound:
    """What goes to one other host. ``broken`` is called once if it cannot go on."""

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        settings: SpreadSettings,
        host: str,
        *,
        to: str,
        broken: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._bus = bus
        self._settings = settings
        self._host = host
        self._topic = f"{settings.name}.host.{to}"
        self._broken = broken
        self._stream = token_hex(8)
        self._number = 0
        self._data = bytearray()
        self._chunk: bytes | None = None
        self._push: Push | None = None
        self._push_size = 0
        self._call: IDelayedCall | None = None
        self._flight: Deferred[Outcome] | None = None
        self._closed = False
        self._idle = Waiters[None]()
        self.dropped = 0

    @property
    def size(self) -> int:
        """How many bytes have not arrived, as far as is known."""
        return len(self._data) + len(self._chunk or b"") + self._push_size

    @property
    def full(self) -> bool:
        """Whether what can be done without should not be sent."""
        return self.size >= self._settings.max_outbound

    def send(self, entry: AnyEntry) -> None:
        """Send an entry. Far over the limit the stream breaks: nothing else is left to do."""
        if self._closed:
            return
        self._end_push()
        self._add(encode(entry))

    def push(self, peer: int, data: bytes, key: str | None, policy: str | None) -> bool:
        """Send a room's message to a peer; one that goes to many is carried once.

        Returns False where it was dropped, because too much waits.
        """
        last = self._push
        if last is not None and last.data is data and (last.key, last.policy) == (key, policy):
            last.peers.append(peer)
            return True
        if self._closed or (self.full and (key is not None or policy is not None)):
            self.dropped += 1
            return False
        self._end_push()
        self._push, self._push_size = Push([peer], data, key, policy), len(data)
        self._soon()
        return True

    def _end_push(self) -> None:
        push, self._push, self._push_size = self._push, None, 0
        if push is not None:
            self._add(encode(push))

    def _add(self, data: bytes) -> None:
        self._data += INT32.encode(data)
        if self.size > 4 * self._settings.max_outbound:
            self._log.error("Too much waits for the host of {topic}", topic=self._topic)
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
        self._end_push()
        if self._call is not None:  # what came with the last entry goes now, too
            self._call.cancel()
            self._call = None
        if self._chunk is None:
            if not self._data:
                self._idle.tell(None)
                return
            self._chunk = bytes(self._data[: self._settings.chunk])
            del self._data[: self._settings.chunk]
        headers = {"from": self._host, "stream": self._stream, "n": str(self._number)}
        try:
            sent = self._bus.publish_reliable_random(
                self._chunk, self._topic, ATTEMPT, headers=headers
            )
        except BaseException:  # of the bus, or a chunk that is larger than it takes
            self._log.failure("The bus took nothing for {topic}", topic=self._topic)
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
            self._soon()

    def _failed(self, failure: object) -> None:
        """The call was cancelled, by ourselves: see :meth:`close`."""
        self._flight = None

    def _break(self) -> None:
        if not self._closed:
            self.close()
            # Not now: whoever sends is in the middle of something.
            self._clock.callLater(0, self._broken)

    def flushed(self) -> Deferred[None]:
        """Fire when everything has arrived, or the stream has ended."""
        if self._closed or (not self.size and self._flight is None):
            return succeed(None)
        return self._idle.wait()

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        self._data.clear()
        self._chunk = self._push = None
        self._push_size = 0
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._flight is not None:
            self._flight.cancel()
        self._idle.tell(None)


class _Stream:
    def __init__(self, name: str, max_entry: int) -> None:
        self.name = name
        self.number = 0
        self.splitter = INT32.splitter(max_entry)


class Inbound:
    """What comes from the other hosts: ``received`` is called with each entry, in order.

    ``known`` says whether a host is there; ``renewed`` is called when one begins anew
    without having been gone.
    """

    _log = Logger()

    def __init__(
        self,
        settings: SpreadSettings,
        known: Callable[[str], bool],
        received: Callable[[str, AnyEntry], object],
        renewed: Callable[[str], object],
    ) -> None:
        self._known = known
        self._received = received
        self._renewed = renewed
        # An entry holds a little more than the message or the state that is limited.
        self._max_entry = settings.max_entry + 4096
        self._streams: dict[str, _Stream] = {}
        self._old: deque[str] = deque(maxlen=OLD_STREAMS * settings.max_hosts)

    def handle(self, message: Message) -> Answer:
        """Take a chunk: the handler of a subscription of the bus."""
        host, name = message.headers.get("from", ""), message.headers.get("stream", "")
        try:
            number = int(message.headers.get("n", "-1"))
        except ValueError:
            raise Refusal("a chunk without a number") from None
        if not self._known(host):
            raise Refusal("a host that has not said that it is there")
        stream = self._streams.get(host)
        if stream is None or stream.name != name:
            if number != 0 or name in self._old:
                return Answer(b"", STALE)
            if stream is not None:
                self.forget(host)
                self._renewed(host)
            stream = self._streams[host] = _Stream(name, self._max_entry)
        if number < stream.number:
            return Answer()  # again
        if number > stream.number:
            return Answer(b"", STALE)
        stream.number += 1
        for item in stream.splitter.feed(message.data):
            self._take(host, item)
        if stream.splitter.too_large:
            self._log.error("Host {host} sent too much at once", host=host)
            self.forget(host)
            return Answer(b"", STALE)
        return Answer()

    def _take(self, host: str, item: object) -> None:
        assert isinstance(item, bytes)
        try:
            self._received(host, decode(item))
        except BaseException:
            self._log.failure("What host {host} sent could not be handled", host=host)

    def forget(self, host: str) -> None:
        """Forget the stream of a host that is gone."""
        stream = self._streams.pop(host, None)
        if stream is not None:
            self._old.append(stream.name)


__all__ = ["Inbound", "Outbound"]
