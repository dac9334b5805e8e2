"""The introduction of a new node: it waits for the state of the other nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.bus.rabbit.items import MAX_PARTS, NodeState, SubscriberEntry
from kupool.timing.waiting import Waiters


class Introduction:
    """Decides when the other nodes are known: all that RabbitMQ counts, and all known before.

    It ends after ``seconds`` in any case; ``over`` is called then.
    """

    def __init__(self, clock: IReactorTime, seconds: float, over: Callable[[], object]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._over = over
        self._expected: int | None = None
        self._before: set[str] = set()
        self._timer: IDelayedCall | None = None
        self._waiting = Waiters[None]()

    def begin(self) -> None:
        """There is a connection."""
        self._expected = None
        self._timer = self._clock.callLater(self._seconds, self._end)

    def heard_how_many(self, others: int, known: Collection[str]) -> None:
        """There are this many other nodes, some of which are known."""
        self._expected = others
        self.look(known)

    def look(self, known: Collection[str]) -> None:
        """These nodes are known now."""
        expected = self._expected
        if self._timer is None or expected is None or len(known) < expected:
            return
        if self._before.issubset(known):
            self._end()

    def stop(self, known: Collection[str]) -> None:
        """The connection is lost; the known nodes may come back."""
        self._before.update(known)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._waiting.tell(None)

    def wait(self) -> Deferred[None]:
        """Wait until the introduction is over; fires at once if there is none."""
        return succeed(None) if self._timer is None else self._waiting.wait()

    def _end(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._before.clear()
        self._over()
        self._waiting.tell(None)


class _Gathering:
    """A state of which only some parts have arrived."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.parts = 0
        self.entries: list[SubscriberEntry] = []
        self.lost: dict[str, float] = {}


class Gatherings:
    """Assembles the parts of states, by the address that they come from."""

    def __init__(self) -> None:
        self._by_address: dict[str, _Gathering] = {}

    def take(
        self, address: str, state: NodeState
    ) -> tuple[list[SubscriberEntry], dict[str, float]] | None:
        """Return all entries, and the lost subscribers, once the last part has arrived.

        Raises :class:`LookupError` for a part that does not follow the previous one.
        """
        if state.part == 0:
            self._by_address[address] = _Gathering(state.version)
        gathering = self._by_address.pop(address, None)
        if (
            gathering is None
            or (state.version, state.part) != (gathering.version, gathering.parts)
            or not state.part < state.parts <= MAX_PARTS
        ):
            raise LookupError(f"part {state.part} of a state")
        gathering.entries += state.entries
        gathering.lost.update(state.lost)
        gathering.parts += 1
        if gathering.parts == state.parts:
            return gathering.entries, gathering.lost
        self._by_address[address] = gathering
        return None

    def forget(self, address: str) -> None:
        """There is no node at this address any more."""
        self._by_address.pop(address, None)

    def clear(self) -> None:
        """Discard everything."""
        self._by_address.clear()


__all__ = ["Gatherings", "Introduction"]
