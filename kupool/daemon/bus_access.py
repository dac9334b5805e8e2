"""Permissions and request limits for the daemon's bus: a step before its methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kupool.bus.permissions import Permissions, Rule, check_pattern, parse_rule
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
from kupool.pool import EVENTS
from kupool.session.connection import Connection
from kupool.settings import NodeBusSettings

PUBLISH, SUBSCRIBE = "publish", "subscribe"

#: The actions that a rule may allow.
ACTIONS = (PUBLISH, SUBSCRIBE)


class BusAccess:
    """Allows a session its topics at a limited rate; refuses everything else.

    ``publish`` and ``subscribe`` of the settings are patterns of topics for every session;
    ``permissions`` are rules for some users. Nobody may publish the pool's own events. Events whose
    topics are not listed for sessions are for ``operators`` only. Operators are users who may use
    all other topics without a rate limit, and ask for the status of the bus. ``user_of`` returns
    the user of a connection. Raises :class:`ValueError` for an invalid rule.
    """

    def __init__(self, settings: NodeBusSettings, user_of: Callable[[Connection], str]) -> None:
        self._user_of = user_of
        self.use(settings)
        #: How often any session but an operator's may ask.
        self.pace = RequestPace(settings.rate)

    def use(self, settings: NodeBusSettings) -> None:
        """Apply other settings from now on; for existing subscriptions see
        :meth:`may_subscribe`.
        """
        rules = list(bus_rules(settings))
        self._rules = Permissions(rules)
        # Before a user's name is in them: one who is called as the pool's topics has none.
        self._event_rules = Permissions(rule for rule in rules if covers(EVENTS, rule.pattern))
        self._operators = frozenset(settings.operators)

    def __call__(self, connection: Connection, request: Any) -> ErrorText | None:
        """Refuse a request above the rate limit or without permission."""
        user = self._user_of(connection)
        operator = user in self._operators
        if not operator:
            refusal = self.pace(connection, request)
            if refusal is not None:
                return refusal
        params = request.params
        try:
            if isinstance(params, PublishParams):
                topic = topic_name(params.topic)
                return self.refuse_topic(topic, user, everything=operator)
            if isinstance(params, SubscribeParams):
                patterns = [] if operator else [pattern_name(topic) for topic in params.topics]
                found = (self._refuse_pattern(user, pattern) for pattern in patterns)
                return next(filter(None, found), None)
            if isinstance(params, WatchParams):
                topic = topic_name(params.topic)
                return None if operator else self._refuse_pattern(user, topic)
        except ValueError:
            return None  # the method itself reports the error
        if isinstance(params, UnsubscribeParams | UnwatchParams) or operator:
            return None
        return FORBIDDEN

    def may_subscribe(self, connection: Connection, pattern: str) -> bool:
        """Return whether a connection may subscribe to a valid pattern."""
        user = self._user_of(connection)
        return user in self._operators or self._refuse_pattern(user, pattern) is None

    def refuse_topic(
        self, topic: str, user: str = "", *, everything: bool = False
    ) -> ErrorText | None:
        """Return why a user may not publish to a valid topic; None if they may.

        With ``everything``, only the pool's own events are refused.
        """
        allowed = everything or self._rules.allow(user, PUBLISH, topic)
        if allowed and not matches(EVENTS, topic):
            return None
        return FORBIDDEN.about(f"topic {topic!r}")

    def _refuse_pattern(self, user: str, pattern: str) -> ErrorText | None:
        events = self._event_rules
        if covers(EVENTS, pattern):
            allowed = events.allow_all(user, SUBSCRIBE, pattern)
        else:
            allowed = self._rules.allow_all(user, SUBSCRIBE, pattern)
            if (
                allowed
                and overlaps(EVENTS, pattern)
                and EVENTS not in events.patterns(user, SUBSCRIBE)
            ):
                return FORBIDDEN.about(f"topic {pattern!r} includes {EVENTS}")
        return None if allowed else FORBIDDEN.about(f"topic {pattern!r}")


def bus_rules(settings: NodeBusSettings) -> Iterator[Rule]:
    """Yield every rule of the settings; raises :class:`ValueError` for an invalid one."""
    for pattern in settings.publish:
        yield Rule("*", PUBLISH, check_pattern(pattern))
    for pattern in settings.subscribe:
        yield Rule("*", SUBSCRIBE, check_pattern(pattern))
    for text in settings.permissions:
        yield parse_rule(text, ACTIONS)


__all__ = ["ACTIONS", "BusAccess", "bus_rules"]
