"""The methods of a session that may not call all of them."""

from __future__ import annotations

from zope.interface import implementer

from kupool.errors import FORBIDDEN, MALFORMED
from kupool.net.routing.interfaces import IRouter
from kupool.permissions.offered import OFFERED
from kupool.permissions.table import PermissionTable
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.wire.framing import Item
from kupool.wire.messages import decode_loosely, encode_error


@implementer(IRouter)
class PermittedMethods:
    """Passes the messages of a session to ``methods`` if it may call what they name.

    Methods that the table of permissions does not list may be called by all. Each message is
    decoded once more than without this.
    """

    def __init__(self, methods: IRouter, permissions: PermissionTable) -> None:
        self._methods = methods
        self._permissions = permissions

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle one message; returns the payload of the answer, if any."""
        if type(item) is not bytes:
            return self._methods.dispatch(connection, item)
        loose = decode_loosely(item)
        if loose is None or not loose.known_id:
            # Not passed on: a decoder that skips what it does not need might take it.
            connection.complain(encode_error(None, MALFORMED))
            return None
        if not isinstance(loose.method, str):
            return self._methods.dispatch(connection, item)  # it calls no method
        session: Session = connection.context
        may = self._permissions.may
        if ("call", loose.method) not in OFFERED or may(
            session.user, session.role, "call", loose.method
        ):
            return self._methods.dispatch(connection, item)
        if loose.id is None:
            return None
        return encode_error(loose.id, FORBIDDEN.about(f"method {loose.method!r:.60}"))


__all__ = ["PermittedMethods"]
