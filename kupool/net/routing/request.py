"""One message together with the connection it came on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kupool.session.connection import Connection


class Request:
    """What a :class:`~kupool.net.routing.base.BaseRouter` and handlers made with ``on`` get.

    ``msg_id`` is the number of the message, or the name of its method; ``data`` are its
    bytes, or the params as the registered type. ``id`` is what a peer's answer is matched
    by in JSON, None in a notification and for messages with a number. ``context`` is the
    handlers' own: the steps of one message share it.
    """

    __slots__ = ("_reply", "connection", "context", "data", "id", "msg_id")

    def __init__(
        self,
        connection: Connection,
        msg_id: int | str,
        data: Any,
        message_id: int | str | None = None,
        reply: Callable[[object], object] | None = None,
    ) -> None:
        self.connection = connection
        self.msg_id = msg_id
        self.data = data
        self.id = message_id
        self.context: Any = None
        self._reply = reply

    def reply(self, result: object) -> None:
        """Answer later, where the handler returned ``LATER``; takes what handlers return.

        Never raises: what cannot be sent is an exception of the handler, and a peer that
        has gone gets nothing.
        """
        if self._reply is not None:
            self._reply(result)


__all__ = ["Request"]
