"""What can be permitted: kinds of names with their actions, and the methods and routes there are.

Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from kupool.permissions.roles import ADMIN, ANONYMOUS, OPERATOR, WORKER


class NameKind(NamedTuple):
    """A kind of names, and what can be done with one."""

    name: str
    actions: tuple[str, ...]


METHOD = NameKind("method", ("call",))
TOPIC = NameKind("topic", ("publish", "subscribe"))
ROOM = NameKind("room", ("create", "join", "match"))
ROUTE = NameKind("route", ("GET", "POST"))
CHANNEL = NameKind(
    "channel", ("channel.publish", "channel.subscribe", "channel.presence", "channel.history")
)
LOG_TOPIC = NameKind("log topic", ("log.publish", "log.subscribe", "log.manage"))
LOG_GROUP = NameKind("group", ("log.group",))

#: All kinds, in the order in which they are shown.
KINDS = (METHOD, TOPIC, ROOM, ROUTE, CHANNEL, LOG_TOPIC, LOG_GROUP)

#: The actions that a rule may have.
ACTIONS = tuple(action for kind in KINDS for action in kind.actions)


class Offered(NamedTuple):
    """A method or a route that the program has, and the role that is enough for it by default.

    One that is ``open`` takes everybody: no rule changes that. One that ``changes`` something is
    never permitted to everybody by a rule if it needs a role by default. Each use of one with a
    name in ``audit`` is written to the audit trail under that name.
    """

    action: str
    name: str
    role: str = ANONYMOUS
    open: bool = False
    changes: bool = False
    audit: str = ""

    @property
    def levels(self) -> str:
        """The name in the form of a topic, so that patterns of topics can cover it."""
        return route_name(self.name) if self.name.startswith("/") else self.name


def operation_path(name: str) -> str:
    """Return the path of the route of an operation, as ``/api/log/fetch``."""
    return "/api/" + name.replace(".", "/")


def route_name(path: str) -> str:
    """Return a path, or a pattern of paths, in the form of a topic: dots for slashes."""
    return path[1:].replace("/", ".") or "/"


def route_path(name: str) -> str:
    """Return the path, or the pattern of paths, that has a name in the form of a topic."""
    return "/" if name == "/" else "/" + name.replace(".", "/")


#: The operations of topics that only read, and those that change something. Everybody may call
#: them; what they do with a topic or a group needs a permission for its name.
TOPIC_READS = (
    "topic.list",
    "topic.describe",
    "log.capabilities",
    "log.fetch",
    "log.offsets",
    "log.delayed",
    "log.dead",
    "group.list",
    "group.describe",
)
TOPIC_CHANGES = (
    "topic.create",
    "topic.change",
    "topic.delete",
    "log.produce",
    "log.delay",
    "log.cancel",
    "log.begin",
    "log.commit",
    "log.abort",
    "log.bury",
    "log.redrive",
    "log.purge",
    "group.join",
    "group.heartbeat",
    "group.leave",
    "group.commit",
    "group.reset",
    "group.delete",
)

#: The methods of the server API of live channels; without an API key they are for admins.
#: ``refresh`` is there as well: without a key its route is that of logins.
LIVE_METHODS = (
    "publish",
    "broadcast",
    "subscribe",
    "unsubscribe",
    "disconnect",
    "presence",
    "presence_stats",
    "history",
    "history_remove",
    "channels",
    "info",
    "batch",
)

#: The channels that a role may read by default: it may subscribe, and read their histories. A
#: channel of a user is for that user, once the name is proved.
DEFAULT_CHANNELS = (
    (ANONYMOUS, "pool"),
    (ANONYMOUS, "jobs"),
    (WORKER, "users.{user}"),
    (WORKER, "workers.{user}.>"),
    (OPERATOR, "submissions"),
    (OPERATOR, "events"),
    (OPERATOR, "server"),
    (OPERATOR, "users.*"),
    (OPERATOR, "workers.>"),
)

#: What a role may do with topics, groups and channels by default, as a pattern of their names.
DEFAULT_NAMES = (
    *(
        (role, action, pattern)
        for role, pattern in DEFAULT_CHANNELS
        for action in ("channel.subscribe", "channel.history")
    ),
    (OPERATOR, "channel.presence", ">"),
    *((ADMIN, action, ">") for action in CHANNEL.actions),
    (OPERATOR, "log.subscribe", "submissions"),
    (OPERATOR, "log.subscribe", "events"),
    (ADMIN, "log.publish", ">"),
    (ADMIN, "log.subscribe", ">"),
    (ADMIN, "log.manage", ">"),
    (ADMIN, "log.group", ">"),
)

#: The methods of a session.
METHODS = (
    Offered("call", "authorize"),
    Offered("call", "submit"),
    # The heartbeat: a session without it would be ended as silent.
    Offered("call", "ping", open=True),
    Offered("call", "bus.publish"),
    Offered("call", "bus.subscribe"),
    Offered("call", "bus.unsubscribe"),
    Offered("call", "bus.watch"),
    Offered("call", "bus.unwatch"),
    Offered("call", "bus.status"),
    Offered("call", "bus.trace"),
    Offered("call", "room.create"),
    Offered("call", "room.join"),
    Offered("call", "room.leave"),
    Offered("call", "room.send"),
    Offered("call", "room.list"),
    Offered("call", "match.join"),
    Offered("call", "match.cancel"),
    *(Offered("call", name) for name in (*TOPIC_READS, *TOPIC_CHANGES)),
    # What they do with a channel needs a permission for its name.
    *(
        Offered("call", name)
        for name in ("subscribe", "unsubscribe", "publish", "presence", "history")
    ),
)

#: The routes of the HTTP server. HEAD counts as GET.
ROUTES = (
    Offered("GET", "/", open=True),
    Offered("GET", "/dashboard", open=True),
    Offered("GET", "/health", open=True),
    Offered("GET", "/ready", open=True),
    # The first message on it has to be an authorize.
    Offered("GET", "/ws", open=True),
    Offered("POST", "/api/login", open=True),
    Offered("POST", "/api/logout", open=True),
    Offered("POST", "/api/refresh", WORKER, changes=True),
    Offered("GET", "/api/me"),
    Offered("GET", "/stats", WORKER),
    # A worker sees only what is theirs.
    *(
        Offered("GET", f"/api/{name}", WORKER)
        for name in ("history", "workers", "rank", "submissions", "trace")
    ),
    Offered("GET", "/shutdown/status", OPERATOR),
    Offered("POST", "/jobs/rotate", OPERATOR, changes=True, audit="jobs.rotate"),
    Offered("POST", "/jobs/interval", OPERATOR, changes=True, audit="jobs.interval"),
    Offered("GET", "/bans", OPERATOR),
    Offered("POST", "/bans/lift", OPERATOR, changes=True, audit="bans.lift"),
    # A worker sees only what is theirs.
    Offered("GET", "/api/sessions", WORKER),
    Offered("GET", "/api/sessions/ended", WORKER),
    Offered("GET", "/api/users", WORKER),
    Offered("GET", "/api/requests", OPERATOR),
    Offered("GET", "/api/overview", OPERATOR),
    Offered("GET", "/api/audit", OPERATOR),
    Offered("POST", "/api/sessions/close", OPERATOR, changes=True, audit="sessions.close"),
    Offered("POST", "/api/bans/add", OPERATOR, changes=True, audit="bans.add"),
    Offered("POST", "/bus/publish", OPERATOR, changes=True),
    Offered("GET", "/bus/publish", OPERATOR, changes=True),
    # What a browser asks before it sends something from another site's page.
    Offered("OPTIONS", "/bus/publish", open=True),
    Offered("GET", "/bus/status", OPERATOR),
    Offered("OPTIONS", "/bus/status", open=True),
    Offered("GET", "/bus/trace", OPERATOR),
    Offered("OPTIONS", "/bus/trace", open=True),
    # What they do with a channel needs a permission for its name.
    Offered("GET", "/events"),
    Offered("OPTIONS", "/events", open=True),
    Offered("GET", "/connection/websocket", open=True),
    *(
        Offered(method, path, open=True)
        for path, methods in (
            ("/connection/sse", ("GET", "POST", "OPTIONS")),
            ("/connection/http_stream", ("POST", "OPTIONS")),
            ("/emulation", ("POST", "OPTIONS")),
        )
        for method in methods
    ),
    Offered("POST", "/api/live/interval", OPERATOR, changes=True, audit="live.interval"),
    Offered("GET", "/api/live/status", OPERATOR),
    Offered("GET", "/api/limits", OPERATOR),
    Offered("GET", "/api/rooms", OPERATOR),
    *(Offered("POST", f"/api/{name}", ADMIN, changes=True) for name in LIVE_METHODS),
    *(Offered("GET", operation_path(name)) for name in TOPIC_READS),
    *(Offered("POST", operation_path(name)) for name in (*TOPIC_READS, *TOPIC_CHANGES)),
)

#: By action and name.
OFFERED = {(found.action, found.name): found for found in (*METHODS, *ROUTES)}


__all__ = [
    "ACTIONS",
    "CHANNEL",
    "DEFAULT_CHANNELS",
    "DEFAULT_NAMES",
    "KINDS",
    "LIVE_METHODS",
    "LOG_GROUP",
    "LOG_TOPIC",
    "METHOD",
    "METHODS",
    "OFFERED",
    "ROOM",
    "ROUTE",
    "ROUTES",
    "TOPIC",
    "TOPIC_CHANGES",
    "TOPIC_READS",
    "NameKind",
    "Offered",
    "operation_path",
    "route_name",
    "route_path",
]
