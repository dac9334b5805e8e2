"""Every setting, declared once: its kind, its default, and what it is for.

They are in groups, one to a room of the house. Flags, environment variables and files know
them by flat names: that of the field, or the one that is declared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, NamedTuple

from kupool.kinds import COUNT, DURATION, NUMBER, SIZE, TEXT, ValueKind, choice
from kupool.masking import hide, mask


def _setting(
    kind: ValueKind,
    default: str | tuple[str, ...],
    doc: str,
    *,
    name: str = "",
    least: float | None = None,
    secret: Callable[[str], str] = str,
    reload: bool = False,
) -> Any:
    """Declare a setting. ``name`` is its flat name, by default that of the field; ``least`` is
    the smallest value it may have, ``secret`` returns a value as it may be shown; one with
    ``reload`` takes effect when the daemon is told to read its file again.
    """
    metadata = {
        "kind": kind,
        "doc": doc,
        "name": name,
        "least": least,
        "secret": secret,
        "reload": reload,
    }
    value = default if isinstance(default, tuple) else kind.parse(default)
    return field(default=value, metadata=metadata)


@dataclass(frozen=True)
class ListenSettings:
    """Where the daemon listens, what it speaks there, and whom it believes."""

    addr: tuple[str, ...] = _setting(
        TEXT,
        (":8080",),
        "address to listen on: :8080 (every IPv4 address), [::]:8080 (IPv6, and on most "
        "systems IPv4 too), host:8080 or a Twisted endpoint",
    )
    framing: str = _setting(
        choice("auto", "frame", "int32", "line"), "auto", "framing of these addresses"
    )
    transport: str = _setting(
        choice("direct", "stock"), "direct", "stock is Twisted's own, which TLS gets anyway"
    )
    http: str = _setting(
        TEXT, "tcp:8081:interface=127.0.0.1", "address of the HTTP API; empty turns it off"
    )
    ws_origins: tuple[str, ...] = _setting(
        TEXT, (), "web origin that may open the WebSocket; by default the page's own host"
    )
    http_hosts: tuple[str, ...] = _setting(
        TEXT, (), "name by which the HTTP API may be changed, besides localhost"
    )
    proxy_trusted: tuple[str, ...] = _setting(
        TEXT,
        ("127.0.0.0/8", "::1", "unix"),
        "proxy whose PROXY headers are believed on addresses with haproxy: "
        "an address, a network, or unix",
    )
    http_max_connections: int = _setting(
        COUNT, "2000", "HTTP connections at once; beyond it those go that wait longest"
    )
    http_max_requests: int = _setting(
        COUNT, "200", "HTTP requests answered at once, besides /health and /ready"
    )
    http_request_timeout: float = _setting(
        DURATION, "30s", "time that an HTTP connection has for its next request"
    )
    ws_max_connections: int = _setting(
        COUNT, "5000", "WebSockets at once, which count among --max-connections too"
    )
    ws_ping_interval: float = _setting(
        DURATION, "30s", "time between pings of a WebSocket; one that stays silent is closed"
    )
    auth: tuple[str, ...] = _setting(
        TEXT,
        (),
        "checker of passwords, as file:/etc/kupool/passwd; see --help-auth",
        secret=mask,
    )


@dataclass(frozen=True)
class StorageSettings:
    """Where the files are, and where counts and jobs are kept."""

    data: str = _setting(TEXT, "./kupool-data", "folder of the SQLite files")
    kind: str = _setting(
        choice("sqlite", "memory", "pg"), "sqlite", "where counts are kept", name="store"
    )
    pg_dsn: str = _setting(TEXT, "", "PostgreSQL connection string", secret=mask)


@dataclass(frozen=True)
class LogSettings:
    """Where the log of submissions is kept."""

    kind: str = _setting(
        choice("sqlite", "memory", "rabbit"),
        "sqlite",
        "where the submission log is kept",
        name="mq",
    )
    url: str = _setting(
        TEXT,
        "",
        "RabbitMQ address, as amqp://user:password@host/vhost,host2,host3",
        secret=mask,
        name="mq_url",
    )
    queue: str = _setting(TEXT, "kupool_submissions", "name of the RabbitMQ queue", name="mq_queue")
    queue_kind: str = _setting(
        choice("quorum", "classic"), "quorum", "kind of the RabbitMQ queue", name="mq_kind"
    )
    timeout: float = _setting(
        DURATION,
        "2s",
        "time that RabbitMQ has to confirm a batch before it is spooled",
        least=0.05,
        name="mq_timeout",
    )
    spool: str = _setting(
        choice("on", "off"), "on", "keep batches here while RabbitMQ is away; off refuses them"
    )
    spool_max_size: int = _setting(SIZE, "1GiB", "size of what is kept so", least=65536)


@dataclass(frozen=True)
class JobSettings:
    """When there are new jobs, and what is remembered of old ones."""

    interval: float = _setting(DURATION, "30s", "time between jobs", least=0.01, reload=True)
    expire: float = _setting(DURATION, "0", "age at which a job expires; 0: never", reload=True)
    history_window: float = _setting(
        DURATION, "10m", "age at which a job leaves the history", least=1, reload=True
    )
    history_jobs: int = _setting(COUNT, "1000", "jobs in the history", least=1, reload=True)
    max_nonces: int = _setting(COUNT, "2000000", "nonces remembered in all", reload=True)
    nonce_scope: str = _setting(
        choice("pool", "session"), "pool", "who shares a server nonce: everyone, or nobody"
    )
    duplicate_scope: str = _setting(
        choice("user", "session", "job"), "user", "within what a nonce may be used once"
    )


@dataclass(frozen=True)
class RateSettings:
    """How often sessions, users and addresses may submit."""

    submit_interval: float = _setting(
        DURATION, "1s", "time between two accepted submissions of a session", reload=True
    )
    attempts_rate: float = _setting(
        NUMBER, "1", "rejected attempts a second that a session has", reload=True
    )
    attempts_burst: float = _setting(
        NUMBER, "5", "rejected attempts that a session has at once", reload=True
    )
    ban_score: float = _setting(
        NUMBER, "10000", "attempts beyond those after which an address is banned", reload=True
    )
    ban_time: float = _setting(DURATION, "60s", "how long it is banned", reload=True)
    attempts_pause: float = _setting(
        DURATION,
        "1s",
        "pause of a session after such an attempt, while its address has half of --ban-score",
        reload=True,
    )
    user_rate: float = _setting(NUMBER, "0", "accepted submissions a second of one user")
    ip_rate: float = _setting(NUMBER, "0", "accepted submissions a second of one address")


@dataclass(frozen=True)
class NodeLoginSettings:
    """How passwords are checked, and how many wrong ones are taken; for ``auth``."""

    timeout: float = _setting(
        DURATION,
        "10s",
        "time a checker of --auth has; after it the client is told to try again",
        least=0.1,
        name="auth_timeout",
    )
    address_failures: float = _setting(
        NUMBER,
        "20",
        "failed logins a minute of one address (of IPv6, one /64 network)",
        name="login_address_failures",
    )
    user_failures: float = _setting(
        NUMBER,
        "100",
        "failed logins a minute for one user; addresses where that user has logged in are exempt",
        name="login_user_failures",
    )
    delay: float = _setting(
        DURATION, "1s", "time after which a wrong password is answered", name="login_delay"
    )


@dataclass(frozen=True)
class LimitSettings:
    """What one connection may take, and how many there may be."""

    max_connections: int = _setting(COUNT, "10000", "connections at once", reload=True)
    max_connections_per_ip: int = _setting(COUNT, "0", "connections of one address", reload=True)
    max_frame: int = _setting(SIZE, "64KiB", "largest message", least=64, reload=True)
    first_frame: int = _setting(
        SIZE, "1KiB", "largest message before authorize", least=64, reload=True
    )
    authorize_timeout: float = _setting(DURATION, "10s", "time to authorize", reload=True)
    idle_timeout: float = _setting(
        DURATION, "180s", "silence after which a connection is closed", reload=True
    )
    write_timeout: float = _setting(
        DURATION, "10s", "time a peer has to take what it was answered", least=0.1, reload=True
    )
    max_errors: int = _setting(COUNT, "10", "malformed messages before a close", reload=True)
    outbox_limit: int = _setting(
        SIZE, "256KiB", "answers that may wait for one slow reader", least=4096, reload=True
    )


@dataclass(frozen=True)
class SubmissionSettings:
    """How submissions become durable and are counted, and how long both are kept."""

    batch_delay: float = _setting(DURATION, "5ms", "longest time until a batch closes")
    batch_size: int = _setting(COUNT, "500", "submissions that close a batch", least=1)
    batches_in_flight: int = _setting(COUNT, "100", "batches on their way to the log", least=1)
    flush_interval: float = _setting(DURATION, "1s", "time between commits of counts", least=0.01)
    memory_log_limit: int = _setting(SIZE, "64MiB", "size of the memory log", least=65536)
    log_retention: float = _setting(
        DURATION, "168h", "age at which the log drops what is counted", reload=True
    )
    log_max_size: int = _setting(
        SIZE, "10GiB", "size at which the log drops what is counted", reload=True
    )
    keep_minutes: float = _setting(
        DURATION, "720h", "age at which minutes are rolled up into hours", reload=True
    )
    keep_hours: float = _setting(
        DURATION, "17520h", "age at which hours are rolled up into days", reload=True
    )


@dataclass(frozen=True)
class NodeBusSettings:
    """The message bus: which one, who may do what on it, and how much."""

    kind: str = _setting(
        choice("local", "rabbit", "off"),
        "local",
        "message bus of the sessions: of this node, or of all nodes by RabbitMQ",
        name="bus",
    )
    url: str = _setting(
        TEXT,
        "",
        "RabbitMQ address for the bus; by default that of --mq-url",
        secret=mask,
        name="bus_url",
    )
    publish: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "topic that sessions may publish to, as a pattern; never one in kupool.>",
        reload=True,
        name="bus_publish",
    )
    subscribe: tuple[str, ...] = _setting(
        TEXT,
        (">", "kupool.job"),
        "topic that sessions may subscribe to, as a pattern; one in kupool.> has to begin so here",
        reload=True,
        name="bus_subscribe",
    )
    permissions: tuple[str, ...] = _setting(
        TEXT,
        (),
        "what some users may too, as 'bank subscribe bank.>'; needs --auth",
        reload=True,
        name="bus_permissions",
    )
    operators: tuple[str, ...] = _setting(
        TEXT,
        (),
        "user who may use all topics, and look at the bus; needs --auth",
        reload=True,
        name="bus_operators",
    )
    direct: tuple[str, ...] = _setting(
        TEXT,
        (),
        "topic, as a pattern, where a message with a key is for the key's owners alone",
        name="bus_direct",
    )
    rate: float = _setting(
        NUMBER, "100", "requests to the bus a second of one session", reload=True, name="bus_rate"
    )
    topics: int = _setting(
        COUNT,
        "100",
        "topics that one session may subscribe to",
        least=1,
        reload=True,
        name="bus_topics",
    )
    calls: int = _setting(
        COUNT,
        "1000",
        "publishes of one session without an outcome yet",
        least=1,
        reload=True,
        name="bus_calls",
    )
    user_calls: int = _setting(
        COUNT,
        "5000",
        "publishes of one user without an outcome yet; needs --auth",
        reload=True,
        name="bus_user_calls",
    )
    user_calls_size: int = _setting(
        SIZE, "8MiB", "size of their data", reload=True, name="bus_user_calls_size"
    )
    user_topics: int = _setting(
        COUNT,
        "10000",
        "topics that one user may subscribe to; needs --auth",
        reload=True,
        name="bus_user_topics",
    )
    address_calls: int = _setting(
        COUNT,
        "20000",
        "publishes of one address without an outcome yet",
        reload=True,
        name="bus_address_calls",
    )
    address_calls_size: int = _setting(
        SIZE, "16MiB", "size of their data", reload=True, name="bus_address_calls_size"
    )
    address_topics: int = _setting(
        COUNT,
        "20000",
        "topics that one address may subscribe to",
        reload=True,
        name="bus_address_topics",
    )
    max_calls: int = _setting(
        COUNT, "100000", "calls without an outcome yet in all", least=1, name="bus_max_calls"
    )
    max_calls_size: int = _setting(
        SIZE, "64MiB", "size of their data", least=65536, name="bus_max_calls_size"
    )
    max_data: int = _setting(
        SIZE, "45000", "largest data of a message on the bus", least=4096, name="bus_max_data"
    )
    timeout: float = _setting(
        DURATION,
        "3s",
        "time that a call has, where its publisher does not say",
        least=0.01,
        name="bus_timeout",
    )
    buffer_time: float = _setting(
        DURATION,
        "3s",
        "time that an unreliable message waits for a first subscriber",
        least=0.01,
        name="bus_buffer_time",
    )
    buffer_size: int = _setting(
        SIZE, "16MiB", "size of all that waits so", least=65536, name="bus_buffer_size"
    )
    origins: tuple[str, ...] = _setting(
        TEXT, (), "web origin whose pages may use the bus over HTTP", name="bus_origins"
    )
    compatible_addr: str = _setting(
        TEXT,
        "",
        "address for clients of the predecessor's bus, as 127.0.0.1:8082; they name no user, so "
        "not with --auth; empty turns it off",
        name="bus_compatible_addr",
    )
    token: str = _setting(
        TEXT, "", "token that HTTP requests to the bus must bear", secret=hide, name="bus_token"
    )
    get: str = _setting(
        choice("on", "off"), "off", "publish by GET as well; for development only", name="bus_get"
    )


@dataclass(frozen=True)
class NodeRoomsSettings:
    """Rooms and matches."""

    offered: str = _setting(
        choice("on", "off"), "off", "rooms and matches of this node's sessions", name="rooms"
    )
    rate: float = _setting(
        NUMBER,
        "20",
        "requests to the rooms a second of one session",
        reload=True,
        name="rooms_rate",
    )
    create: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "room that sessions may make, as a pattern",
        reload=True,
        name="rooms_create",
    )
    join: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "room that sessions may join, as a pattern",
        reload=True,
        name="rooms_join",
    )
    match: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "mode in which sessions may wait for a match, as a pattern",
        reload=True,
        name="rooms_match",
    )
    permissions: tuple[str, ...] = _setting(
        TEXT,
        (),
        "what some users may too, as 'bank join bank.>'; needs --auth",
        reload=True,
        name="rooms_permissions",
    )
    max_rooms: int = _setting(COUNT, "1000", "rooms at once", least=1, name="rooms_max")
    members: int = _setting(COUNT, "1000", "members of one room", least=1, name="rooms_members")
    user_rooms: int = _setting(
        COUNT, "10", "rooms at once that one user made; needs --auth", name="rooms_user_max"
    )
    user_connections: int = _setting(
        COUNT,
        "16",
        "connections of one user in a room; needs --auth",
        name="rooms_user_connections",
    )
    address_rooms: int = _setting(
        COUNT, "100", "rooms at once that one address made", name="rooms_address_max"
    )
    address_members: int = _setting(
        COUNT, "500", "members of rooms from one address", name="rooms_address_members"
    )
    address_waiting: int = _setting(
        COUNT,
        "100",
        "players of one address who wait for a match",
        name="rooms_address_waiting",
    )
    max_data: int = _setting(
        SIZE, "4KiB", "largest data that a member may say", least=64, name="rooms_max_data"
    )
    grace: float = _setting(
        DURATION,
        "30s",
        "time that a member without a connection has to come back",
        name="rooms_grace",
    )


@dataclass(frozen=True)
class ProcessSettings:
    """The process itself."""

    shutdown_timeout: float = _setting(
        DURATION, "30s", "longest time a stop may take", least=1, reload=True
    )
    log_level: str = _setting(
        choice("debug", "info", "warn", "error"), "info", "least level that is logged", reload=True
    )
    log_format: str = _setting(choice("json", "text"), "json", "form of the log")
    config: str = _setting(TEXT, "", "file with settings, YAML or JSON")


@dataclass(frozen=True)
class Settings:
    """Every setting of the daemon. Durations are in seconds, sizes in bytes; where it is
    not said otherwise, 0 turns a limit off.
    """

    listen: ListenSettings = ListenSettings()
    storage: StorageSettings = StorageSettings()
    log: LogSettings = LogSettings()
    jobs: JobSettings = JobSettings()
    rates: RateSettings = RateSettings()
    logins: NodeLoginSettings = NodeLoginSettings()
    limits: LimitSettings = LimitSettings()
    submissions: SubmissionSettings = SubmissionSettings()
    bus: NodeBusSettings = NodeBusSettings()
    rooms: NodeRoomsSettings = NodeRoomsSettings()
    process: ProcessSettings = ProcessSettings()


class _SettingPlace(NamedTuple):
    """Where a setting is: the name of its group, and its field there."""

    group: str
    field: Field[Any]


#: Every setting by its flat name, in the order in which they are shown.
_PLACES = {
    f.metadata["name"] or f.name: _SettingPlace(group.name, f)
    for group in fields(Settings)
    for f in fields(getattr(Settings, group.name))
}


def declared() -> dict[str, Field[Any]]:
    """Return the fields of all groups by the flat names of the settings."""
    return {name: place.field for name, place in _PLACES.items()}


def value_of(settings: Settings, name: str) -> Any:
    """Return the value of a setting by its flat name."""
    group, found = _PLACES[name]
    return getattr(getattr(settings, group), found.name)


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return settings in which some, by their flat names, have other values."""
    changed: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, found = _PLACES[name]
        changed.setdefault(group, {})[found.name] = value
    groups = {group: replace(getattr(settings, group), **new) for group, new in changed.items()}
    return replace(settings, **groups)


def reloadable() -> list[str]:
    """Return the names of the settings that need no restart."""
    return [name for name, f in declared().items() if f.metadata["reload"]]


def repeatable(f: Field[Any]) -> bool:
    """Say whether a setting may be given several times."""
    return isinstance(f.default, tuple)


def shown(settings: Settings) -> dict[str, str]:
    """Return every value as text by its flat name, secrets masked."""
    values = {}
    for name, f in declared().items():
        value, kind = value_of(settings, name), f.metadata["kind"]
        several = value if repeatable(f) else [kind.show(value)]
        values[name] = ", ".join(map(f.metadata["secret"], several))
    return values


__all__ = [
    "JobSettings",
    "LimitSettings",
    "ListenSettings",
    "LogSettings",
    "NodeBusSettings",
    "NodeLoginSettings",
    "NodeRoomsSettings",
    "ProcessSettings",
    "RateSettings",
    "Settings",
    "StorageSettings",
    "SubmissionSettings",
    "declared",
    "reloadable",
    "repeatable",
    "shown",
    "value_of",
    "with_values",
]
