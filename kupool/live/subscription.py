"""A client's subscription to a live channel."""

from __future__ import annotations


class LiveSubscription:
    """One client's subscription to one channel."""

    def start(self) -> None:
        """Hand publications over from now on: first what was published since the reply."""
        raise NotImplementedError


__all__ = ["LiveSubscription"]
