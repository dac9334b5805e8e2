"""Who may do what on the daemon's bus: a step in front of its methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kupool.bus.remote.messages import PublishParams, SubscribeParams, UnsubscribeParams
from kupool.bus.topics import covers, matches, overlaps, pattern_name, topic_name
from kupool.daemon.pace import RequestPace
from kupool.errors import FORBIDDEN, ErrorText
from kupool.pool import EVENTS
from kupool.session.connection import Connection
from kupool.settings import NodeBusSettings


class BusAccess:
    """Lets sessions use the topics they may, so and so often; refuses all else.

    ``publish`` and ``subscribe`` of the settings are the topics, as patterns, that any session
    may use.
    Nobody may publish the pool's own events, and those that are not named as such in
    ``subscribe`` are for ``operators`` only, users who may use all topics, as often as
    they like, and ask what the bus does. ``user_of`` returns the user of a connection.
    Raises :class:`ValueError` for a pattern that is none.
    """

    def __init__(self, settings: NodeBusSettings, user_of: Callable[[Connection], str]) -> None:
        self._publish = tuple(map(pattern_name, settings.publish))
        self._subscribe = tuple(map(pattern_name, settings.subscribe))
        #: What of the pool's events is named as such.
        self._events = tuple(p for p in self._subscribe if covers(EVENTS, p))
        self._operators = frozenset(settings.operators)
        self._user_of = user_of
        #: How often any other session may ask.
        self.pace = RequestPace(settings.rate)

    def __call__(self, connection: Connection, request: Any) -> ErrorText | None:
        """Answer a request that is one too many or asks for too much."""
        operator = self._user_of(connection) in self._operators
        if not operator:
            refusal = self.pace(connection, request)
            if refusal is not None:
                return refusal
        params = request.params
        try:
            if isinstance(params, PublishParams):
                return self.refuse_topic(topic_name(params.topic), everything=operator)
            if isinstance(params, SubscribeParams):
                patterns = [] if operator else [pattern_name(topic) for topic in params.topics]
                return next(filter(None, map(self._refuse_pattern, patterns)), None)
        except ValueError:
            return None  # the method itself says what is wrong
        if isinstance(params, UnsubscribeParams) or operator:
            return None
        return FORBIDDEN

    def refuse_topic(self, topic: str, *, everything: bool = False) -> ErrorText | None:
        """Say why nothing may be published to a valid topic; None where it may.

        With ``everything``, only the pool's own events are refused.
        """
        allowed = everything or any(matches(pattern, topic) for pattern in self._publish)
        if allowed and not matches(EVENTS, topic):
            return None
        return FORBIDDEN.about(f"topic {topic!r}")

    def _refuse_pattern(self, pattern: str) -> ErrorText | None:
        if covers(EVENTS, pattern):
            allowed = any(covers(named, pattern) for named in self._events)
        else:
            allowed = any(covers(named, pattern) for named in self._subscribe)
            if allowed and overlaps(EVENTS, pattern) and EVENTS not in self._events:
                return FORBIDDEN.about(f"topic {pattern!r} takes in {EVENTS}")
        return None if allowed else FORBIDDEN.about(f"topic {pattern!r}")


__all__ = ["BusAccess"]
