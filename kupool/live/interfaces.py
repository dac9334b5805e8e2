"""The interfaces of live channels: to peers, to those who speak to clients, and to histories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from zope.interface import Interface

from kupool.live.publications import (
    ClientDetails,
    HistoryPart,
    MissedCount,
    NewPublication,
    PublicationGap,
    PublishedRecord,
    StreamPosition,
)
from kupool.session.publication import Recipient
from kupool.session.waiting import SpaceWaiter

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from kupool.session.connection import Connection


class IChannel(Interface):
    """A channel whose subscribers want only the newest message."""

    def subscribe(connection: Connection) -> None:
        """Subscribe a connection to messages from now on.

        The caller unsubscribes the connection when it ends. A connection that has already
        ended is ignored.
        """

    def unsubscribe(connection: Connection) -> None:
        """Unsubscribe a connection; does nothing if it is not subscribed."""

    def publish(payload: bytes) -> Deferred[None]:
        """Send the same payload to all subscribers; fires when it is in every outbox."""

    def publish_each(make: Callable[[Connection], bytes]) -> Deferred[None]:
        """Send each subscriber the payload that ``make`` returns for it."""


class LivePeer(Recipient, Protocol):
    """A peer that reads publications; a :class:`~kupool.session.connection.Connection` is one."""

    @property
    def congested(self) -> bool:
        """Whether data sent now has to wait, as the peer reads slowly."""

    def wait_for_space(self, waiter: SpaceWaiter) -> None:
        """Call ``waiter.changed()`` whenever there is space again, and when the peer has ended."""

    def stop_waiting(self, waiter: SpaceWaiter) -> None:
        """Call the waiter no more."""


class LiveEncoding(Protocol):
    """How one kind of clients gets messages; each returns a payload that a framing encodes.

    All clients that are spoken to in the same way share one object: a message is encoded once for
    each object and framing.
    """

    def publication(self, channel: str, record: PublishedRecord) -> bytes:
        """Return the payload of a publication."""

    def join(self, channel: str, details: ClientDetails) -> bytes:
        """Return the payload that says that a client has come."""

    def leave(self, channel: str, details: ClientDetails) -> bytes:
        """Return the payload that says that a client has gone."""


class LiveSubscriber(Protocol):
    """A client, as those who speak to clients hand it to the service.

    Its attributes do not change. The callbacks must not raise.
    """

    @property
    def client_id(self) -> str:
        """Its id, which no other client has."""

    @property
    def user(self) -> str:
        """Its user; empty for an anonymous client."""

    @property
    def role(self) -> str:
        """Its role, for the permissions."""

    @property
    def connection_info(self) -> bytes:
        """What others see of it, besides its user: JSON, or empty."""

    @property
    def peer(self) -> LivePeer:
        """Where its messages go."""

    @property
    def encoding(self) -> LiveEncoding:
        """How its messages are encoded."""

    def gap(self, channel: str, gap: PublicationGap) -> None:
        """Tell the client what it missed; called before the publication that follows the gap.

        A protocol that cannot say so ends the subscription as *insufficient state*: it may
        unsubscribe the client in this call, which then gets nothing more.
        """

    def unsubscribed(self, channel: str, reason: str) -> None:
        """The service has ended a subscription; ``reason`` is one of :data:`END_REASONS`."""

    def too_slow(self, channel: str) -> None:
        """Close the connection: a subscription with the policy *disconnect* has no room."""


#: Why the service ends a subscription: somebody asked for it; the client may no longer have the
#: channel; the stream was lost, so that the client has to subscribe again, recovering.
END_REASONS = ("unsubscribed", "forbidden", "insufficient")

#: Says whether a client may: called with user, role, action and channel. The action is one of
#: :data:`CHANNEL_ACTIONS`.
MayUse = Callable[[str, str, str, str], bool]

#: What a client may do with a channel.
CHANNEL_ACTIONS = ("subscribe", "publish", "presence", "history")


class IChannelStore(Interface):
    """Keeps the publications of one channel, which have growing offsets.

    Errors of the storage are :class:`HistoryUnavailable`.
    """

    def position() -> Deferred[StreamPosition]:
        """Return the end of the stream."""

    def append(new: NewPublication) -> Deferred[PublishedRecord]:
        """Keep a publication; fires when it is as durable as the channel promises.

        If it fails, nothing was kept. While the store is followed, those who follow it have the
        publication before this fires.
        """

    def follow(
        heard: Callable[[PublishedRecord], object], skipped: Callable[[int], object]
    ) -> Deferred[StreamPosition]:
        """Call ``heard`` with each publication after the position that this fires with, in order.

        If publications are lost before they could be read, ``skipped`` is called with the offset of
        the last one of them. At most one follows a store. The calls must not raise. ``heard`` may
        return a Deferred: what comes from elsewhere is read when it has fired.
        """

    def unfollow() -> None:
        """Call ``heard`` no more."""

    def after(offset: int, limit: int) -> Deferred[HistoryPart]:
        """Return up to ``limit`` of the publications after an offset, the oldest first."""

    def count_after(offset: int) -> Deferred[MissedCount]:
        """Count the publications after an offset, those that are lost included."""

    def newest(limit: int, before: int | None = None) -> Deferred[HistoryPart]:
        """Return up to ``limit`` of the newest publications, or the newest before an offset.

        They are ascending.
        """

    def before(time: float, most: int | None = None) -> Deferred[StreamPosition]:
        """Return a position with all publications of a time and later behind it, and perhaps a few
        older ones; ``time`` is in seconds since the epoch. With ``most``, a later position if more
        than so many publications are behind that.
        """

    def forget() -> Deferred[None]:
        """Forget all publications; later ones continue with the next offset."""

    def expire() -> bool:
        """Forget what is too old; returns whether nothing is kept."""


__all__ = [
    "CHANNEL_ACTIONS",
    "END_REASONS",
    "IChannel",
    "IChannelStore",
    "LiveEncoding",
    "LivePeer",
    "LiveSubscriber",
    "MayUse",
]
