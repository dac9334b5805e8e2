"""Who may do what on the daemon's bus: a step in front of its methods."""

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

#: What a rule may let users do.
ACTIONS = (PUBLISH, SUBSCRIBE)


class BusAccess:
    """Lets sessions use the topics they may, so and so often; refuses all else.

    ``publish`` and ``subscribe`` of the settings are the topics, as patterns, that any session
    may use, ``permissions`` what some users may as well. Nobody may publish the pool's own
    events, and those that are not named as such are for ``operators`` only, users who may use
    all topics, as often as they like, and ask what the bus does. ``user_of`` returns the user
    of a connection. Raises :class:`ValueError` for a rule that is none.
    """

    def __init__(self, settings: NodeBusSettings, user_of: Callable[[Connection], str]) -> None:
        self._user_of = user_of
        self.use(settings)
        #: How often any session but an operator's may ask.
        self.pace = RequestPace(settings.rate)

    def use(self, settings: NodeBusSettings) -> None:
        """Go by these settings from now on; see :meth:`may_subscribe` for what is there."""
        rules = list(bus_rules(settings))
        self._rules = Permissions(rules)
        # Before a user's name is in them: one who is called as the pool's topics has none.
        self._event_rules = Permissions(rule for rule in rules if covers(EVENTS, rule.pattern))
        self._operators = frozenset(settings.operators)

    def __call__(self, connection: Connection, request: Any) -> ErrorText | None:
        """Answer a request that is one too many or asks for too much."""
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
            return None  # the method itself says what is wrong
        if isinstance(params, UnsubscribeParams | UnwatchParams) or operator:
            return None
        return FORBIDDEN

    def may_subscribe(self, connection: Connection, pattern: str) -> bool:
        """Say whether a connection may have a subscription to a valid pattern."""
        user = self._user_of(connection)
        return user in self._operators or self._refuse_pattern(user, pattern) is None

    def refuse_topic(
        self, topic: str, user: str = "", *, everything: bool = False
    ) -> ErrorText | None:
        """Say why a user may not publish to a valid topic; None where they may.

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
    """Yield every rule of the settings; raises :class:`ValueError` for one that is none."""
    for pattern in settings.publish:
        yield Rule("*", PUBLISH, check_pattern(pattern))
    for pattern in settings.subscribe:
        yield Rule("*", SUBSCRIBE, check_pattern(pattern))
    for text in settings.permissions:
        yield parse_rule(text, ACTIONS)


__all__ = ["ACTIONS", "BusAccess", "bus_rules"]
