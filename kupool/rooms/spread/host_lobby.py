"""The lobby of one host, as its parts use it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kupool.rooms.membership import Membership
from kupool.rooms.peers import Peer
from kupool.rooms.room import Member, Room
from kupool.rooms.settings import RoomSettings
from kupool.rooms.spread.settings import SpreadSettings
from kupool.rooms.timers import LobbyTimers
from kupool.session.connection import Connection


class HostLobby(Protocol):
    """The rooms of this host, and the hosts of the others.

    Implemented by :class:`~kupool.rooms.spread.lobby.SpreadLobby`.
    """

    host: str
    clock: IReactorTime
    settings: RoomSettings
    spread: SpreadSettings
    timers: LobbyTimers
    members: Membership

    def __iter__(self) -> Iterator[Room]:
        """Iterate over the rooms of this host."""

    def find(self, code: str) -> Room | None:
        """Return a room of this host by its code, if there is one."""

    def owner(self, code: str, without: Collection[str] = ()) -> str | None:
        """Return the host that a room belongs to, whether it exists or not; None if there is no
        host. Those in ``without`` do not count.
        """

    def owns(self, code: str) -> bool:
        """Say whether a room belongs to this host."""

    @property
    def others(self) -> list[str]:
        """The other hosts that are there, whether they serve rooms or not."""

    def is_there(self, host: str) -> bool:
        """Return whether another host is known."""

    def serves(self, host: str) -> bool:
        """Say whether a host is known to serve rooms."""

    def ready(self, code: str) -> Deferred[None]:
        """Fire when a room can be entered."""

    def enter(self, code: str, user: str, connection: Peer | None = None) -> Member:
        """Make a user a member of a room of this host."""

    def place(
        self,
        connection: Peer,
        code: str,
        user: str,
        body: object,
        *,
        answer: Deferred[object] | None,
    ) -> None:
        """Make a user a member, and pass their first message to the room."""

    def refuse(
        self,
        room: Room | None,
        failure: Failure,
        subject: object,
        answer: Deferred[object] | None,
    ) -> None:
        """Tell the sender why a message is refused; without a sender, tell the application."""

    def create_for_members(self, code: str, user: str, address: str) -> Room:
        """Make a room whose members are on their way; it ends if nobody comes."""

    def maker(self, code: str) -> tuple[str, str]:
        """Return the user and the address that a room counts for; empty if none."""

    def hand_over(self, room: Room) -> object:
        """Return the application's state of a room that has ended here."""

    def follow(self, connection: Peer, code: str, user: str, host: str | None) -> None:
        """Let a connection follow its room, which has moved to ``host``."""

    def tell_lost(self, connection: Connection, code: str, user: str, reason: str) -> None:
        """Tell a connection that its room is lost."""


__all__ = ["HostLobby"]
