"""Quotas of the rooms for one user and one address, so that others have room."""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IReactorTime

from kupool.net.refusals import Refusals
from kupool.rooms.failures import RoomBusy
from kupool.rooms.settings import RoomSettings


class Quota:
    """The usage of one kind by each owner; each may have up to ``most`` (0: no limit).

    ``what`` names the kind and the owner. The empty name stands for no owner, and has no limit.
    Owners without usage are not remembered.
    """

    def __init__(self, what: str, most: int, refusals: Refusals) -> None:
        self._what = what
        self._most = most
        self._refusals = refusals
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return the number of owners with usage."""
        return len(self._counts)

    def check(self, name: str) -> None:
        """Raise :class:`RoomBusy` if an owner is at the limit; the refusal is counted and
        logged.
        """
        self.check_number(name, self._counts.get(name, 0))

    def check_number(self, name: str, number: int) -> None:
        """Do the same for an owner whose usage is counted elsewhere."""
        if name and self._most and number >= self._most:
            self._refusals.note(self._what)
            raise RoomBusy(self._what)

    def take(self, name: str) -> None:
        """Add one to an owner's usage."""
        if name:
            self._counts[name] += 1

    def give_back(self, name: str) -> None:
        """Subtract one from an owner's usage."""
        if name:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]


class RoomQuotas:
    """The quotas of one lobby: rooms, members, their connections, and players who wait.

    ``refusals`` counts refused requests by the quota that was used up.
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
        """Return the number of users and addresses with usage, over all quotas."""
        quotas = (self.user_rooms, self.address_rooms, self.address_members, self.address_waiting)
        return sum(map(len, quotas))


__all__ = ["Quota", "RoomQuotas"]
