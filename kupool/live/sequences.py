"""The sequences of devices: what follows what, what is missing, what comes late. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple

#: The most gaps of a device that are remembered; those that are older are not looked for any more.
MOST_GAPS = 16


class SequenceFault(Enum):
    """What is wrong with the number of an event."""

    #: The numbers before it are missing.
    GAP = "gap"
    #: It was missing, and comes now.
    LATE = "late"
    #: It goes back, and was not missing.
    INVERSION = "inversion"


class SequenceFinding(NamedTuple):
    """A fault, and which numbers it is about, the last one included."""

    fault: SequenceFault
    first: int
    last: int


class _Device:
    """The last number of a device, and what is missing before it."""

    __slots__ = ("gaps", "last")

    def __init__(self, last: int) -> None:
        self.last = last
        #: Ascending; most devices have none.
        self.gaps: list[tuple[int, int]] | None = None


class DeviceSequences:
    """The last numbers of up to ``most`` devices; the one that was idle for longest is forgotten.

    A device that is not known may begin with any number. With 1 it begins anew.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        #: The longest idle one first.
        self._devices: dict[Hashable, _Device] = {}

    def __len__(self) -> int:
        return len(self._devices)

    def last(self, device: Hashable) -> int:
        """Return the last number of a device; 0 if it is not known."""
        known = self._devices.get(device)
        return 0 if known is None else known.last

    def learn(self, device: Hashable, number: int) -> None:
        """Take a number that was published before, unless later ones are known."""
        known = self._devices.get(device)
        if known is None:
            self._remember(device, _Device(number))
        else:
            known.last = max(known.last, number)

    def next(self, device: Hashable) -> int:
        """Return the next number of a device, and count it."""
        known = self._devices.pop(device, None) or _Device(0)
        known.last += 1
        self._remember(device, known)
        return known.last

    def take(self, device: Hashable, number: int, merged: int = 0) -> SequenceFinding | None:
        """Take the number of an event; returns what is wrong with it.

        The event stands for ``merged`` earlier ones as well.
        """
        known = self._devices.pop(device, None)
        if known is None or number == 1 < known.last:
            self._remember(device, _Device(number))
            return None
        self._remember(device, known)
        if number > known.last:
            first, known.last = known.last + 1, number
            last = number - 1 - merged
            if last < first:
                return None
            self._add_gap(known, first, last)
            return SequenceFinding(SequenceFault.GAP, first, last)
        found = self.fill(device, number)
        fault = SequenceFault.LATE if found else SequenceFault.INVERSION
        return SequenceFinding(fault, number, number)

    def withdraw(self, device: Hashable, number: int) -> bool:
        """Forget a number, as its event was not published: it may come again.

        Returns whether it is missing now, as later ones are known.
        """
        known = self._devices.get(device)
        if known is None or number > known.last:
            return False
        if known.last > number:
            self._add_gap(known, number, number)
            return True
        known.last -= 1
        if not known.last:
            del self._devices[device]
        return False

    def fill(self, device: Hashable, number: int) -> bool:
        """Note that a number was found that was missing; returns whether it was."""
        known = self._devices.get(device)
        if known is None:
            return False
        for index, (first, last) in enumerate(known.gaps or ()):
            if first <= number <= last:
                left = [(first, number - 1), (number + 1, last)]
                assert known.gaps is not None
                known.gaps[index : index + 1] = [gap for gap in left if gap[0] <= gap[1]]
                known.gaps = known.gaps or None
                return True
        return False

    def missing(self, device: Hashable) -> list[tuple[int, int]]:
        """Return what is missing of a device: the first and the last number of each gap."""
        known = self._devices.get(device)
        return [] if known is None else list(known.gaps or ())

    def forget(self, device: Hashable) -> None:
        """Forget a device."""
        self._devices.pop(device, None)

    def _add_gap(self, known: _Device, first: int, last: int) -> None:
        known.gaps = sorted([*(known.gaps or ()), (first, last)])[-MOST_GAPS:]

    def _remember(self, device: Hashable, known: _Device) -> None:
        self._devices[device] = known
        if len(self._devices) > self._most:
            del self._devices[next(iter(self._devices))]


__all__ = ["MOST_GAPS", "DeviceSequences", "SequenceFault", "SequenceFinding"]
