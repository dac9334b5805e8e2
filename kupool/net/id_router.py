"""From a ``tlv`` message to the handler of its id."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from zope.interface import implementer

from kupool.net.connection import Connection
from kupool.net.router import IRouter
from kupool.wire.framing import Item, Tlv, encode_tlv

#: Gets the connection, the id and the data of a message, and returns what to answer.
IdHandler = Callable[[Connection, int, bytes], object]


@implementer(IRouter)
class IdRouter:
    """Dispatches ``tlv`` messages by id.

    A handler gets the connection, the id and the data, and returns the data to answer
    with under the same id, a :class:`Tlv` to answer under another, or None. What an
    unknown id gets is given as ``unknown``, a handler like the others.
    """

    _log = Logger()

    def __init__(self, unknown: IdHandler) -> None:
        self._handlers: dict[int, IdHandler] = {}
        self._unknown = unknown

    def add(self, message_id: int, handler: IdHandler) -> None:
        """Register the handler of an id; raises :class:`ValueError` on a second one."""
        if message_id in self._handlers:
            raise ValueError(f"repeat api, msgID: {message_id}")
        self._handlers[message_id] = handler

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; the answer is sent under an id, so None is returned."""
        if isinstance(item, Tlv):
            handler = self._handlers.get(item.message_id, self._unknown)
            try:
                answer = handler(connection, item.message_id, item.payload)
            except Exception:
                self._log.failure(
                    "Handler of message {id} failed, peer {peer}",
                    id=item.message_id,
                    peer=connection.peer,
                )
                return None
            if isinstance(answer, Tlv):
                connection.send_encoded(encode_tlv(answer.payload, answer.message_id))
            elif isinstance(answer, bytes):
                connection.send_encoded(encode_tlv(answer, item.message_id))
        return None


__all__ = ["IdHandler", "IdRouter"]
