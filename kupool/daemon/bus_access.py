"""Permissions and request limits for the daemon's bus: a step before its methods."""

from __future__ import annotations

from typing import Any

from kupool.bus.remote.messages import (
    PublishParams,
    SubscribeParams,
    UnsubscribeParams,
    UnwatchParams,
    WatchParams,
)
from kupool.bus.topics import covers, matches, overlaps, pattern_name, topic_name
from kupool.daemon.pace import RequestPace
from kupool.errors import FORBIDDEN, ErrorText
from kupool.permissions.offered import TOPIC
from kupool.permissions.roles import ANONYMOUS
from kupool.permissions.table import PermissionTable
from kupool.pool import EVENTS
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.settings import NodeBusSettings

PUBLISH, SUBSCRIBE = TOPIC.actions


class BusAccess:
    """Allows a session its topics at a limited rate; refuses everything else.

    Topics go by the ``table``. Nobody may publish the pool's own events; a rule lets users
    subscribe to them only if its pattern is about these events alone. ``operators`` of the settings
    are users who may use all other topics without a rate limit, and ask for the status of the bus.
    """

    def __init__(self, settings: NodeBusSettings, table: PermissionTable) -> None:
        self._table = table
        self.use(settings)
        #: How often any session but an operator's may ask.
        self.pace = RequestPace(settings.rate)

    def use(self, settings: NodeBusSettings) -> None:
        """Go by other settings, and by the table as it is now; for existing subscriptions see
        :meth:`may_subscribe`.
        """
        # Before a user's name is in them: one who is called as the pool's topics has none.
        self._event_rules = self._table.select(lambda rule: covers(EVENTS, rule.pattern))
        self._operators = frozenset(settings.operators)

    def __call__(self, connection: Connection, request: Any) -> ErrorText | None:
        """Refuse a request above the rate limit or without permission."""
        session: Session = connection.context
        operator = session.user in self._operators
        if not operator:
            refusal = self.pace(connection, request)
            if refusal is not None:
                return refusal
        params = request.params
        try:
            if isinstance(params, PublishParams):
                topic = topic_name(params.topic)
                if operator or self._table.of(session.role).allow(session.user, PUBLISH, topic):
                    return self.refuse_event(topic)
                return FORBIDDEN.about(f"topic {topic!r}")
            if isinstance(params, SubscribeParams):
                patterns = [] if operator else [pattern_name(topic) for topic in params.topics]
                found = (self._refuse_pattern(session, pattern) for pattern in patterns)
                return next(filter(None, found), None)
            if isinstance(params, WatchParams):
                topic = topic_name(params.topic)
                return None if operator else self._refuse_pattern(session, topic)
        except ValueError:
            return None  # the method itself reports the error
        if isinstance(params, UnsubscribeParams | UnwatchParams) or operator:
            return None
        return FORBIDDEN

    def may_subscribe(self, connection: Connection, pattern: str) -> bool:
        """Return whether a connection may subscribe to a valid pattern."""
        session: Session = connection.context
        return session.user in self._operators or self._refuse_pattern(session, pattern) is None

    def refuse_event(self, topic: str) -> ErrorText | None:
        """Return why nobody may publish to a valid topic; None unless it is the pool's own."""
        return FORBIDDEN.about(f"topic {topic!r}") if matches(EVENTS, topic) else None

    def _refuse_pattern(self, session: Session, pattern: str) -> ErrorText | None:
        user = session.user
        events = self._event_rules.get(session.role) or self._event_rules[ANONYMOUS]
        if covers(EVENTS, pattern):
            allowed = events.allow_all(user, SUBSCRIBE, pattern)
        else:
            allowed = self._table.of(session.role).allow_all(user, SUBSCRIBE, pattern)
            if (
                allowed
                and overlaps(EVENTS, pattern)
                and EVENTS not in events.patterns(user, SUBSCRIBE)
            ):
                return FORBIDDEN.about(f"topic {pattern!r} includes {EVENTS}")
        return None if allowed else FORBIDDEN.about(f"topic {pattern!r}")


__all__ = ["BusAccess"]
