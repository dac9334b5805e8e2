"""Rooms on their way from one host to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.rooms.events import Created, TakenOver
from kupool.rooms.peers import Peer
from kupool.rooms.room import Member, Room
from kupool.rooms.running import Running
from kupool.rooms.spread.entries import Ask, Handed
from kupool.rooms.spread.exchange import Exchange
from kupool.rooms.spread.host_lobby import HostLobby
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.seats import MOVED
from kupool.timing.chunks import in_chunks
from kupool.timing.waiting import Waiters, after

#: Rings before this one that are remembered.
RINGS = 8


class _Leaving:
    """A room that is ending here, who is to follow it, and which hosts ask for it."""

    def __init__(self, maker: tuple[str, str]) -> None:
        self.maker = maker
        self.members: list[tuple[Peer, str]] = []
        self.asking: list[str] = []
        self.done: Deferred[None] = Deferred()


class Handover:
    """Ends rooms that belong elsewhere, and waits for those that come here."""

    _log = Logger()

    def __init__(self, lobby: HostLobby, exchange: Exchange) -> None:
        self._lobby = lobby
        self._exchange = exchange
        self._leaving: dict[str, _Leaving] = {}
        self._expected: dict[str, Waiters[None]] = {}
        self._asked: dict[str, set[str]] = {}
        #: Which host has a code, and until when that is believed: each was asked about here,
        #: and does not serve rooms, as far as is known here.
        self._claims: dict[str, tuple[str, float]] = {}
        #: When each ring was left, and which other hosts came then, if this one serves.
        self._rings: deque[tuple[float, Ring, frozenset[str]]] = deque(maxlen=RINGS)
        self.moved = self.taken = 0

    def __contains__(self, code: object) -> bool:
        """Say whether a room is on its way to another host."""
        return code in self._leaving

    # -- rooms that go

    def ring_changed(self, before: Ring, ring: Ring) -> Deferred[None]:
        """Let go of the rooms that are other hosts' now; fires when all have ended here."""
        mine = self._lobby.host
        came: frozenset[str] = ring.hosts - before.hosts - {mine} if mine in ring else frozenset()
        self._rings.append((self._lobby.clock.seconds(), before, came))
        self._drop_claims(ring.hosts)
        ended: list[Deferred[None]] = []

        def look(room: Room) -> None:
            owner = self._lobby.owner(room.code)
            if owner not in (None, self._lobby.host) and room.code not in self._leaving:
                ended.append(self._let_go(room))

        async def all_of_them() -> None:
            await in_chunks(self._lobby.clock, self._lobby, look)
            for one in ended:
                await one

        return Deferred.fromCoroutine(all_of_them())

    def _let_go(self, room: Room) -> Deferred[None]:
        leaving = self._leaving[room.code] = _Leaving(self._lobby.maker(room.code))
        room.close(MOVED)
        room.when_closed(lambda unhandled: self._ended(room, leaving))
        return leaving.done

    def detached(self, connection: Peer, member: Member) -> bool:
        """Note a connection that is no member's any more; False if its room stays here."""
        leaving = self._leaving.get(member.room.code)
        if leaving is None or not member.room.closed:
            return False
        leaving.members.append((connection, member.user))
        return True

    def _ended(self, room: Room, leaving: _Leaving) -> None:
        """Hand over the state, and then the members."""
        lobby = self._lobby

        def done(result: object) -> None:
            if isinstance(result, Failure):
                lobby.refuse(room, result, Created(), None)
            state = result if isinstance(result, bytes) else b""
            if len(state) > lobby.spread.max_entry:
                self._log.error("The state of room {code} is too large", code=room.code)
                state = b""
            self._hand_over(room.code, state, leaving)

        Running(done).start(
            lambda: lobby.hand_over(room),
            lobby.clock,
            lobby.settings.handler_timeout,
        )

    def _hand_over(self, code: str, state: bytes, leaving: _Leaving) -> None:
        lobby = self._lobby
        self._leaving.pop(code, None)
        to = lobby.owner(code)
        if to == lobby.host and leaving.asking:
            to = leaving.asking[-1]  # it has heard of the ring's change before us
        if to == lobby.host:
            # The ring has changed back meanwhile.
            self.take(to, Handed(code, state, *leaving.maker))
        elif to is not None:
            self.moved += 1
            self._exchange.send(to, Handed(code, state, *leaving.maker))
        for host in leaving.asking:
            if host != to:
                self._exchange.send(host, Handed(code, None))
        for connection, user in leaving.members:
            lobby.follow(connection, code, user, to)
        leaving.done.callback(None)

    # -- rooms that come

    def ready(self, code: str) -> Deferred[None]:
        """Fire when a room that belongs here has come from where it was, if it was."""
        leaving = self._leaving.get(code)
        if leaving is not None:  # to us again: it is handed over to ourselves
            return after(leaving.done)
        if code in self._expected:
            return self._expected[code].wait()
        hosts = set() if self._lobby.find(code) else self._former(code)
        if not hosts:
            return succeed(None)
        self._expected[code] = Waiters()
        done = self._expected[code].wait()
        self._asked[code] = hosts
        timeout = self._lobby.spread.move_timeout
        self._lobby.timers.once(
            self, code, timeout, lambda timer: self._expect_no_more(code), name="move"
        )
        for host in hosts:
            self._exchange.send(host, Ask(code))
        return done

    def _former(self, code: str) -> set[str]:
        """Return the other hosts that may still have a room, by the last rings."""
        since = self._lobby.clock.seconds() - self._lobby.spread.window
        recent = [(before, came) for at, before, came in self._rings if at >= since]
        owners = {before.owner(code) for before, _ in recent}
        if any(self._lobby.host not in before for before, _ in recent):
            # Whoever began to serve when this host did may not have heard of it at first.
            owners.update(*(came for _, came in recent))
        return {host for host in owners if host is not None and self._lobby.is_there(host)}

    def asked(self, host: str, entry: Ask) -> None:
        """Another host has a room now: tell it when there is none here."""
        code = entry.code
        self._claim(code, host)
        leaving = self._leaving.get(code)
        if leaving is not None:
            leaving.asking.append(host)
            return
        room = self._lobby.find(code)
        if room is None:
            self._exchange.send(host, Handed(code, None))
        else:  # it has heard of the ring's change before we have
            self._let_go(room)
            self._leaving[code].asking.append(host)

    def claimed(self, code: str) -> str | None:
        """Return the host that has asked for a room, while the ring does not name it yet."""
        host, until = self._claims.get(code, (None, 0.0))
        return host if self._lobby.clock.seconds() < until else None

    def _claim(self, code: str, host: str) -> None:
        """Make no room of this code here: a host has one, or will have when it is answered."""
        now = self._lobby.clock.seconds()
        while self._claims and next(iter(self._claims.values()))[1] <= now:
            del self._claims[next(iter(self._claims))]
        self._claims.pop(code, None)  # the oldest come first
        if self._lobby.owner(code) == self._lobby.host and not self._lobby.serves(host):
            self._claims[code] = host, now + self._lobby.spread.move_timeout

    def _drop_claims(self, hosts: Collection[str]) -> None:
        """The ring names these hosts, or they are gone."""
        self._claims = {c: claim for c, claim in self._claims.items() if claim[0] not in hosts}

    def handed(self, host: str, entry: Handed) -> None:
        """A room comes from another host, or is none there."""
        self.take(host, entry)

    def take(self, host: str, entry: Handed) -> None:
        """Take a room over, with its state; None where the host had none."""
        lobby, code, state = self._lobby, entry.code, entry.state
        if state is not None:
            if self.claimed(code) == host:
                del self._claims[code]  # it has the room no more
            owner = lobby.owner(code)
            if owner is not None and owner not in (lobby.host, host):
                self._exchange.send(owner, entry)
                return
            self._found(entry, state)
        asked = self._asked.get(code)
        if asked is not None:
            asked.discard(host)
            if not asked or state is not None:
                self._expect_no_more(code)

    def _found(self, entry: Handed, state: bytes) -> None:
        code = entry.code
        if self._lobby.find(code) is not None:
            self._log.error("Room {code} is here already: its state is lost", code=code)
            return
        try:
            room = self._lobby.create_for_members(code, entry.user, entry.address)
        except BaseException:  # of the application, as its new room began
            self._log.failure("Room {code} could not be taken over", code=code)
            return
        self.taken += 1
        if state:
            room.tell(TakenOver(state))

    def lost(self, host: str) -> None:
        """A host is gone: what was expected of it does not come."""
        self._drop_claims([host])
        for code, asked in list(self._asked.items()):
            asked.discard(host)
            if not asked:
                self._expect_no_more(code)

    def _expect_no_more(self, code: str) -> None:
        self._lobby.timers.cancel(self, code)
        self._asked.pop(code, None)
        expected = self._expected.pop(code, None)
        if expected is not None:
            expected.tell(None)


__all__ = ["Handover"]
