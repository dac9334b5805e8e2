"""Who may do what with topics and groups: nothing, unless it was permitted. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kupool.errors import FORBIDDEN, RequestError
from kupool.topics.dead_letters import PASSED, SUFFIX
from kupool.topics.events import EVENTS
from kupool.topics.submissions import SUBMISSIONS

#: What may be permitted for a topic, and for a group.
PUBLISH, SUBSCRIBE, MANAGE = TOPIC_ACTIONS = ("log.publish", "log.subscribe", "log.manage")
GROUP = "log.group"

#: Topics that the daemon alone writes to, and that nobody changes or deletes.
RESERVED = frozenset((SUBMISSIONS, EVENTS))


class Caller(NamedTuple):
    """Who calls an operation.

    ``may`` says whether the caller may do something with a topic or a group, and ``may_some``
    whether there is any with which the caller may. ``host`` is the address, for the log.
    """

    user: str
    host: str
    may: Callable[[str, str], bool]
    may_some: Callable[[str], bool]


def require(caller: Caller, action: str, name: str) -> None:
    """Refuse an action with a topic or a group that is not permitted."""
    if not caller.may(action, name):
        raise forbidden(action, name)


def require_any(caller: Caller, name: str, *actions: str) -> None:
    """Refuse unless one of the actions is permitted."""
    if not any(caller.may(action, name) for action in actions):
        raise forbidden(" or ".join(actions), name)


def require_writable(caller: Caller, topic: str) -> None:
    """Refuse to write to a topic without permission, and to one that only the daemon writes to."""
    require(caller, PUBLISH, topic)
    if topic in RESERVED or topic.endswith(SUFFIX):
        raise RequestError(FORBIDDEN.about(f"only the daemon writes to topic {topic}"))


def require_changeable(caller: Caller, topic: str) -> None:
    """Refuse to change or delete a topic without permission, and one of the daemon's own."""
    require(caller, MANAGE, topic)
    if topic in RESERVED:
        raise RequestError(FORBIDDEN.about(f"topic {topic} is the daemon's own"))


def require_creatable(caller: Caller, topic: str) -> None:
    """Refuse to create a topic without permission, and names that the daemon keeps for itself."""
    require_changeable(caller, topic)
    if topic.endswith(SUFFIX):
        raise RequestError(FORBIDDEN.about(f"topics of dead letters ({SUFFIX}) make themselves"))


def may_use_group(caller: Caller, group: str) -> bool:
    """Return whether a caller may use a group; nobody may use that of the dead letters."""
    return group != PASSED and "/" not in group and caller.may(GROUP, group)


def require_group(caller: Caller, group: str) -> None:
    """Refuse the use of a group that is not permitted."""
    if not may_use_group(caller, group):
        raise forbidden(GROUP, group)


def forbidden(action: str, name: str) -> RequestError:
    """Return the refusal of an action with a topic or a group."""
    return RequestError(FORBIDDEN.about(f"{action} {name:.249}"))


__all__ = [
    "GROUP",
    "MANAGE",
    "PUBLISH",
    "RESERVED",
    "SUBSCRIBE",
    "TOPIC_ACTIONS",
    "Caller",
    "forbidden",
    "may_use_group",
    "require",
    "require_any",
    "require_changeable",
    "require_creatable",
    "require_group",
    "require_writable",
]
