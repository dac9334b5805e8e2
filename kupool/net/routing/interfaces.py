"""The interface of routers."""

from __future__ import annotations

from typing import Any

from zope.interface import Interface

from kupool.wire.framing import Item


class IRouter(Interface):
    """Answers the messages of a connection."""

    def dispatch(connection: Any, item: Item) -> bytes | None:
        """Handle one message; returns the payload of the answer, if any. Never raises.

        ``connection`` is a :class:`~kupool.session.connection.Connection`, which knows its
        router.
        """


__all__ = ["IRouter"]
