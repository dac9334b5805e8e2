"""The directory of other nodes and their subscribers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.bus.broker import Broker
from kupool.bus.calls import Taken
from kupool.bus.messages import Message
from kupool.bus.publishing import check_text, checked_keys
from kupool.bus.rabbit.items import NodeCall, SubscriberEntry
from kupool.bus.rabbit.outgoing import Outgoing


class KnownNode:
    """Another node at a version of its state; ``heard`` is in seconds of the clock."""

    def __init__(self, node: str, address: str, version: int, heard: float) -> None:
        self.node = node
        self.address = address
        self.version = version
        self.heard = heard
        self.gone = False
        #: The topics of its subscribers, by their names on that node.
        self.subscribers: dict[str, tuple[str, ...]] = {}

    def id_of(self, subscriber: str) -> str:
        """Return the id on this node of one of its subscribers."""
        own = subscriber.startswith(f"{self.node}/")
        return subscriber if own else f"{self.node}/{subscriber}"


class Directory:
    """The other nodes. Their subscribers are in the broker, with functions that send to the
    node.
    """

    def __init__(self, broker: Broker, outgoing: Outgoing) -> None:
        self._broker = broker
        self._outgoing = outgoing
        self._by_node: dict[str, KnownNode] = {}
        self._by_address: dict[str, KnownNode] = {}

    def __len__(self) -> int:
        return len(self._by_node)

    def __iter__(self) -> Iterator[KnownNode]:
        return iter(list(self._by_node.values()))

    def node(self, name: str) -> KnownNode | None:
        """Return a node by its name."""
        return self._by_node.get(name)

    def at(self, address: str) -> KnownNode | None:
        """Return the node at an address."""
        return self._by_address.get(address)

    def install(
        self,
        node: str,
        address: str,
        version: int,
        *,
        entries: Iterable[SubscriberEntry],
        lost: Mapping[str, float],
        heard: float,
    ) -> KnownNode:
        """Replace the state of a node; raises :class:`ValueError` for an invalid one.

        ``lost`` are subscribers that are gone, and the seconds for which they stay members.
        """
        peer = self._by_node.get(node)
        if peer is not None and peer.address != address:
            # It lost its connection, and the messages that were on their way.
            self._forget(peer, lost)
            peer = None
        if peer is None:
            peer = KnownNode(node, address, version, heard)
            self._by_node[node] = self._by_address[address] = peer
        peer.version, peer.heard = version, heard
        wanted: dict[str, set[str]] = {}
        found = list(entries)
        for entry in found:
            wanted.setdefault(entry.subscriber, set()).update(entry.topics)
        for subscriber, topics in list(peer.subscribers.items()):
            if subscriber not in wanted:
                self.remove(peer, subscriber, None, lost.get(subscriber, 0.0))
            elif less := [topic for topic in topics if topic not in wanted[subscriber]]:
                self.remove(peer, subscriber, less, None)
        for entry in found:
            self.add(peer, entry)
        return peer

    def add(self, peer: KnownNode, entry: SubscriberEntry) -> None:
        """Add topics of a subscriber of a node; raises :class:`ValueError`."""
        name = entry.subscriber
        check_text("subscriber", name)
        peer.subscribers[name] = self._broker.subscribe(
            peer.id_of(name),
            entry.topics,
            partial(self._deliver, peer, name),
            checked_keys(entry.keys),
            since=entry.since,
            elsewhere=True,
        )

    def remove(
        self, peer: KnownNode, subscriber: str, topics: list[str] | None, linger: float | None
    ) -> None:
        """Remove topics of a subscriber of a node; raises :class:`ValueError`.

        A subscriber that is gone stays a member of its topics for ``linger`` seconds; None means
        that it is not gone.
        """
        if subscriber not in peer.subscribers:
            return
        if linger is not None:
            self._broker.remove(peer.id_of(subscriber), linger)
            left: tuple[str, ...] = ()
        else:
            left = self._broker.unsubscribe(peer.id_of(subscriber), topics)
        if left:
            peer.subscribers[subscriber] = left
        else:
            del peer.subscribers[subscriber]

    def forget(self, peer: KnownNode, linger: float) -> None:
        """Remove a node that is gone: calls that it has not answered go to others.

        Its subscribers stay members of their topics for ``linger`` seconds.
        """
        self._forget(peer, dict.fromkeys(peer.subscribers, linger))

    def _forget(self, peer: KnownNode, lingers: Mapping[str, float]) -> None:
        peer.gone = True
        if self._by_node.get(peer.node) is peer:
            del self._by_node[peer.node], self._by_address[peer.address]
        for subscriber in list(peer.subscribers):
            self.remove(peer, subscriber, None, lingers.get(subscriber, 0.0))

    def _deliver(self, peer: KnownNode, name: str, message: Message, number: int | None) -> Taken:
        if peer.gone:
            return Taken.GONE
        if self._outgoing.full(len(message.data)):
            return Taken.FULL
        if number is None:
            self._outgoing.tell(peer.address, peer.node, name, message)
        else:
            self._outgoing.add(peer.address, NodeCall(number, name, message), message.timeout)
        return Taken.YES


class _Wait:
    __slots__ = ("addresses", "done", "timer", "version")

    def __init__(self, version: int, addresses: set[str], done: Deferred[None]) -> None:
        self.version = version
        self.addresses = addresses
        self.done = done
        self.timer: IDelayedCall | None = None


class Acknowledgements:
    """Callers that wait until other nodes have applied a change."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._waits: list[_Wait] = []
        #: The last version that the node at each address has applied.
        self._taken: dict[str, int] = {}

    def wait(self, version: int, addresses: Iterable[str]) -> Deferred[None]:
        """Wait until the nodes at some addresses have applied a version or are gone, or until the
        time limit.
        """
        done: Deferred[None] = Deferred()
        late = {
            address
            for address in addresses
            if (taken := self._taken.get(address)) is None or taken < version
        }
        wait = _Wait(version, late, done)
        self._waits.append(wait)
        wait.timer = self._clock.callLater(self._seconds, self._end, wait)
        self._look(wait)
        return done

    def took(self, address: str, version: int) -> None:
        """The node at an address has applied a version."""
        self._taken[address] = version
        for wait in list(self._waits):
            if wait.version <= version:
                wait.addresses.discard(address)
                self._look(wait)

    def gone(self, address: str) -> None:
        """There is no node at this address any more."""
        self._taken.pop(address, None)
        for wait in list(self._waits):
            wait.addresses.discard(address)
            self._look(wait)

    def clear(self) -> None:
        """Forget all nodes: no caller waits any longer."""
        self._taken.clear()
        for wait in list(self._waits):
            self._end(wait)

    def _look(self, wait: _Wait) -> None:
        if not wait.addresses:
            self._end(wait)

    def _end(self, wait: _Wait) -> None:
        if wait in self._waits:
            self._waits.remove(wait)
            if wait.timer is not None and wait.timer.active():
                wait.timer.cancel()
            wait.done.callback(None)


__all__ = ["Acknowledgements", "Directory", "KnownNode"]
