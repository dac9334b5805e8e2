"""What every bus does, in one process or over a network."""

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
    """An acknowledged subscription: one handler, with all the topics it has."""

    id: str
    topics: tuple[str, ...]


class IBus(Interface):
    """A message bus.

    Topics are names of levels joined by ``.``; in a subscription ``*`` stands for one
    level and a last ``>`` for one or more. The four ``publish`` methods return a Deferred
    that fires with exactly one :class:`Outcome` and fails only where it is cancelled.
    ``timeout`` is in seconds, at least 0.01 and at most 3600, by default 3; ``headers``
    (at most 2 KiB) reach the handler as they are, and ``trace-id`` among them is the id
    that :meth:`trace` knows the message by.

    All raise :class:`ValueError`, at once, for an argument that cannot be right.
    """

    def publish_reliable_random(
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Have one subscriber, chosen at random, answer; another, where it does not."""

    def publish_reliable_specific(
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Have the one subscriber answer that can: all get it, the first answer counts.

        ``key`` is a hint whose message it is, for topics where hints are used.
        """

    def publish_unreliable_all(
        data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to every subscriber there is, or within 3 s to the first that comes."""

    def publish_unreliable_random(
        data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to one subscriber, chosen at random, or to the first that comes in 3 s."""

    def subscribe(
        topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Let a handler have the messages of some topics; fires when that is so.

        A handler that has a subscription gets the topics and keys in addition, and every
        message once. Handlers are told apart as keys of a dictionary are.
        """

    def unsubscribe(handler: Handler, topics: Iterable[Topic] | None = None) -> Deferred[None]:
        """Let a handler have no more of some topics, by default of all; else harmless."""

    def watch(topic: Topic, told: MembersTold) -> Deferred[None]:
        """Tell who the subscribers of a topic are, now and whenever that changes; fires when
        this is so.

        The same ``told`` may watch several topics. It gets a tuple of
        :class:`~kupool.bus.members.TopicMember`, at most 1000, or None: then they are not
        known, and those who subscribed on this side of the bus may count as gone elsewhere.
        This side is told so at least a second before the others are told that it is gone.
        """

    def unwatch(told: MembersTold) -> Deferred[None]:
        """Tell no more of any topic; else harmless."""

    def status() -> Deferred[BusStatus]:
        """Return topics, subscribers and counts."""

    def trace(message_id: str) -> Deferred[tuple[Step, ...]]:
        """Return the way of a recent message, by its id or ``trace-id``; empty if unknown."""

    def close() -> Deferred[None]:
        """Drop all subscriptions and end every call as refused; harmless when repeated."""


__all__ = ["IBus", "Subscription"]
