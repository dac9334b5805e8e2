"""The streams of one host: to each of the others, and from them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from kupool.bus import IBus
from kupool.rooms.spread.entries import AnyEntry
from kupool.rooms.spread.hosts import parted
from kupool.rooms.spread.settings import SpreadSettings
from kupool.rooms.spread.streams import Inbound, Outbound


class Exchange:
    """Sends entries to other hosts by name, and hands over what they send.

    ``known`` says whether a host is there; entries for one that is not are dropped, which
    its loss has made known already. ``broken`` is called with a host whose stream cannot
    go on, or that has begun anew: all that it knew of us is gone, and the other way round.
    """

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        settings: SpreadSettings,
        host: str,
        *,
        known: Callable[[str], bool],
        received: Callable[[str, AnyEntry], object],
        broken: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._bus = bus
        self._settings = settings
        self._host = host
        self._known = known
        self._broken = broken
        self._out: dict[str, Outbound] = {}
        self._inbound = Inbound(settings, known, received, broken)
        self.dropped = 0

    async def start(self) -> None:
        """Take what the others send."""
        topic = f"{self._settings.name}.host.{self._host}"
        await self._bus.subscribe([topic], self._inbound.handle)

    def _to(self, host: str) -> Outbound | None:
        out = self._out.get(host)
        if out is None and self._known(host):
            out = self._out[host] = Outbound(
                self._clock,
                self._bus,
                self._settings,
                self._host,
                to=host,
                broken=lambda: self._broken(host),
            )
        return out

    def send(self, host: str, entry: AnyEntry) -> None:
        """Send an entry to a host."""
        out = self._to(host)
        if out is not None:
            out.send(entry)

    def push(
        self, host: str, peer: int, data: bytes, *, key: str | None, policy: str | None
    ) -> bool:
        """Send a room's message to a peer of a host; returns False where it was dropped."""
        out = self._to(host)
        if out is None or len(data) > self._settings.max_entry:
            self.dropped += 1
            return False
        return out.push(peer, data, key, policy)

    def full(self, host: str) -> bool:
        """Say whether so much waits for a host that no more should be sent."""
        out = self._to(host)
        return out is None or out.full

    def waiting(self) -> int:
        """Return how many bytes wait, for all hosts together."""
        return sum(out.size for out in self._out.values())

    def forget(self, host: str) -> None:
        """End the streams of a host that is gone."""
        out = self._out.pop(host, None)
        if out is not None:
            self.dropped += out.dropped
            out.close()
        self._inbound.forget(host)

    async def flush(self, timeout: float) -> None:
        """Wait until everything has arrived, or so many seconds."""
        waiting: list[Deferred[None]] = [out.flushed() for out in self._out.values()]
        done: Deferred[object] = gatherResults(waiting)  # type: ignore[assignment]
        done.addTimeout(timeout, self._clock)
        done.addErrback(lambda late: None)
        await done

    async def stop(self) -> None:
        """Take and send nothing more."""
        await parted(self._clock, self._bus.unsubscribe(self._inbound.handle))
        for host in list(self._out):
            self.forget(host)


__all__ = ["Exchange"]
