"""Connections of other hosts in rooms of this host."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import MALFORMED, UNAVAILABLE, ErrorText, RequestError
from kupool.incidents import report
from kupool.rooms.failures import RoomBusy, RoomGone
from kupool.rooms.spread.entries import Enter, Gone, Hold, Out, RoomReply, Say
from kupool.rooms.spread.exchange import Exchange
from kupool.rooms.spread.host_lobby import HostLobby
from kupool.rooms.spread.packing import Packing
from kupool.rooms.spread.seats import LEFT, MOVED
from kupool.session.outbox import EventPolicy
from kupool.wire.framing import INT32, Framing


def _as_it_is(payload: bytes) -> bytes:
    return payload


#: Payloads stay unencoded between hosts; the connection's host applies the framing.
CARRIED = Framing("carried", INT32.splitter, _as_it_is, b"".join)


class RemotePeer:
    """A connection of another host, as rooms see it; ``context`` belongs to the application.

    ``from_host`` and ``number`` identify the connection; ``host`` is its address without the port.
    """

    framing = CARRIED

    def __init__(self, exchange: Exchange, from_host: str, number: int, address: str) -> None:
        self.from_host = from_host
        self.number = number
        self.host = address
        self.sends = True
        self.context: Any = None
        self.queue: deque[Callable[[], object]] | None = None
        self._exchange = exchange

    def _push(self, data: bytes, key: str | None, policy: str | None) -> bool:
        if not self.sends:
            return False
        return self._exchange.push(self.from_host, self.number, data, key=key, policy=policy)

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send a payload, which is never dropped."""
        self._push(data, None, None)

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send a payload that replaces a waiting one under ``key``."""
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
        """Pause reading from it, until :meth:`release`."""
        self._exchange.send(self.from_host, Hold(self.number, True))

    def release(self) -> None:
        """Resume reading from it."""
        self._exchange.send(self.from_host, Hold(self.number, False))


class RemotePeers:
    """All peers of other hosts; passes their messages to the lobby, and answers back."""

    _log = Logger()

    def __init__(self, lobby: HostLobby, exchange: Exchange, packing: Packing) -> None:
        self._lobby = lobby
        self._exchange = exchange
        self._packing = packing
        self._peers: dict[tuple[str, int], RemotePeer] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._peers)

    def _of(self, host: str, number: int, address: str) -> RemotePeer:
        peer = self._peers.get((host, number))
        if peer is None:
            peer = self._peers[host, number] = RemotePeer(self._exchange, host, number, address)
        return peer

    def _in_order(self, peer: RemotePeer, call: Callable[[], object]) -> None:
        """Call a function after everything earlier of this peer has been done."""
        if peer.queue is None:
            call()
        else:
            peer.queue.append(call)

    def say(self, host: str, entry: Say) -> None:
        """Pass a message to its room."""
        peer = self._of(host, entry.peer, entry.address)
        if peer.queue is not None and len(peer.queue) >= 4 * self._lobby.spread.sender_limit:
            answer = self._answer(peer, entry.number) if entry.number else None
            busy = Failure(RoomBusy(f"messages of room {entry.code}"))
            self._lobby.refuse(None, busy, entry.body, answer)
            return
        self._in_order(peer, lambda: self._say(peer, entry))

    def _say(self, peer: RemotePeer, entry: Say) -> None:
        answer = self._answer(peer, entry.number) if entry.number else None
        try:
            body = self._packing.unpack(entry.body)
        except BaseException as error:
            expected = isinstance(error, ValueError | RecursionError)
            failure = Failure(RequestError(MALFORMED)) if expected else Failure()
            self._lobby.refuse(None, failure, entry.body, answer)
            self._leave_if_nowhere(peer, entry.code, "malformed message")
            return

        def place() -> None:
            self._lobby.place(peer, entry.code, entry.user, body, answer=answer)
            self._leave_if_nowhere(peer, entry.code, "refused")

        def refuse(failure: Failure) -> None:
            self._lobby.refuse(None, failure, body, answer)
            self._leave_if_nowhere(peer, entry.code, "refused")

        if entry.first or self._lobby.members.of(peer) is not None:
            self._there(peer, entry.code, place, refuse)
        else:
            refuse(Failure(RoomGone(entry.code)))

    def enter(self, host: str, entry: Enter) -> None:
        """Make a user a member who was one at the room's previous host."""
        peer = self._of(host, entry.peer, entry.address)

        def place() -> None:
            try:
                self._lobby.enter(entry.code, entry.user, peer)
            except RequestError as error:
                self._leave_if_nowhere(peer, entry.code, error.error.text)

        def refuse(failure: Failure) -> None:
            self._out(peer, entry.code, moved=True, reason=MOVED)

        self._in_order(peer, lambda: self._there(peer, entry.code, place, refuse))

    def _there(
        self,
        peer: RemotePeer,
        code: str,
        place: Callable[[], object],
        refuse: Callable[[Failure], object],
    ) -> None:
        """Call a function when the room of this code is here, unless it belongs to another host."""
        if self._lobby.members.of(peer) is not None:
            place()
            return
        if not self._lobby.owns(code):
            refuse(Failure(RequestError(UNAVAILABLE)))
            return
        peer.queue = deque()

        def ready(result: object) -> None:
            queue, peer.queue = peer.queue or deque(), None
            if peer.sends:
                place()
            while queue and peer.queue is None:
                queue.popleft()()
            if queue and peer.queue is not None:
                peer.queue.extend(queue)

        self._lobby.ready(code).addBoth(ready)

    def _leave_if_nowhere(self, peer: RemotePeer, code: str, reason: str) -> None:
        if self._lobby.members.of(peer) is None and peer.sends:
            self._out(peer, code, moved=False, reason=reason)

    def _out(self, peer: RemotePeer, code: str, *, moved: bool, reason: str) -> None:
        self._exchange.send(peer.from_host, Out(peer.number, code, moved, reason))
        self._forget(peer)

    def _forget(self, peer: RemotePeer) -> None:
        peer.sends = False
        if self._peers.get((peer.from_host, peer.number)) is peer:
            del self._peers[peer.from_host, peer.number]

    def detached(self, peer: RemotePeer, code: str, *, moved: bool) -> None:
        """A peer is not a member any more: tell its host, in order with everything else."""
        if peer.sends:
            self._out(peer, code, moved=moved, reason=MOVED if moved else LEFT)

    # -- answers

    def _answer(self, peer: RemotePeer, number: int) -> Deferred[object]:
        """Return a Deferred for a room's answer, which is then sent to the peer's host."""

        def reply(result: object) -> None:
            self._exchange.send(peer.from_host, self._reply(peer.number, number, result))

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
        peer = self._peers.get((host, entry.peer))
        if peer is not None:
            self._in_order(peer, lambda: self._gone(peer))

    def _gone(self, peer: RemotePeer) -> None:
        self._forget(peer)
        self._lobby.members.disconnected(peer)

    def lost(self, host: str) -> None:
        """A host is gone, with all of its connections."""
        for peer in [v for v in self._peers.values() if v.from_host == host]:
            self._gone(peer)


__all__ = ["CARRIED", "RemotePeer", "RemotePeers"]
