"""A lobby whose rooms are on several hosts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from itertools import count
from secrets import token_hex
from typing import Any
from warnings import warn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kupool.bus import IBus
from kupool.callbacks import called
from kupool.errors import UNAVAILABLE, RequestError
from kupool.rooms.broadcast import RoomPayload
from kupool.rooms.lobby import Admit, Lobby
from kupool.rooms.peers import Peer
from kupool.rooms.room import Incoming, Member, Room
from kupool.rooms.settings import RoomSettings
from kupool.rooms.spread import ISpreadHooks
from kupool.rooms.spread.entries import (
    AnyEntry,
    Ask,
    Enter,
    Everyone,
    Gone,
    Handed,
    Hold,
    Out,
    Push,
    RoomReply,
    Say,
    policy_of,
)
from kupool.rooms.spread.exchange import Exchange
from kupool.rooms.spread.handover import Handover
from kupool.rooms.spread.hosts import Hosts
from kupool.rooms.spread.packing import BytesPacking, Packing
from kupool.rooms.spread.remote_peers import CARRIED, RemotePeer, RemotePeers
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.seats import Seats
from kupool.rooms.spread.settings import SpreadSettings
from kupool.session.connection import Connection
from kupool.session.outbox import EventPolicy
from kupool.session.publication import Publication

#: The reason for the end of rooms on a host that others cannot hear over the bus.
CUT_OFF = "cut off"

#: Why rooms end whose host is gone.
HOST_LOST = "host lost"


class SpreadLobby(Lobby):
    """A lobby for this host's share of the rooms, which forwards messages to other hosts.

    Use it as a :class:`~kupool.rooms.lobby.Lobby`, between ``await start()``, before any
    connection, and ``await close()``. ``host`` is this host's name, unique for each process.
    ``packing`` encodes the messages of a router and the answers of rooms: for requests it is
    :class:`~kupool.rooms.spread.packing.RequestPacking`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        hooks: ISpreadHooks,
        packing: Packing | None = None,
        *,
        settings: RoomSettings | None = None,
        spread: SpreadSettings | None = None,
        host: str | None = None,
        wall: Callable[[], float] = time.time,
        tick: float = 0.05,
        admit: Admit | None = None,
    ) -> None:
        self.spread = spread or SpreadSettings()
        self._spread_hooks = hooks
        self.host = host or token_hex(8)
        packing = packing or BytesPacking()
        self.hosts = Hosts(
            clock,
            bus,
            self.spread,
            self.host,
            changed=self._ring_changed,
            lost=self._lost,
            cut_off=self._cut_off,
        )
        self.exchange = Exchange(
            clock,
            bus,
            self.spread,
            self.host,
            known=self.hosts.__contains__,
            epoch_of=self.hosts.epoch_of,
            received=self._received,
            broken=self._lost,
        )
        self.seats = Seats(self, self.exchange, packing)
        self.remote_peers = RemotePeers(self, self.exchange, packing)
        self.handover = Handover(clock, self, self.exchange)
        self._receivers: dict[type, Callable[[str, Any], object]] = {
            Say: self.remote_peers.say,
            Enter: self.remote_peers.enter,
            Gone: self.remote_peers.gone,
            RoomReply: self.seats.reply,
            Push: self.seats.push,
            Out: self.seats.out,
            Hold: self.seats.hold,
            Ask: self.handover.asked,
            Handed: self.handover.handed,
            Everyone: self._send_here,
        }
        self._ring: Ring = self.hosts.ring
        self._moves: list[Deferred[None]] = []
        self._cut: set[str] = set()
        super().__init__(clock, hooks, settings, wall=wall, tick=tick, admit=admit)

    @property
    def visitors(self) -> RemotePeers:
        """The old name of ``remote_peers``, which warns."""
        warn("SpreadLobby.visitors is called remote_peers now", DeprecationWarning, stacklevel=2)
        return self.remote_peers

    # -- hosts

    async def start(self, *, required: bool = True) -> None:
        """Find the other hosts, and take rooms from then on.

        Unless the bus is ``required``, it may be unavailable; then this begins when the bus is
        available. Raises :class:`~kupool.rooms.spread.hosts.HostExists` if another process has this
        name, and what the bus raises.
        """
        await self.exchange.start()
        try:
            await self.hosts.start(required=required)
        except GeneratorExit:
            raise  # the coroutine is closed: it may not wait again
        except BaseException:
            await self.exchange.stop()
            raise

    async def close(self, reason: str = "closed", *, handle_pending: bool = True) -> list[Incoming]:
        """Move this host's rooms to the other hosts; without other hosts, end them.

        Returns the unhandled messages of rooms that have ended.
        """
        self.hosts.leave()
        for moves in list(self._moves):
            await moves
        unhandled = await super().close(reason, handle_pending=handle_pending)
        await self.exchange.flush(self.settings.close_timeout)
        self.seats.close()
        await self.hosts.stop()
        await self.exchange.stop()
        self.timers.stop()
        return unhandled

    def owner(self, code: str, without: Collection[str] = ()) -> str | None:
        """Return the host that a room belongs to, whether it exists or not; None if there is no
        host. Those in ``without`` do not count.
        """
        owner = self.hosts.ring.owner(code, without)
        claimed = self.handover.claimed(code) if owner == self.host else None
        return owner if claimed is None or claimed in without else claimed

    def owns(self, code: str) -> bool:
        """Say whether a room belongs to this host."""
        return self.owner(code) == self.host

    @property
    def others(self) -> list[str]:
        """The other hosts that are there, whether they serve rooms or not."""
        return self.hosts.others

    def is_there(self, host: str) -> bool:
        """Return whether another host is known."""
        return host in self.hosts

    def serves(self, host: str) -> bool:
        """Say whether a host is known to serve rooms."""
        return host in self.hosts.ring

    def code_here(self, prefix: str) -> str:
        """Return an unused code with this prefix, for a room of this host.

        Raises :class:`RequestError` ``Temporarily unavailable`` while this host has no rooms.
        """
        if self.host not in self.hosts.ring:
            raise RequestError(UNAVAILABLE)
        codes = (f"{prefix}{n}" for n in count(1))
        return next(code for code in codes if self.owns(code) and self.find(code) is None)

    def new_code(self, prefix: str) -> str:
        """Return an unguessable code with this prefix, for a new room here.

        Raises :class:`RequestError` ``Temporarily unavailable`` while this host has no rooms.
        """
        if self.host not in self.hosts.ring:
            raise RequestError(UNAVAILABLE)
        codes = iter(lambda: super(SpreadLobby, self).new_code(prefix), "")
        return next(code for code in codes if self.owns(code))

    def code_of(self, connection: Connection) -> str | None:
        """Return the code of the room that a connection is in, here or elsewhere."""
        seat = self.seats.of(connection)
        return super().code_of(connection) if seat is None else seat.code

    def _ring_changed(self) -> None:
        before, self._ring = self._ring, self.hosts.ring
        moves = self.handover.ring_changed(before, self._ring)
        self._moves.append(moves)
        moves.addBoth(lambda _: self._moves.remove(moves))

    def _lost(self, host: str) -> None:
        """Drop everything that is shared with another host, which is lost."""
        self.exchange.forget(host)
        self.remote_peers.lost(host)
        self.seats.lost_host(host, HOST_LOST if self.hosts.heard else CUT_OFF)
        self.handover.lost(host)

    def _cut_off(self) -> None:
        """The others count this host as lost, or soon will: it gives up its rooms."""
        self.seats.lose_all(CUT_OFF)
        for room in self:
            self._cut.add(room.code)
            room.close(CUT_OFF, handle_pending=False)
            room.when_closed(self._forget_cut(room.code))

    def _forget_cut(self, code: str) -> Callable[[list[Incoming]], None]:
        return lambda unhandled: self._cut.discard(code)

    def _received(self, host: str, entry: AnyEntry) -> None:
        self._receivers[type(entry)](host, entry)

    # -- connections

    def receive(
        self, connection: Connection, body: object, answer: Deferred[object] | None
    ) -> None:
        """Pass a message to its room, on this host or on another."""
        seat = self.seats.of(connection)
        if seat is None:
            super().receive(connection, body, answer)
        else:
            self.seats.say(seat, body, answer)

    def ready(self, code: str) -> Deferred[None]:
        """Fire when a room can be entered: none of this code is closing here or moving here."""
        ready = super().ready(code)
        if self.owns(code):
            ready.addCallback(lambda _: self.handover.ready(code))
        return ready

    def place(
        self,
        connection: Peer,
        code: str,
        user: str,
        body: object,
        *,
        answer: Deferred[object] | None,
    ) -> None:
        """Make a user a member, here or elsewhere, and pass their first message to the room."""
        owner = self.owner(code)
        if owner == self.host or self.members.of(connection) is not None:
            super().place(connection, code, user, body, answer=answer)
        elif owner is None or not isinstance(connection, Connection):
            self.refuse(None, Failure(RequestError(UNAVAILABLE)), body, answer)
        else:
            seat = self.seats.take(connection, code, user, owner)
            self.seats.say(seat, body, answer, first=True)

    def create(self, code: str, *, user: str = "", address: str = "") -> Room:
        """Make a room; ``Temporarily unavailable`` if it belongs to another host."""
        if not self.owns(code):
            raise RequestError(UNAVAILABLE)
        return super().create(code, user=user, address=address)

    def create_for_members(self, code: str, user: str, address: str) -> Room:
        """Make a room whose members are on their way; it ends if nobody comes."""
        room = super().take_over(code, user, address)
        if self.settings.linger is not None:
            self.linger(room, max(self.settings.linger, self.spread.window))
        return room

    def refuse(
        self,
        room: Room | None,
        failure: Failure,
        subject: object,
        answer: Deferred[object] | None,
    ) -> None:
        """Tell the sender; a room that moves is only temporarily unavailable."""
        if room is not None and room.code in self.handover and failure.check(RequestError):
            failure = Failure(RequestError(UNAVAILABLE))
        super().refuse(room, failure, subject, answer)

    def bring(self, room: Room, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room of this host, wherever they are.

        If the connection is in a room of another host, it leaves that room, where it counts as
        disconnected: the user is removed there after ``grace``, unless they have another
        connection.
        """
        member = super().bring(room, user, connection)
        if isinstance(connection, Connection):
            self.seats.disconnected(connection)
        return member

    def disconnected(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        super().disconnected(connection)
        self.seats.disconnected(connection)

    def hand_over(self, room: Room) -> object:
        """Return the application's state of a room that has ended here."""
        return self._spread_hooks.on_hand_over(room)

    def follow(self, connection: Peer, code: str, user: str, host: str | None) -> None:
        """Let a connection follow its room to ``host``; connections of other hosts are told by
        theirs.
        """
        if isinstance(connection, RemotePeer):
            self.remote_peers.detached(connection, code, moved=True)
        elif not isinstance(connection, Connection) or not connection.sends:
            return
        elif host == self.host:
            try:
                self.enter(code, user, connection)
            except RequestError as error:
                self.tell_lost(connection, code, user, error.error.text)
        elif host is None:
            self.tell_lost(connection, code, user, CUT_OFF)
        else:
            self.seats.settle_at(self.seats.take(connection, code, user, host), host)

    def detached(self, connection: Peer, member: Member) -> None:
        """Tell a connection that its room is lost, or let it follow a room that moves."""
        code = member.room.code
        if self.handover.detached(connection, member):
            return
        if isinstance(connection, RemotePeer):
            self.remote_peers.detached(connection, code, moved=False)
        elif isinstance(connection, Connection) and code in self._cut:
            self.tell_lost(connection, code, member.user, CUT_OFF)

    def tell_lost(self, connection: Connection, code: str, user: str, reason: str) -> None:
        """Tell a connection that its room is lost."""
        called(self._spread_hooks.on_room_lost, connection, code, user, reason).addErrback(
            lambda failed: self._log.failure("on_room_lost failed", failed)
        )

    # -- broadcasts

    def broadcast(
        self,
        payload: RoomPayload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> Deferred[None]:
        """Send to all members of all rooms of all hosts; fires when this host has sent it."""
        self._send_there(None, payload, key, policy)
        return super().broadcast(payload, key=key, policy=policy)

    def send_user(
        self,
        user: str,
        payload: RoomPayload,
        *,
        key: str | None = None,
        policy: EventPolicy | None = EventPolicy.DROP_NEW,
    ) -> int:
        """Send to a user on all of their connections, in rooms of any host.

        Returns how many of them are in a room of this host.
        """
        self._send_there(user, payload, key, policy)
        member = self.members.find(user)
        return 0 if member is None else member.send(payload, key=key, policy=policy)

    def _send_there(
        self, user: str | None, payload: RoomPayload, key: str | None, policy: EventPolicy | None
    ) -> None:
        data = payload if isinstance(payload, bytes) else payload(CARRIED)
        entry = Everyone(user, data, key, None if policy is None else policy.value)
        for host in self.hosts.others:
            if not (self.exchange.full(host) and Publication(data, key, policy).droppable):
                self.exchange.send(host, entry)

    def _send_here(self, host: str, entry: Everyone) -> None:
        policy = policy_of(entry.policy)
        if entry.user is None:
            super().broadcast(entry.data, key=entry.key, policy=policy)
        elif (member := self.members.find(entry.user)) is not None:
            member.send(entry.data, key=entry.key, policy=policy)


__all__ = ["CUT_OFF", "SpreadLobby"]
