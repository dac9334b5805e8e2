"""Used nonces of each job, with the batch that used them. Pure.

A nonce is reserved with the serial number of its submission's batch. So one dictionary tells
whether a nonce was used, and whether it may still be released because its batch is not decided yet.
A commit costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

#: A scope with more nonces than this is divided into shards. One large dictionary would block the
#: process when it grows or is freed: 22 and 54 ms at a million entries.
SHARD_ABOVE = 50_000
_SHARDS = 256


class _Sharded:
    """A dictionary of many entries, stored as many small ones."""

    __slots__ = ("shards",)

    def __init__(self, entries: dict[str, int]) -> None:
        self.shards: list[dict[str, int]] = [{} for _ in range(_SHARDS)]
        for nonce, serial in entries.items():
            self[nonce] = serial

    def __contains__(self, nonce: str) -> bool:
        return nonce in self.shards[hash(nonce) & (_SHARDS - 1)]

    def get(self, nonce: str) -> int | None:
        return self.shards[hash(nonce) & (_SHARDS - 1)].get(nonce)

    def __setitem__(self, nonce: str, serial: int) -> None:
        self.shards[hash(nonce) & (_SHARDS - 1)][nonce] = serial

    def pop(self, nonce: str, default: None = None) -> int | None:
        return self.shards[hash(nonce) & (_SHARDS - 1)].pop(nonce, default)

    def __len__(self) -> int:
        return sum(map(len, self.shards))


class NonceScope:
    """The nonces used for one job in one scope: by one user, one session, or everybody."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        #: Nonce -> serial number of the batch that used it.
        self.used: dict[str, int] | _Sharded = {}

    def reserve(self, nonce: str, serial: int) -> None:
        """Record that the batch ``serial`` uses a nonce."""
        used = self.used
        used[nonce] = serial
        if type(used) is dict and len(used) > SHARD_ABOVE:
            self.used = _Sharded(used)

    def release(self, nonce: str) -> None:
        """Forget a nonce whose submission did not become durable."""
        self.used.pop(nonce, None)


class JobNonces:
    """The nonces used for one job, by scope."""

    __slots__ = ("_scopes",)

    def __init__(self) -> None:
        self._scopes: dict[str, NonceScope] = {}

    def scope(self, name: str) -> NonceScope:
        """Return the nonces of one scope."""
        scope = self._scopes.get(name)
        if scope is None:
            scope = self._scopes[name] = NonceScope()
        return scope

    def find(self, name: str) -> NonceScope | None:
        """Return the nonces of one scope; None if none were ever used in it."""
        return self._scopes.get(name)

    def __len__(self) -> int:
        """Return the number of scopes: each takes memory."""
        return len(self._scopes)

    def dismantle(self) -> Iterator[int]:
        """Free the memory step by step; each step yields how many nonces and scopes it freed."""
        while self._scopes:
            _, scope = self._scopes.popitem()
            used, scope.used = scope.used, {}
            if isinstance(used, _Sharded):
                while used.shards:
                    yield len(used.shards.pop()) + 1
            else:
                size = len(used) + 1
                del used
                yield size
