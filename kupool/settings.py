"""Settings: one frozen object, made of defaults < file < ``KUP_*`` < flags.

Every setting is declared once, as a field of :class:`Settings`. An error names the key
and where its value came from.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple

from kupool.kinds import COUNT, DURATION, NUMBER, SIZE, TEXT, ValueKind, choice
from kupool.masking import hide, mask
from kupool.settings_file import read_mapping

ENV_PREFIX = "KUP_"

#: What bounds the stream in RabbitMQ, which has it from when it was made.
STREAM_BOUNDS = frozenset(("log_retention", "log_max_size"))

#: Settings that older releases had, and what to do now.
GONE = {
    "allocator": "remove it, as Python's own allocator is used now; for another one, "
    "see PYTHONMALLOC in docs/operations.md"
}


class SettingError(ValueError):
    """A setting has a value that it cannot have; names the setting and its source."""


def _setting(
    kind: ValueKind,
    default: str | tuple[str, ...],
    doc: str,
    *,
    least: float | None = None,
    secret: Callable[[str], str] = str,
    reload: bool = False,
) -> Any:
    """Declare a setting. ``least`` is the smallest value it may have, ``secret`` returns a
    value as it may be shown; one with ``reload`` takes effect when the daemon is told to
    read its file again.
    """
    metadata = {"kind": kind, "doc": doc, "least": least, "secret": secret, "reload": reload}
    value = default if isinstance(default, tuple) else kind.parse(default)
    return field(default=value, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Every setting of the daemon. Durations are in seconds, sizes in bytes; where it is
    not said otherwise, 0 turns a limit off.
    """

    # where it listens and what it speaks
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
    # where it keeps things
    data: str = _setting(TEXT, "./kupool-data", "folder of the SQLite files")
    store: str = _setting(choice("sqlite", "memory", "pg"), "sqlite", "where counts are kept")
    pg_dsn: str = _setting(TEXT, "", "PostgreSQL connection string", secret=mask)
    mq: str = _setting(
        choice("sqlite", "memory", "rabbit"), "sqlite", "where the submission log is kept"
    )
    mq_url: str = _setting(
        TEXT, "", "RabbitMQ address, as amqp://user:password@host/vhost,host2,host3", secret=mask
    )
    mq_queue: str = _setting(TEXT, "kupool_submissions", "name of the RabbitMQ queue")
    mq_kind: str = _setting(choice("quorum", "classic"), "quorum", "kind of the RabbitMQ queue")
    mq_timeout: float = _setting(
        DURATION, "2s", "time that RabbitMQ has to confirm a batch before it is spooled", least=0.05
    )
    spool: str = _setting(
        choice("on", "off"), "on", "keep batches here while RabbitMQ is away; off refuses them"
    )
    spool_max_size: int = _setting(SIZE, "1GiB", "size of what is kept so", least=65536)
    # jobs
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
    # how often
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
    user_rate: float = _setting(NUMBER, "0", "accepted submissions a second of one user")
    ip_rate: float = _setting(NUMBER, "0", "accepted submissions a second of one address")
    # connections
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
    # making submissions durable, and counting them
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
    # the bus
    bus: str = _setting(
        choice("local", "rabbit", "off"),
        "local",
        "message bus of the sessions: of this node, or of all nodes by RabbitMQ",
    )
    bus_url: str = _setting(
        TEXT, "", "RabbitMQ address for the bus; by default that of --mq-url", secret=mask
    )
    bus_publish: tuple[str, ...] = _setting(
        TEXT, (">",), "topic that sessions may publish to, as a pattern; never one in kupool.>"
    )
    bus_subscribe: tuple[str, ...] = _setting(
        TEXT,
        (">", "kupool.job"),
        "topic that sessions may subscribe to, as a pattern; one in kupool.> has to begin so here",
    )
    bus_operators: tuple[str, ...] = _setting(
        TEXT, (), "user who may use all topics, and look at the bus; needs --auth"
    )
    bus_direct: tuple[str, ...] = _setting(
        TEXT, (), "topic, as a pattern, where a message with a key is for the key's owners alone"
    )
    bus_rate: float = _setting(
        NUMBER, "100", "requests to the bus a second of one session", reload=True
    )
    bus_topics: int = _setting(
        COUNT, "100", "topics that one session may subscribe to", least=1, reload=True
    )
    bus_calls: int = _setting(
        COUNT, "1000", "publishes of one session without an outcome yet", least=1, reload=True
    )
    bus_max_calls: int = _setting(COUNT, "100000", "calls without an outcome yet in all", least=1)
    bus_max_calls_size: int = _setting(SIZE, "64MiB", "size of their data", least=65536)
    bus_max_data: int = _setting(SIZE, "45000", "largest data of a message on the bus", least=4096)
    bus_timeout: float = _setting(
        DURATION, "3s", "time that a call has, where its publisher does not say", least=0.01
    )
    bus_buffer_time: float = _setting(
        DURATION, "3s", "time that an unreliable message waits for a first subscriber", least=0.01
    )
    bus_buffer_size: int = _setting(SIZE, "16MiB", "size of all that waits so", least=65536)
    bus_origins: tuple[str, ...] = _setting(
        TEXT, (), "web origin whose pages may use the bus over HTTP"
    )
    bus_token: str = _setting(
        TEXT, "", "token that HTTP requests to the bus must bear", secret=hide
    )
    bus_get: str = _setting(
        choice("on", "off"), "off", "publish by GET as well; for development only"
    )
    # rooms
    rooms: str = _setting(choice("on", "off"), "off", "rooms and matches of this node's sessions")
    rooms_rate: float = _setting(
        NUMBER, "20", "requests to the rooms a second of one session", reload=True
    )
    rooms_max: int = _setting(COUNT, "1000", "rooms at once", least=1)
    rooms_members: int = _setting(COUNT, "1000", "members of one room", least=1)
    rooms_max_data: int = _setting(SIZE, "4KiB", "largest data that a member may say", least=64)
    rooms_grace: float = _setting(
        DURATION, "30s", "time that a member without a connection has to come back"
    )
    # the process
    shutdown_timeout: float = _setting(
        DURATION, "30s", "longest time a stop may take", least=1, reload=True
    )
    log_level: str = _setting(
        choice("debug", "info", "warn", "error"), "info", "least level that is logged", reload=True
    )
    log_format: str = _setting(choice("json", "text"), "json", "form of the log")
    config: str = _setting(TEXT, "", "file with settings, YAML or JSON")


