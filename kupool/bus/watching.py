"""The interface for observers of a broker's subscribers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from kupool.bus.calls import Deliver, Response


class IBrokerWatcher(Interface):
    """Told about changes of subscribers after they happened; never raises."""

    def subscribed(
        subscriber_id: str,
        topics: tuple[str, ...],
        keys: tuple[str, ...],
        *,
        deliver: Deliver,
        since: float,
    ) -> None:
        """A subscriber has all of these topics now, and has declared these further keys.

        Not called for a subscriber of another node. ``since`` is when it subscribed, in seconds
        since 1970.
        """

    def unsubscribed(subscriber_id: str, left: tuple[str, ...]) -> None:
        """A subscriber has only these topics left."""

    def removed(subscriber_id: str, linger: float = 0.0) -> None:
        """A subscriber is gone and answers no more; it stays a member of its topics for ``linger``
        seconds.
        """

    def answered(subscriber_id: str, number: int, response: Response) -> None:
        """A subscriber has answered a call of another broker; the call is given by its number."""


__all__ = ["IBrokerWatcher"]
