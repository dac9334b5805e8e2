"""The ring of hosts: maps each code to a host by consistent hashing. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from hashlib import blake2b


def position(text: str) -> int:
    """Return the position of a text on the ring: the same in every process and release."""
    data = text.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


class Ring:
    """An immutable set of hosts, each at ``points`` places of a ring.

    A code belongs to the host whose place comes next after the code's. If a host is added, only
    codes that it gets change hosts; if one is removed, only codes that it had do.
    """

    def __init__(self, hosts: Iterable[str] = (), points: int = 128) -> None:
        self.hosts = frozenset(hosts)
        places = sorted(
            (position(f"{host}#{n}"), host) for host in self.hosts for n in range(points)
        )
        self._places = [place for place, _ in places]
        self._owners = [host for _, host in places]

    def owner(self, code: str, without: Collection[str] = ()) -> str | None:
        """Return the host of a code; None if there is no host.

        It is the one that a ring without the hosts ``without`` has.
        """
        first = bisect_right(self._places, position(code))
        for place in range(first, first + len(self._owners)):
            owner = self._owners[place % len(self._owners)]
            if owner not in without:
                return owner
        return None

    def __contains__(self, host: object) -> bool:
        """Say whether a host is on the ring."""
        return host in self.hosts

    def __iter__(self) -> Iterator[str]:
        """Iterate over the hosts."""
        return iter(self.hosts)

    def __len__(self) -> int:
        """Return how many hosts there are."""
        return len(self.hosts)


__all__ = ["Ring", "position"]
