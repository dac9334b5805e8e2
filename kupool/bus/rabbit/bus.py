"""The bus across nodes, as an application uses it."""

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
    """A bus for the handlers of all nodes on a carrier.

    It connects when :meth:`connect` is called, and reconnects without end. Subscriptions outlive
    connections. Without a connection, calls still reach handlers of this node; a call that needs
    another node waits until its deadline, and an unreliable message is refused. Other users of the
    ``broker`` take part as subscribers of this node. ``node`` is a name for this node in logs and
    statuses; other nodes may have the same.

    ``status`` and ``trace`` cover the messages published on this node, and all subscribers.
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
        #: The broker of this node, for other parts with subscribers here.
        self.broker = self._mesh.broker
        #: The handlers of this node.
        self._local = LocalBus(clock, wall=wall, broker=self.broker, name=name)

    @property
    def node(self) -> str:
        """The unique name of this node."""
        return self._mesh.node

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the other known nodes."""
        return self._mesh.nodes

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._mesh.connected

    def connect(self) -> Deferred[None]:
        """Connect; fires when the other nodes are known, or at the time limit for that.

        Fails with :class:`~kupool.bus.BusError`, in one line without secrets, if the first attempt
        fails; then there is no other attempt. Call it once.
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
        """Publish by a model with that model's arguments, as the method of the model's name
        does.
        """
        return self._local.publish(model, data, topic, timeout=timeout, key=key, headers=headers)

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Subscribe a handler to topics.

        Fires when the known nodes have applied it, or at the time limit for that; without a
        connection at once.
        """

        def taken(subscription: Subscription) -> Deferred[Subscription]:
            return self._mesh.taken().addCallback(lambda _: subscription)

        return self._local.subscribe(topics, handler, keys=keys).addCallback(taken)

    def unsubscribe(
        self, handler: Handler, topics: Iterable[Topic] | None = None
    ) -> Deferred[None]:
        """End the subscription of a handler to some topics, by default to all.

        Fires as :meth:`subscribe` does.
        """
        done = self._local.unsubscribe(handler, topics)
        return done.addCallback(lambda _: self._mesh.taken())

    def watch(self, topic: Topic, told: MembersTold) -> Deferred[None]:
        """Report the subscribers of a topic on all nodes to ``told``, now and at every change."""
        return self._local.watch(topic, told)

    def unwatch(self, told: MembersTold) -> Deferred[None]:
        """End all watches of ``told``."""
        return self._local.unwatch(told)

    def taken(self) -> Deferred[None]:
        """Wait until the known nodes have applied all changes here, or until the time limit."""
        return self._mesh.taken()

    def status(self) -> Deferred[BusStatus]:
        """Return topics, subscribers and counts.

        ``unreadable`` counts messages of strangers, ``lost nodes`` those that ended without notice.
        """

        def complete(status: BusStatus) -> BusStatus:
            return replace(status, counts=status.counts | dict(self._mesh.counts))

        return self._local.status().addCallback(complete)

    def trace(self, message_id: str) -> Deferred[tuple[Step, ...]]:
        """Return the trace of a recent message that was published on this node."""
        return self._local.trace(message_id)

    def close(self) -> Deferred[None]:
        """End all subscriptions, refuse every open call, and close the connection.

        Fires when it is closed.
        """
        self._mesh.keep_to_itself()
        closed = self._local.close()
        self._mesh.close()
        return closed.addCallback(lambda _: self._carrier.close())


class RabbitBus(MeshBus):
    """A bus for the nodes with the same virtual host of RabbitMQ and the same ``prefix``.

    ``url`` holds one or several addresses (:func:`kupool.amqp.address.parse_brokers`). An invalid
    one raises :class:`ValueError`, which shows no password. Everything that is made in RabbitMQ has
    a name that begins with ``prefix``, and is removed with its last user. Nothing is stored on
    disk.
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
