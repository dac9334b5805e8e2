"""A node in a mesh of nodes: exchanges subscriptions and messages with the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.bus.broker import Broker
from kupool.bus.calls import Response
from kupool.bus.rabbit.carrier import EVERYBODY, ICarrier
from kupool.bus.rabbit.directory import Acknowledgements, Directory, KnownNode
from kupool.bus.rabbit.foreign_calls import CallerKey, ForeignCalls
from kupool.bus.rabbit.introduction import Gatherings, Introduction
from kupool.bus.rabbit.items import (
    Added,
    AskState,
    Beat,
    Bye,
    Items,
    NodeCall,
    NodeReply,
    NodeState,
    Removed,
    SubscriberEntry,
    Tell,
    TellAll,
    Took,
    make_state,
    pack,
    split,
    unpack,
)
from kupool.bus.rabbit.outgoing import Outgoing
from kupool.bus.rabbit.own import OwnSubscribers
from kupool.bus.rabbit.settings import MeshSettings
from kupool.bus.settings import BusSettings

NOT_CONNECTED = "not connected"

#: A message without items: it is returned if there is no node at its address.
_NOTHING = pack(())


class Mesh:
    """Keeps the brokers of all nodes informed about the subscribers of every node.

    Every change has a number; a node that missed one asks for the whole state. A node is gone if it
    says so, if a message to it is returned, or if it was silent too long. Then calls that its
    subscribers have not answered go to others. While there is no connection, or the other nodes are
    not known yet, the broker's knowledge is incomplete.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        carrier: ICarrier,
        settings: MeshSettings,
        limits: BusSettings,
        *,
        node: str,
        wall: Callable[[], float],
        random: Random | None,
    ) -> None:
        self._clock = clock
        self._carrier = carrier
        self._settings = settings
        self.node = node
        self._outgoing = Outgoing(clock, carrier, settings, lambda: len(self._peers))
        self._foreign_calls = ForeignCalls(clock, limits, settings.max_remembered, self._send_back)
        self._acknowledgements = Acknowledgements(clock, settings.acknowledgement)
        self._gatherings = Gatherings()
        self._introduction = Introduction(clock, settings.introduction, self._all_known)
        self._asked: set[str] = set()
        #: The subscribers here that are gone, and until when they stay members of their topics.
        self._lost_here: dict[str, float] = {}
        self._address = ""
        self._version = 0
        self._closed = False
        self._beats = LoopingCall(self._beat)
        self._beats.clock = clock
        self._last_beat = clock.seconds()
        self._counting = False
        self._complained = False
        #: Counts of events: ``unreadable`` messages, ``lost nodes``.
        self.counts: Counter[str] = Counter()
        self._own = OwnSubscribers(
            added=self._added, removed=self._removed, answered=self._foreign_calls.answered
        )
        #: Messages published on this node, and the subscribers of all nodes.
        self.broker = Broker(clock, limits, wall=wall, random=random, watcher=self._own)
        self._peers = Directory(self.broker, self._outgoing)
        self.broker.incomplete(NOT_CONNECTED)
        self.broker.watches.heard(clock.seconds())

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._address != ""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The other known nodes."""
        return tuple(peer.node for peer in self._peers)

    def whole(self) -> Deferred[None]:
        """Wait until the other nodes are known; fires at once without a connection."""
        return self._introduction.wait()

    def taken(self) -> Deferred[None]:
        """Wait until the other nodes have applied all changes here, or until the time limit."""
        version = self._version

        def wait(_: object) -> Deferred[None]:
            return self._acknowledgements.wait(version, [p.address for p in self._peers])

        return self.whole().addCallback(wait)

    def keep_to_itself(self) -> None:
        """Stop telling the other nodes about subscribers here."""
        self._own.stop()

    def close(self) -> None:
        """Tell the other nodes that this one ends."""
        self._closed = True
        if self._address:
            self._outgoing.add(EVERYBODY, Bye())
            self._outgoing.flush()
        self._cut_off()

    # -- events of the carrier

    def up(self, address: str) -> None:
        """Send the state of this node to all others, and ask for theirs."""
        if self._closed:
            return
        self._address = address
        self._introduction.begin()
        self._send_state(EVERYBODY, True)
        self._last_beat = now = self._clock.seconds()
        if self.broker.watches.lease <= 0:
            # A node that learns of us from now on hears from us now, so its silence timeout starts
            # no earlier.
            self.broker.watches.heard(now + self._settings.step_down)
        self._outgoing.add(EVERYBODY, Beat(self._version, now))
        self._beats.start(self._settings.beat, now=False).addErrback(self._beats_failed)
        # Every connected node gets the state, and answers with its own.
        self._outgoing.flush()
        self._count(self._heard_how_many)

    def down(self, why: str) -> None:
        """No node can be reached: unanswered calls to other nodes count as lost."""
        self._cut_off()

    def _cut_off(self) -> None:
        self._address = ""
        if self._beats.running:
            self._beats.stop()
        self.broker.incomplete(NOT_CONNECTED)
        self._introduction.stop(self.nodes)
        self._outgoing.clear()
        self._gatherings.clear()
        self._asked.clear()
        for peer in self._peers:
            self._peers.forget(peer, self._settings.silence)
        self._acknowledgements.clear()

    def returned(self, address: str) -> None:
        """There is no node at this address any more."""
        self._gatherings.forget(address)
        peer = self._peers.at(address)
        if peer is not None:
            self._lost(peer, "its queue is gone")

    def resumed(self) -> None:
        """The carrier accepts messages again."""
        self._outgoing.flush()

    def unreadable(self, why: str) -> None:
        """Count an unreadable message, and log it now and then."""
        self.counts["unreadable"] += 1
        if not self._complained:
            self._complained = True
            self._log.warn("Dropped a message of the bus that cannot be read: {why}", why=why)

    def received(self, sender: str, address: str, body: bytes) -> None:
        """Handle the readable items of a message."""
        if not self._address:
            return
        if sender == self.node:  # a message to everybody also comes back to its sender
            self._hear_self(address, body)
            return
        if not sender or not address:
            self.unreadable(f"a message from {sender!r:.60} at {address!r:.60}")
            return
        peer = self._peers.at(address)
        if peer is not None:
            peer.heard = self._clock.seconds()
        version = None if peer is None else peer.version
        try:
            for item in unpack(body):
                if item is None:
                    self.unreadable(f"an item of {sender!r:.60}")
                else:
                    self._take(sender, address, item)
        except ValueError as error:
            self.unreadable(f"from {sender!r:.60}: {error!r:.200}")
        except BaseException:
            self.counts["unreadable"] += 1
            self._log.failure("A message of node {node} could not be handled", node=sender)
        peer = self._peers.at(address)
        if peer is not None and peer.version != version:
            self._outgoing.add(address, Took(peer.version))

    def _hear_self(self, address: str, body: bytes) -> None:
        """Note that a heartbeat of this node has reached all nodes."""
        if address == self._address:
            for item in unpack(body):
                if isinstance(item, Beat) and item.sent:
                    self.broker.watches.heard(item.sent + self._settings.step_down)

    def _take(self, sender: str, address: str, item: Items) -> None:
        if isinstance(item, NodeCall):
            own = self._own.get(item.subscriber)
            listens = own is not None and own.covers(item.message.topic)
            deliver = own.deliver if own is not None and listens else None
            self._foreign_calls.take(sender, address, item, deliver)
        elif isinstance(item, NodeReply):
            peer = self._peers.at(address)
            if peer is not None:
                self.broker.answer(peer.id_of(item.subscriber), item.number, item.response)
        elif isinstance(item, Tell):
            self._tell(item.subscribers, item)
        elif isinstance(item, TellAll):
            self._tell(item.subscribers.get(self.node, ()), item)
        elif isinstance(item, NodeState):
            self._take_state(sender, address, item)
        elif isinstance(item, AskState):
            self._send_state(address, False)
        elif isinstance(item, Took):
            if self._peers.at(address) is not None:
                self._acknowledgements.took(address, item.version)
        else:
            self._take_news(address, item)

    def _take_news(self, address: str, item: Added | Removed | Beat | Bye) -> None:
        peer = self._peers.at(address)
        if isinstance(item, Bye):
            if peer is not None:
                self._forget(peer)
        elif peer is None:
            self._ask(address)
        elif isinstance(item, Beat):
            if item.version != peer.version:
                self._ask(address)
        elif item.version == peer.version + 1:
            if isinstance(item, Added):
                self._peers.add(peer, item.entry)
            else:
                linger = item.linger if item.gone else None
                self._peers.remove(peer, item.subscriber, item.topics, linger)
            peer.version = item.version
        elif item.version > peer.version:
            self._ask(address)

    def _tell(self, subscribers: Iterable[str], item: Tell | TellAll) -> None:
        for subscriber in subscribers:
            own = self._own.get(subscriber)
            if own is not None and own.covers(item.message.topic):
                own.deliver(item.message, None)

    # -- subscribers of this node

    def _added(self, entry: SubscriberEntry) -> None:
        for part in split(entry):
            self._changed(Added(self._version + 1, part))

    def _removed(self, subscriber: str, topics: list[str] | None, linger: float | None) -> None:
        gone = linger is not None
        if gone:
            self._foreign_calls.lost(subscriber)
        if linger:
            self._lost_here = self._still_members()
            self._lost_here[subscriber] = self._clock.seconds() + linger
        self._changed(Removed(self._version + 1, subscriber, topics, gone, linger or 0.0))

    def _still_members(self) -> dict[str, float]:
        now = self._clock.seconds()
        return {name: until for name, until in self._lost_here.items() if until > now}

    def _changed(self, item: Added | Removed) -> None:
        self._version += 1
        if self._address:
            self._outgoing.add(EVERYBODY, item)

    def _send_state(self, address: str, reply: bool) -> None:
        entries = [own.entry() for own in self._own]
        now = self._clock.seconds()
        lost = {name: until - now for name, until in self._still_members().items()}
        for state in make_state(self._version, entries, reply, lost):
            self._outgoing.add(address, state)
        peer = self._peers.at(address)
        if peer is not None:
            self._outgoing.add(address, Took(peer.version))

    def _send_back(self, key: CallerKey, address: str, response: Response) -> None:
        """Send an answer to the caller's current address, or to the one that it called from."""
        node, number, subscriber = key
        peer = self._peers.node(node)
        address = address if peer is None else peer.address
        self._outgoing.add(address, NodeReply(number, subscriber, response))

    # -- subscribers of other nodes

    def _take_state(self, sender: str, address: str, item: NodeState) -> None:
        try:
            state = self._gatherings.take(address, item)
        except LookupError:
            self._ask(address)
            return
        if state is None:
            return
        entries, lost = state
        self._asked.discard(address)
        self._peers.install(
            sender,
            address,
            item.version,
            entries=entries,
            lost=lost,
            heard=self._clock.seconds(),
        )
        if item.reply:
            self._send_state(address, False)
        self._introduction.look(self.nodes)

    def _ask(self, address: str) -> None:
        if address not in self._asked:
            self._asked.add(address)
            self._outgoing.add(address, AskState())

    def _lost(self, peer: KnownNode, why: str) -> None:
        self.counts["lost nodes"] += 1
        self._log.warn("Node {node} of the bus is gone: {why}", node=peer.node, why=why)
        # It may still exist, and must notice first that others do not hear it.
        self._forget(peer, peer.heard + self._settings.silence - self._clock.seconds())

    def _forget(self, peer: KnownNode, linger: float = 0.0) -> None:
        self._peers.forget(peer, linger)
        self._acknowledgements.gone(peer.address)

    def _heard_how_many(self, count: int) -> None:
        self._introduction.heard_how_many(count - 1, self.nodes)

    def _all_known(self) -> None:
        self.broker.incomplete("")

    # -- time

    def _beat(self) -> None:
        now, settings = self._clock.seconds(), self._settings
        held_up = now - self._last_beat > 2 * settings.beat
        self._last_beat = now
        self._asked.clear()
        self._complained = False
        self._foreign_calls.sweep()
        for peer in self._peers:
            if held_up:
                peer.heard = now  # this node could not listen itself
            elif now - peer.heard > settings.silence:
                self._lost(peer, "it is silent")
        self._outgoing.add(EVERYBODY, Beat(self._version, now), settings.silence)
        self._count(self._compare_count)

    def _compare_count(self, count: int) -> None:
        """If RabbitMQ has fewer nodes than known here, find out which are gone."""
        if count - 1 < len(self._peers):
            for peer in self._peers:
                self._carrier.send(peer.address, _NOTHING, self._settings.silence)

    def _count(self, use: Callable[[int], None]) -> None:
        if self._counting:
            return
        self._counting = True
        address = self._address

        def counted(count: object) -> None:
            self._counting = False
            if self._address == address and isinstance(count, int):
                use(count)

        self._carrier.count().addBoth(counted).addErrback(
            lambda failure: self._log.failure("The nodes of the bus could not be counted", failure)
        )

    def _beats_failed(self, failure: Failure) -> None:
        self._log.failure("The heartbeat of the bus failed", failure)
        self._carrier.drop("a beat failed")


__all__ = ["NOT_CONNECTED", "Mesh"]