class Loaded(NamedTuple):
    """Settings, and for each the place its value came from."""

    settings: Settings
    sources: Mapping[str, str]


def declared() -> dict[str, Field[Any]]:
    """Return the fields of :class:`Settings` by name."""
    return {f.name: f for f in fields(Settings)}


def reloadable() -> list[str]:
    """Return the names of the settings that need no restart."""
    return [name for name, f in declared().items() if f.metadata["reload"]]


def repeatable(f: Field[Any]) -> bool:
    """Say whether a setting may be given several times."""
    return isinstance(f.default, tuple)


def flag_name(name: str) -> str:
    """Return the flag of a setting, without its dashes."""
    return name.replace("_", "-")


def no_longer(name: str) -> str:
    """Say that one of the settings in :data:`GONE` is gone, and what to do."""
    return f"no such setting any more: {GONE[name]}"


def load(flags: Mapping[str, str | Sequence[str]], environ: Mapping[str, str]) -> Loaded:
    """Return the settings that flags, environment, file and defaults give, in this order.

    ``flags`` holds the values by the name of the setting. Raises :class:`SettingError`.
    """
    known = declared()
    for name in GONE:
        variable = ENV_PREFIX + name.upper()
        if name in flags:
            raise SettingError(f"{name}: {no_longer(name)} (from flag --{flag_name(name)})")
        if variable in environ:
            raise SettingError(f"{name}: {no_longer(name)} (from environment {variable})")
    path = flags.get("config") or environ.get(ENV_PREFIX + "CONFIG") or ""
    in_file = read_file(str(path)) if path else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, f in known.items():
        given: object
        variable = ENV_PREFIX + name.upper()
        if name in flags:
            source, given = f"flag --{flag_name(name)}", flags[name]
        elif variable in environ:
            source, given = f"environment {variable}", environ[variable]
        elif name in in_file:
            source, given = f"file {path}", in_file[name]
        else:
            sources[name] = "default"
            continue
        values[name] = _value(f, given, source)
        sources[name] = source
    return Loaded(Settings(**values), sources)


def _value(f: Field[Any], given: object, source: str) -> Any:
    try:
        if repeatable(f):
            several = given.split(",") if isinstance(given, str) else given
            if not isinstance(several, list | tuple):
                raise ValueError(f"expected a list, found a {type(given).__name__}")
            return tuple(_text(one).strip() for one in several if _text(one).strip())
        if isinstance(given, bool):  # which is what YAML takes these words for
            word = "on" if given else "off"
            given = word if word in f.metadata["kind"].hint.split("|") else given
        text = _text(given)
        value = f.metadata["kind"].parse(text)
        least = f.metadata["least"]
        if least is not None and value < least:
            shown = f.metadata["kind"].show(least)
            raise ValueError(f"{text!r} is less than {shown}")
        return value
    except ValueError as error:
        raise SettingError(f"{f.name}: {error} (from {source})") from None


def _text(given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        # Without the value, which may be a secret.
        raise ValueError(f"expected text or a number, found a {type(given).__name__}")
    return str(given)


def read_file(path: str) -> dict[str, object]:
    """Return the settings in a YAML or JSON file; raises :class:`SettingError`."""
    try:
        found = read_mapping(path)
    except ValueError as error:
        raise SettingError(f"config: {path}: {error}") from None
    known = [name for name in declared() if name != "config"]
    for key in found:
        if key in GONE:
            raise SettingError(f"{key}: {no_longer(str(key))} (from file {path})")
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise SettingError(f"{key}: no such setting{hint} (from file {path})")
    return found


def shown(settings: Settings) -> dict[str, str]:
    """Return every value as text, secrets masked."""
    values = {}
    for name, f in declared().items():
        value, kind = getattr(settings, name), f.metadata["kind"]
        several = value if repeatable(f) else [kind.show(value)]
        values[name] = ", ".join(map(f.metadata["secret"], several))
    return values


def changes(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """Return the names that differ: those that can be applied now, and the rest."""
    differ = [name for name in declared() if getattr(old, name) != getattr(new, name)]
    now = set(reloadable())
    if old.mq == "rabbit":
        now -= STREAM_BOUNDS
    return [n for n in differ if n in now], [n for n in differ if n not in now]


__all__ = [
    "ENV_PREFIX",
    "GONE",
    "Loaded",
    "SettingError",
    "Settings",
    "changes",
    "declared",
    "flag_name",
    "load",
    "no_longer",
    "read_file",
    "reloadable",
    "repeatable",
    "shown",
]
