"""What one user and one address may have of the rooms, so that something is left for others."""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IReactorTime

from kupool.net.refusals import Refusals
from kupool.rooms.failures import RoomBusy
from kupool.rooms.settings import RoomSettings


class Quota:
    """How much each of many has; each may have ``most`` (0: any number).

    ``what`` says of what, and whose. The empty name is nobody's, and has no limit. Whoever
    has nothing is not remembered.
    """

    def __init__(self, what: str, most: int, refusals: Refusals) -> None:
        self._what = what
        self._most = most
        self._refusals = refusals
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many have something."""
        return len(self._counts)

    def check(self, name: str) -> None:
        """Raise :class:`RoomBusy` for one who may have no more; that is counted and logged."""
        self.check_number(name, self._counts.get(name, 0))

    def check_number(self, name: str, number: int) -> None:
        """Do so for one who has this many, as somebody else counts."""
        if name and self._most and number >= self._most:
            self._refusals.note(self._what)
            raise RoomBusy(self._what)

    def take(self, name: str) -> None:
        """Somebody has one more."""
        if name:
            self._counts[name] += 1

    def give_back(self, name: str) -> None:
        """Somebody has one less."""
        if name:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]


class RoomQuotas:
    """The quotas of one lobby: rooms, members, their connections, and who waits for a match.

    ``refusals`` counts who was turned away, by what they had too much of.
    """

    def __init__(self, clock: IReactorTime, settings: RoomSettings) -> None:
        self.refusals = refusals = Refusals(clock)
        self.user_rooms = Quota("rooms of one user", settings.user_rooms, refusals)
        self.address_rooms = Quota("rooms of one address", settings.address_rooms, refusals)
        self.user_connections = Quota(
            "connections of one user in a room", settings.user_connections, refusals
        )
        self.address_members = Quota("members of one address", settings.address_members, refusals)
        self.address_waiting = Quota(
            "players of one address who wait", settings.address_waiting, refusals
        )

    def __len__(self) -> int:
        """Return how many users and addresses have something, over all quotas."""
        quotas = (self.user_rooms, self.address_rooms, self.address_members, self.address_waiting)
        return sum(map(len, quotas))


__all__ = ["Quota", "RoomQuotas"]
