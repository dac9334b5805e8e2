"""What a broker tells of its subscribers, where somebody else has to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from kupool.bus.calls import Deliver, Response


class IBrokerWatcher(Interface):
    """Is told who comes and goes, once that has happened; never raises."""

    def subscribed(
        subscriber_id: str,
        topics: tuple[str, ...],
        keys: tuple[str, ...],
        *,
        deliver: Deliver,
        since: float,
    ) -> None:
        """A subscriber has these topics in all, and declares these keys in addition.

        Not told of one that is elsewhere. ``since`` is when it came, in seconds since 1970.
        """

    def unsubscribed(subscriber_id: str, left: tuple[str, ...]) -> None:
        """A subscriber has these topics left."""

    def removed(subscriber_id: str, linger: float = 0.0) -> None:
        """A subscriber is gone, and answers nothing more; it is a member of its topics for
        ``linger`` seconds yet.
        """

    def answered(subscriber_id: str, number: int, response: Response) -> None:
        """A subscriber has answered a call that is not the broker's own, by its number."""


__all__ = ["IBrokerWatcher"]
