"""The interface of every form of the bus, in one process or over a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Interface

from kupool.bus.members import MembersTold
from kupool.bus.messages import Handler, Outcome, Topic
from kupool.bus.status import BusStatus, Step

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class Subscription(NamedTuple):
    """An acknowledged subscription: a handler, with all of its topics."""

    id: str
    topics: tuple[str, ...]


class IBus(Interface):
    """A message bus.

    Topics are names of levels joined by ``.``. In a subscription ``*`` stands for one level, and a
    last ``>`` for one or more. The four ``publish`` methods return a Deferred that fires with
    exactly one :class:`Outcome` and fails only if it is cancelled. ``timeout`` is in seconds, at
    least 0.01 and at most 3600, by default 3. ``headers`` (at most 2 KiB) reach the handler
    unchanged; the header ``trace-id`` is the id under which :meth:`trace` finds the message.

    All methods raise :class:`ValueError` at once for an invalid argument.
    """

    def publish_reliable_random(
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Ask one random subscriber for an answer, and another one if it does not answer."""

    def publish_reliable_specific(
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Ask all subscribers; the first answer is the outcome.

        ``key`` is a hint who should get the message, for topics on which keys are used.
        """

    def publish_unreliable_all(
        data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to all subscribers; without any, to the first that subscribes within 3 s."""

    def publish_unreliable_random(
        data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to one random subscriber; without any, to the first that subscribes within 3 s."""

    def subscribe(
        topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Subscribe a handler to topics; fires when the subscription is in effect.

        If the handler is subscribed already, the topics and keys are added, and it gets every
        message once. Handlers are distinguished like keys of a dictionary.
        """

    def unsubscribe(handler: Handler, topics: Iterable[Topic] | None = None) -> Deferred[None]:
        """End the subscription of a handler to some topics, by default to all; harmless if there is
        none.
        """

    def watch(topic: Topic, told: MembersTold) -> Deferred[None]:
        """Report the subscribers of a topic to ``told``, now and at every change; fires when the
        watch is in effect.

        The same ``told`` may watch several topics. It gets a tuple of
        :class:`~kupool.bus.members.TopicMember`, at most 1000, or None. None means that the members
        are unknown, and that the subscribers on this side of the bus may count as gone on the
        other. This side is told at least a second before the others are told that it is gone.
        """

    def unwatch(told: MembersTold) -> Deferred[None]:
        """End all watches of ``told``; harmless if there are none."""

    def status() -> Deferred[BusStatus]:
        """Return topics, subscribers and counts."""

    def trace(message_id: str) -> Deferred[tuple[Step, ...]]:
        """Return the trace of a recent message, by its id or ``trace-id``; empty if unknown."""

    def close() -> Deferred[None]:
        """End all subscriptions and refuse every open call; harmless when repeated."""


__all__ = ["IBus", "Subscription"]
