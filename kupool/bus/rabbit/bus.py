"""The bus as a program on one of several nodes has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from kupool.bus.interfaces import IBus, Subscription
from kupool.bus.local import LocalBus
from kupool.bus.members import MembersTold
from kupool.bus.messages import Handler, Model, Outcome, Topic
from kupool.bus.models import Models
from kupool.bus.publishing import check_text
from kupool.bus.rabbit.amqp import AmqpCarrier
from kupool.bus.rabbit.carrier import ICarrier
from kupool.bus.rabbit.mesh import Mesh
from kupool.bus.rabbit.settings import MeshSettings
from kupool.bus.settings import BusSettings
from kupool.bus.status import BusStatus, Step


@implementer(IBus)
class MeshBus(Models):
    """A bus among the handlers of all nodes that a carrier joins.

    It connects when :meth:`connect` is called, and comes back for ever; subscriptions
    outlive connections. Without one, handlers of this node are still reached by calls; a
    call that needs another node waits until its deadline, and an unreliable message is
    refused. Who else uses the ``broker`` takes part, as a subscriber of this node.
    ``node`` is a name to recognise this node by; it need not differ from others'.

    ``status`` and ``trace`` tell of what was published on this node, and of all subscribers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        carrier: ICarrier,
        settings: BusSettings | None = None,
        *,
        wall: Callable[[], float],
        node: str = "",
        mesh: MeshSettings | None = None,
        random: Random | None = None,
    ) -> None:
        check_text("node", node)
        name = f"{node}-{token_hex(4)}" if node else token_hex(6)
        self._carrier = carrier
        self._mesh = Mesh(
            clock,
            carrier,
            mesh or MeshSettings(),
            settings or BusSettings(),
            node=name,
            wall=wall,
            random=random,
        )
        #: The broker of this node, for whoever else has subscribers here.
        self.broker = self._mesh.broker
        #: The handlers of this node.
        self._local = LocalBus(clock, wall=wall, broker=self.broker, name=name)

    @property
    def node(self) -> str:
        """The name of this node, which no other has."""
        return self._mesh.node

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the other nodes that are known now."""
        return self._mesh.nodes

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._mesh.connected

    def connect(self) -> Deferred[None]:
        """Connect; fires when the other nodes are known, or have had time to be.

        Fails with :class:`~kupool.bus.BusError`, one line without secrets, and tries nothing
        again, if that fails at first. Call it once.
        """
        connected: Deferred[None] = self._carrier.connect(self.node, self._mesh)
        return connected.addCallback(lambda _: self._mesh.whole())

    def publish(
        self,
        model: Model,
        data: bytes,
        topic: Topic,
        *,
        timeout: float | None = None,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Publish by a model, with what that takes; as the method of its name does."""
        return self._local.publish(model, data, topic, timeout=timeout, key=key, headers=headers)

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Let a handler have the messages of some topics.

        Fires when the nodes that are known have taken it, or have had time to; without a
        connection at once.
        """

        def taken(subscription: Subscription) -> Deferred[Subscription]:
            return self._mesh.taken().addCallback(lambda _: subscription)

        return self._local.subscribe(topics, handler, keys=keys).addCallback(taken)

    def unsubscribe(
        self, handler: Handler, topics: Iterable[Topic] | None = None
    ) -> Deferred[None]:
        """Let a handler have no more of some topics, by default of all; fires as
        :meth:`subscribe` does.
        """
        done = self._local.unsubscribe(handler, topics)
        return done.addCallback(lambda _: self._mesh.taken())

    def watch(self, topic: Topic, told: MembersTold) -> Deferred[None]:
        """Tell who the subscribers of a topic are on all nodes, now and whenever that changes."""
        return self._local.watch(topic, told)

    def unwatch(self, told: MembersTold) -> Deferred[None]:
        """Tell no more of any topic."""
        return self._local.unwatch(told)

    def taken(self) -> Deferred[None]:
        """Wait until the nodes that are known have taken all changes here, or had time to."""
        return self._mesh.taken()

    def status(self) -> Deferred[BusStatus]:
        """Return topics, subscribers and counts; ``unreadable`` are messages of strangers,
        ``lost nodes`` those that ended without a word.
        """

        def complete(status: BusStatus) -> BusStatus:
            return replace(status, counts=status.counts | dict(self._mesh.counts))

        return self._local.status().addCallback(complete)

    def trace(self, message_id: str) -> Deferred[tuple[Step, ...]]:
        """Return the way of a recent message that was published on this node."""
        return self._local.trace(message_id)

    def close(self) -> Deferred[None]:
        """Drop all subscriptions, end every call as refused, and the connection; fires when
        that has ended.
        """
        self._mesh.keep_to_itself()
        closed = self._local.close()
        self._mesh.close()
        return closed.addCallback(lambda _: self._carrier.close())


class RabbitBus(MeshBus):
    """A bus among the nodes that use the same virtual host of RabbitMQ, and ``prefix``.

    ``url`` holds one or several addresses (:func:`kupool.amqp.address.parse_brokers`); raises
    :class:`ValueError`, which shows no password, when it is none. All that is made at the
    broker has names that begin with ``prefix``, and ends with its last user. Nothing is
    kept on disk.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        settings: BusSettings | None = None,
        *,
        wall: Callable[[], float],
        prefix: str = "kupool.bus",
        node: str = "",
        mesh: MeshSettings | None = None,
        random: Random | None = None,
    ) -> None:
        mesh = mesh or MeshSettings()
        self._amqp = AmqpCarrier(reactor, url, prefix, mesh)
        super().__init__(
            reactor,
            self._amqp,
            settings,
            wall=wall,
            node=node,
            mesh=mesh,
            random=random,
        )

    @property
    def problem(self) -> str:
        """Why there is no connection, in one line without secrets; empty where there is."""
        return self._amqp.problem


__all__ = ["MeshBus", "RabbitBus"]
