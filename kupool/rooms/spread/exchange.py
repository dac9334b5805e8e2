"""Messages between hosts, over the channels of the bus."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.bus import Channels, ChannelSettings, IBus
from kupool.rooms.spread.entries import AnyEntry, Push, decode, encode
from kupool.rooms.spread.hosts import parted
from kupool.rooms.spread.settings import SpreadSettings

#: The size limit of an entry without its message or state, whose size is limited separately.
ENVELOPE = 4096


class Exchange:
    """Sends entries to other hosts by name, and receives theirs.

    ``known`` returns whether a host exists, ``epoch_of`` its epoch, or that of this one. Entries
    for a missing host are dropped, as its loss is known already. ``broken`` is called with a host
    whose channel cannot continue, or that has restarted: then neither side keeps any state of the
    other.
    """

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        settings: SpreadSettings,
        host: str,
        *,
        known: Callable[[str], bool],
        epoch_of: Callable[[str], str],
        received: Callable[[str, AnyEntry], object],
        broken: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._known = known
        self._channels = Channels(
            clock,
            bus,
            ChannelSettings(
                chunk=settings.chunk,
                max_message=settings.max_entry + ENVELOPE,
                max_outbound=settings.max_outbound,
                max_members=settings.max_hosts,
            ),
            f"{settings.name}.host",
            member=host,
            known=known,
            epoch_of=epoch_of,
            received=lambda sender, data: received(sender, decode(data)),
            broken=broken,
        )
        #: For each host, the last message of a room, to which more of its connections may be added.
        self._pushes: dict[str, Push] = {}
        self._soon: IDelayedCall | None = None
        self.dropped = 0

    async def start(self) -> None:
        """Receive entries of the other hosts."""
        await self._channels.start()

    def send(self, host: str, entry: AnyEntry) -> None:
        """Send an entry to a host."""
        self._end_push(host)
        self._channels.send(host, encode(entry))

    def arrived(self, host: str) -> Deferred[bool]:
        """Fire when all that was sent to a host so far has arrived: True, or False if it never
        will.
        """
        return self._channels.arrived(host)

    def push(
        self, host: str, peer: int, data: bytes, *, key: str | None, policy: str | None
    ) -> bool:
        """Send a room's message to a peer of a host; a message to many peers is transferred once.

        Returns False if it was dropped because too much waits or the host does not exist.
        """
        last = self._pushes.get(host)
        if last is not None and last.data is data and (last.key, last.policy) == (key, policy):
            last.peers.append(peer)
            return True
        droppable = key is not None or policy is not None
        if (
            not self._known(host)
            or len(data) > self._settings.max_entry
            or (droppable and self.full(host))
        ):
            self.dropped += 1
            return False
        self._end_push(host)
        self._pushes[host] = Push([peer], data, key, policy)
        if self._soon is None:
            self._soon = self._clock.callLater(0, self._end_pushes)
        return True

    def _end_pushes(self) -> None:
        self._soon = None
        for host in list(self._pushes):
            self._end_push(host)

    def _end_push(self, host: str) -> None:
        push = self._pushes.pop(host, None)
        if push is not None:
            self._channels.send(host, encode(push))

    def full(self, host: str) -> bool:
        """Return whether nothing more should be sent to a host because too much waits."""
        return self._channels.full(host)

    def waiting(self) -> int:
        """Return how many bytes wait, for all hosts together."""
        return self._channels.waiting() + sum(len(push.data) for push in self._pushes.values())

    def forget(self, host: str) -> None:
        """End the channels of a host that is gone."""
        self._pushes.pop(host, None)
        self._channels.forget(host)

    async def flush(self, timeout: float) -> None:
        """Wait until everything has arrived, or for at most the given seconds."""
        self._end_pushes_now()
        await self._channels.flush(timeout)

    def _end_pushes_now(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        self._end_pushes()

    async def stop(self) -> None:
        """Stop sending and receiving."""
        self._end_pushes_now()
        await parted(self._clock, self._channels.stop())


__all__ = ["Exchange"]
