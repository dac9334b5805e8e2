"""Permissions for topics and consumer groups, of sessions and of HTTP requests."""

from __future__ import annotations

from functools import partial
from typing import Any

from kupool.permissions.table import PermissionTable
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.topics.api.access import Caller
from kupool.web.access import NOBODY


class TopicAccess:
    """Says who calls an operation, and what they may do by the ``table``.

    Names of topics and groups have levels like topics of the bus. Members of a group stay in it
    when the table changes, and can do no more than the table permits.
    """

    def __init__(self, table: PermissionTable) -> None:
        self._table = table

    def of_session(self, connection: Connection) -> Caller:
        """Return the user of a session."""
        session: Session = connection.context
        return self._caller(session.user, session.role, connection.host)

    def of_request(self, request: Any, host: str) -> Caller:
        """Return who an HTTP request is from; ``host`` is the address."""
        identity = getattr(request, "identity", NOBODY)
        return self._caller(identity.user, identity.role, host)

    def _caller(self, user: str, role: str, host: str) -> Caller:
        return Caller(
            user,
            host,
            partial(self._table.may, user, role),
            partial(self._table.may_some, user, role),
        )


__all__ = ["TopicAccess"]
