"""Rooms on their way from one host to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
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
from kupool.rooms.spread.room_hosts import RoomHosts
from kupool.rooms.spread.seats import MOVED
from kupool.rooms.timers import RoomTimer
from kupool.timing.chunks import in_chunks
from kupool.timing.waiting import Waiters, after

#: The timers of rooms that were kept against the ring.
_PLACE = "place"

#: Rings before this one that are remembered.
RINGS = 8


class _Leaving:
    """A room that is ending here, who is to follow it, and which hosts ask for it."""

    def __init__(self, maker: tuple[str, str]) -> None:
        self.maker = maker
        self.members: list[tuple[Peer, str]] = []
        self.asking: list[str] = []
        self.done: Deferred[None] = Deferred()


class _OnItsWay:
    """A room that was sent to a host, and which hosts ask for it until it has arrived there."""

    def __init__(self, to: str, entry: Handed, asking: list[str]) -> None:
        self.to = to
        self.entry = entry
        self.asking = asking


class Handover:
    """Ends rooms that belong elsewhere, and waits for those that come here."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, lobby: HostLobby, exchange: Exchange) -> None:
        self._lobby = lobby
        self._exchange = exchange
        self._leaving: dict[str, _Leaving] = {}
        self._on_their_way: dict[str, _OnItsWay] = {}
        self._expected: dict[str, Waiters[None]] = {}
        #: The hosts that were asked for a room, one for each time.
        self._asked: dict[str, list[str]] = {}
        #: The hosts that have asked for a room, and do not serve rooms as far as is known here.
        self._claims = RoomHosts(clock, lobby.spread.move_timeout)
        #: The hosts that rooms were sent to.
        self._sent = RoomHosts(clock, lobby.spread.move_timeout)
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
        self._claims.drop_hosts(ring.hosts)
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
        there = [host for host in leaving.asking if lobby.is_there(host)]
        if to == lobby.host and there:
            to = there[-1]  # it has heard of the ring's change before us
        if to == lobby.host:
            # The ring has changed back meanwhile.
            self.take(to, Handed(code, state, *leaving.maker))
        elif to is not None:
            self.moved += 1
            self._send(to, Handed(code, state, *leaving.maker, self._not_here()), leaving.asking)
        for connection, user in leaving.members:
            lobby.follow(connection, code, user, to)
        leaving.done.callback(None)

    def _send(self, to: str, entry: Handed, asking: list[str]) -> None:
        """Send a room to another host, and keep it until it has arrived."""
        self._exchange.send(to, entry)
        on_its_way = _OnItsWay(to, entry, [host for host in asking if host != to])
        self._on_their_way[entry.code] = on_its_way
        self._sent.note(entry.code, to)

        def arrived(arrived: bool) -> None:
            if arrived and self._on_their_way.get(entry.code) is on_its_way:
                self._has_arrived(entry.code)

        self._exchange.arrived(to).addCallback(arrived)

    def _has_arrived(self, code: str) -> None:
        """Tell those who ask for a room where it has arrived."""
        on_its_way = self._on_their_way.pop(code)
        for host in on_its_way.asking:
            self._exchange.send(host, Handed(code, None, at=on_its_way.to))

    def _send_elsewhere(self, code: str) -> None:
        """A room's new host is gone before the room has arrived there."""
        on_its_way = self._on_their_way.pop(code)
        if self._lobby.owner(code, on_its_way.entry.leaving) is not None:
            self.take(self._lobby.host, on_its_way.entry)
        for host in on_its_way.asking:
            self._exchange.send(host, Handed(code, None))

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
        self._asked[code] = []
        self._lobby.timers.once(
            self,
            code,
            self._lobby.spread.move_timeout,
            lambda timer: self._expect_no_more(code),
            name="move",
            always=True,
        )
        self._ask(hosts, code)
        return done

    def _ask(self, hosts: Iterable[str], code: str) -> None:
        for host in hosts:
            if self._lobby.is_there(host):
                self._asked[code].append(host)
                self._exchange.send(host, Ask(code))

    def _former(self, code: str) -> set[str]:
        """Return the other hosts that may still have a room, by the last rings."""
        since = self._lobby.clock.seconds() - self._lobby.spread.window
        recent = [(before, came) for at, before, came in self._rings if at >= since]
        owners = {before.owner(code) for before, _ in recent}
        if any(self._lobby.host not in before for before, _ in recent):
            # Whoever began to serve when this host did may not have heard of it at first.
            owners.update(*(came for _, came in recent))
        if recent:  # whoever serves no rooms may have one all the same, which it is to pass on
            owners.update(host for host in self._lobby.others if not self._lobby.serves(host))
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
        on_its_way = self._on_their_way.get(code)
        if on_its_way is not None and on_its_way.to != host:
            on_its_way.asking.append(host)
        elif room is None:
            self._exchange.send(host, Handed(code, None, at=self._sent.get(code) or ""))
        else:  # it has heard of the ring's change before we have
            self._let_go(room)
            self._leaving[code].asking.append(host)

    def claimed(self, code: str) -> str | None:
        """Return the host that has asked for a room, while the ring does not name it yet."""
        return self._claims.get(code)

    def _claim(self, code: str, host: str) -> None:
        """Make no room of this code here: a host has one, or will have when it is answered."""
        self._claims.drop(code)
        if self._lobby.owner(code) == self._lobby.host and not self._lobby.serves(host):
            self._claims.note(code, host)

    def handed(self, host: str, entry: Handed) -> None:
        """A room comes from another host, or is none there."""
        self.take(host, entry)

    def take(self, host: str, entry: Handed) -> None:
        """Take a room over, with its state; None where the host had none."""
        lobby, code, state = self._lobby, entry.code, entry.state
        if state is not None:
            if self.claimed(code) == host:
                self._claims.drop(code)  # it has the room no more
            if code in self._on_their_way and self._on_their_way[code].to == host:
                self._has_arrived(code)  # and comes back
            entry.leaving = sorted({*entry.leaving, *self._not_here()})
            owner = lobby.owner(code, entry.leaving)
            kept = owner == host and not self._not_here()
            if owner in (None, lobby.host) or kept:
                self._found(entry, state)
            else:
                self._send(owner, entry, [])
            if kept:  # that host has heard of the ring's change before us, or we before it
                lobby.timers.once(
                    (_PLACE, code),
                    _PLACE,
                    lobby.spread.move_timeout,
                    self._look_again,
                    data=code,
                    always=True,
                )
        asked = self._asked.get(code)
        if asked is not None:
            if entry.at and entry.at != lobby.host:
                self._ask([entry.at], code)
            if host in asked:
                asked.remove(host)
            if not asked or state is not None:
                self._expect_no_more(code)

    def _not_here(self) -> list[str]:
        """Return this host's name if it serves no rooms, and can keep none."""
        return [] if self._lobby.serves(self._lobby.host) else [self._lobby.host]

    def _look_again(self, timer: RoomTimer) -> None:
        """Let go of a room that was kept here against the ring, and belongs elsewhere still."""
        code = str(timer.data)
        room, owner = self._lobby.find(code), self._lobby.owner(code)
        if room and owner not in (None, self._lobby.host) and code not in self._leaving:
            self._let_go(room)

    def _found(self, entry: Handed, state: bytes) -> None:
        code = entry.code
        self._sent.drop(code)
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
        """A host is gone: what was expected of it does not come, unless it passed it on."""
        self._claims.drop_hosts([host])
        for code in [code for code, way in self._on_their_way.items() if way.to == host]:
            self._send_elsewhere(code)
        for code, asked in list(self._asked.items()):
            if host in asked:
                asked[:] = [other for other in asked if other != host]
                self._ask([other for other in self._lobby.others if other not in asked], code)
            if not asked:
                self._expect_no_more(code)

    def _expect_no_more(self, code: str) -> None:
        self._lobby.timers.cancel(self, code)
        self._asked.pop(code, None)
        expected = self._expected.pop(code, None)
        if expected is not None:
            expected.tell(None)


__all__ = ["Handover"]
