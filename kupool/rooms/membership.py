"""Membership: users with their connections and rooms, looked up either way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from kupool.errors import ALREADY_EXISTS, NOT_FOUND, RequestError
from kupool.rooms.failures import RoomBusy, RoomGone
from kupool.rooms.names import check_name
from kupool.rooms.peers import Peer
from kupool.rooms.room import Member, Room, RoomSurroundings
from kupool.rooms.timers import RoomTimer

_GRACE = "member grace"


class Joined(NamedTuple):
    """A user has become a member."""

    member: Member


class Disconnected(NamedTuple):
    """The last connection of a member has ended; the grace period begins."""

    member: Member


class Returned(NamedTuple):
    """A member has reconnected within the grace period."""

    member: Member


class Renamed(NamedTuple):
    """A member has been renamed from ``before``."""

    member: Member
    before: str


class Left(NamedTuple):
    """A user is not a member any more: ``left``, ``gone``, or the caller's reason."""

    member: Member
    reason: str


class Membership:
    """The members of all rooms of a lobby.

    A user is in one room at a time, with any number of connections; a connection belongs to one
    user. Joins and leaves take effect here at once; the room is told by an event. ``emptied`` is
    called with a room whose last member has left, and ``detached`` with each connection of a member
    who has left or whose room has ended.
    """

    def __init__(
        self,
        surroundings: RoomSurroundings,
        emptied: Callable[[Room], object],
        detached: Callable[[Peer, Member], object],
    ) -> None:
        self._settings = surroundings.settings
        self._quotas = surroundings.quotas
        self._timers = surroundings.timers
        self._wall = surroundings.wall
        self._emptied = emptied
        self._detached = detached
        self._users: dict[str, Member] = {}
        self._connections: dict[Peer, Member] = {}
        self._departed: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many members there are."""
        return len(self._users)

    # -- looking up

    def find(self, user: str) -> Member | None:
        """Return the member of a user, if any."""
        return self._users.get(user)

    def get(self, user: str) -> Member:
        """Return the member of a user; raises :class:`RequestError` ``not found``."""
        member = self._users.get(user)
        if member is None:
            raise RequestError(NOT_FOUND.about(f"user {user}"))
        return member

    def of(self, connection: Peer) -> Member | None:
        """Return the member of a connection, if any."""
        return self._connections.get(connection)

    def last_seen(self, user: str) -> float | None:
        """Return when a user was last seen, in seconds since the epoch, if known."""
        member = self._users.get(user)
        return self._departed.get(user) if member is None else member.last_seen

    # -- joining and leaving

    def join(self, room: Room, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room, or add a connection to a member.

        A user without connections who is in another room leaves it first. A member made without a
        connection stays until they are removed. Raises :class:`RequestError`: ``already exists``
        for a user who is online in another room, or a connection of another user; ``too many
        requests`` for a full room; ``not found`` for a room that is closing or a connection that
        has ended; ``bad params`` for a name that is empty or too long.
        """
        check_name(user, self._settings.max_name)
        member = self._users.get(user)
        self._check(room, member, connection)
        address = "" if connection is None else connection.host
        if address and (member is None or (member.room is not room and member.address != address)):
            self._quotas.address_members.check(address)
        if member is not None and member.room is not room:
            if member.online:
                raise RequestError(ALREADY_EXISTS.about(f"{user} in room {member.room.code}"))
            self.leave(user, "moved")
            member = None
        if member is None:
            member = self._begin(room, user, address)
        elif connection is not None and not member.online:
            self._timers.cancel(member, _GRACE)
            room.tell(Returned(member))
        if connection is not None:
            self._attach(member, connection)
        return member

    def _begin(self, room: Room, user: str, address: str) -> Member:
        member = Member(room, user, self._wall(), address)
        self._users[user] = room.members[user] = member
        self._quotas.address_members.take(address)
        self._departed.pop(user, None)
        room.tell(Joined(member))
        return member

    def _attach(self, member: Member, connection: Peer) -> None:
        if connection not in self._connections:
            self._connections[connection] = member
            member.connections.append(connection)
            member.last_seen = self._wall()

    def _check(self, room: Room, member: Member | None, connection: Peer | None) -> None:
        if room.closing:
            raise RoomGone(room.code)
        if room.system_full:
            raise RoomBusy(f"events of room {room.code}")
        limit = self._settings.max_members
        if limit and len(room.members) >= limit and (member is None or member.room is not room):
            self._quotas.refusals.note("members of one room")
            raise RoomBusy(f"members of room {room.code}")
        if connection is not None:
            if not connection.sends:
                raise RequestError(NOT_FOUND.about("connection"))
            mine = self._connections.get(connection)
            if mine is not None and mine is not member:
                raise RequestError(ALREADY_EXISTS.about(f"user {mine.user} of this connection"))
            if member is not None and mine is None and member.room is room:
                self._quotas.user_connections.check_number(member.user, len(member.connections))

    def move(self, room: Room, user: str) -> Member:
        """Move a member to another room with all of their connections.

        They leave the old room as ``moved`` and are a new :class:`Member`. Raises
        :class:`RequestError` as :meth:`join` does; then nothing has changed.
        """
        member = self.get(user)
        if member.room is room:
            return member
        self._check(room, member, None)
        # A connection that is ending cannot join, and receives nothing more.
        open_ones = [one for one in member.connections if one.sends]
        had_grace = self._timers.get(member, _GRACE) is not None
        had_connection = had_grace or bool(member.connections)
        self.leave(user, "moved")
        member = self._begin(room, user, member.address)
        for connection in open_ones:
            if connection.sends:  # another host's does not follow
                self._attach(member, connection)
        if had_connection and not member.online:
            self._begin_grace(member)
        return member

    def leave(self, user: str, reason: str = "left") -> Member:
        """Remove a member; their connections stay open. Raises ``not found``."""
        member = self.get(user)
        room = member.room
        del self._users[user], room.members[user]
        self._timers.cancel(member, _GRACE)
        self._detach(member)
        room.tell(Left(member, reason))
        if not room.members:
            self._emptied(room)
        return member

    def _detach(self, member: Member) -> None:
        self._quotas.address_members.give_back(member.address)
        connections, member.connections = member.connections, []
        for connection in connections:
            del self._connections[connection]
            member.room.let_go(connection)
            self._detached(connection, member)
        self._departed[member.user] = member.last_seen
        while len(self._departed) > self._settings.remember:
            self._departed.popitem(last=False)

    def rename(self, user: str, new: str) -> Member:
        """Rename a member.

        Raises :class:`RequestError`: ``not found``, ``already exists``, or ``bad params`` for a
        name that is empty or too long.
        """
        check_name(new, self._settings.max_name)
        member = self.get(user)
        if new == user:
            return member
        if new in self._users:
            raise RequestError(ALREADY_EXISTS.about(f"user {new}"))
        members = member.room.members
        del self._users[user], members[user]
        member.user = new
        self._users[new] = members[new] = member
        member.room.tell(Renamed(member, user))
        return member

    def disconnected(self, connection: Peer) -> None:
        """Remove an ended connection from its member, whose grace period may begin."""
        member = self._connections.pop(connection, None)
        if member is None:
            return
        member.connections.remove(connection)
        member.room.let_go(connection)
        member.last_seen = self._wall()
        if member.connections:
            return
        member.room.tell(Disconnected(member))
        self._begin_grace(member)

    def _begin_grace(self, member: Member) -> None:
        grace = self._settings.grace
        if grace:
            self._timers.once(member, _GRACE, grace, self._gone, always=True)
        else:
            self.leave(member.user, "gone")

    def _gone(self, timer: RoomTimer) -> None:
        member = timer.room
        assert isinstance(member, Member)
        self.leave(member.user, "gone")

    def dissolve(self, room: Room) -> None:
        """Remove all members of a room that has ended."""
        for member in room.members.values():
            del self._users[member.user]
            self._timers.cancel(member, _GRACE)
            self._detach(member)
        room.members.clear()


__all__ = ["Disconnected", "Joined", "Left", "Membership", "Renamed", "Returned"]
