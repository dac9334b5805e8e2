"""Every setting, declared once: its kind, its default, and what it is for.

They are in groups, one for each part of the daemon. Flags, environment variables and files use
flat names (:mod:`kupool.settings.flat_names`): the name of the field, or the ``name`` declared with
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kupool.kinds import (
    COUNT,
    DURATION,
    MODE,
    NUMBER,
    RULE,
    SIZE,
    TEXT,
    ValueKind,
    choice,
)
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
        "address on which the daemon accepts clients: :8080 (every IPv4 address), [::]:8080 "
        "(IPv6, and IPv4 on most systems), host:8080, or a Twisted endpoint string",
    )
    framing: str = _setting(
        choice("auto", "frame", "int32", "line"),
        "auto",
        "framing of the addresses of --addr; auto detects it from the first byte that a "
        "client sends",
    )
    transport: str = _setting(
        choice("direct", "stock"),
        "direct",
        "TCP transport: KuPool's own (direct) or Twisted's (stock); TLS, Unix sockets and "
        "other endpoints always use Twisted's",
    )
    http: str = _setting(
        TEXT,
        "tcp:8081:interface=127.0.0.1",
        "address of the HTTP API and of the WebSocket; an empty value turns both off",
    )
    ws_origins: tuple[str, ...] = _setting(
        TEXT,
        (),
        "web origin whose pages may open the WebSocket, besides pages from the daemon's own "
        "host; * allows every page",
    )
    http_hosts: tuple[str, ...] = _setting(
        TEXT,
        (),
        "host name, besides localhost, under which the HTTP API accepts requests that make changes",
    )
    http_trusted_proxies: tuple[str, ...] = _setting(
        TEXT,
        (),
        "address or network of a reverse proxy in front of the HTTP API; its X-Forwarded-For "
        "header names the client, for limits and bans too",
    )
    unix_mode: int = _setting(
        MODE,
        "666",
        "permissions of the Unix sockets that the daemon listens on: 666 lets every user of the "
        "machine connect, 660 the daemon's user and group; mode= in an address overrides it",
    )
    proxy_trusted: tuple[str, ...] = _setting(
        TEXT,
        ("127.0.0.0/8", "::1", "unix"),
        "proxy that may send PROXY headers on haproxy: addresses; an IP address, a network, "
        "or unix for Unix sockets",
    )
    http_max_connections: int = _setting(
        COUNT,
        "2000",
        "maximum number of HTTP connections; above it, a new connection replaces the one "
        "that has waited longest for a request",
    )
    http_max_requests_per_ip: int = _setting(
        COUNT,
        "50",
        "maximum number of HTTP requests of one IP address that are answered at the same time; "
        "trusted proxies are exempt; 0: no limit",
    )
    http_max_requests: int = _setting(
        COUNT,
        "200",
        "maximum number of HTTP requests answered at the same time, not counting /health "
        "and /ready",
    )
    http_request_timeout: float = _setting(
        DURATION,
        "30s",
        "time within which an HTTP connection must send its next request; after that it is closed",
    )
    ws_max_connections: int = _setting(
        COUNT, "5000", "maximum number of WebSockets; each counts towards --max-connections too"
    )
    ws_ping_interval: float = _setting(
        DURATION,
        "30s",
        "interval between pings on a WebSocket; a WebSocket that does not answer is closed",
    )
    auth: tuple[str, ...] = _setting(
        TEXT,
        (),
        "password checker, for example file:/etc/kupool/passwd; --help-auth lists the "
        "kinds; without a checker any user name is accepted",
        secret=mask,
    )


@dataclass(frozen=True)
class StorageSettings:
    """Where the files are, and where counts and jobs are kept."""

    data: str = _setting(TEXT, "./kupool-data", "folder of the SQLite files")
    kind: str = _setting(
        choice("sqlite", "memory", "pg"),
        "sqlite",
        "where counts and jobs are kept: in an SQLite file, in memory (lost at exit) or in "
        "PostgreSQL (pg)",
        name="store",
    )
    pg_dsn: str = _setting(
        TEXT, "", "PostgreSQL connection string, needed by --store pg", secret=mask
    )


@dataclass(frozen=True)
class LogSettings:
    """Where the log of submissions is kept."""

    kind: str = _setting(
        choice("sqlite", "memory", "rabbit"),
        "sqlite",
        "where the submission log is kept: in an SQLite file, in memory (lost at exit) or "
        "in RabbitMQ (rabbit)",
        name="mq",
    )
    url: str = _setting(
        TEXT,
        "",
        "RabbitMQ address, needed by --mq rabbit: "
        "amqp://user:password@host/vhost,host2,host3; the hosts are tried in turn",
        secret=mask,
        name="mq_url",
    )
    queue: str = _setting(
        TEXT,
        "kupool_submissions",
        "name of the RabbitMQ queue; the names of the stream and of the dead-letter queue "
        "begin with it",
        name="mq_queue",
    )
    queue_kind: str = _setting(
        choice("quorum", "classic"), "quorum", "type of the RabbitMQ queue", name="mq_kind"
    )
    timeout: float = _setting(
        DURATION,
        "2s",
        "time that RabbitMQ has to confirm a batch before the batch goes to the spool",
        least=0.05,
        name="mq_timeout",
    )
    spool: str = _setting(
        choice("on", "off"),
        "on",
        "keep batches in spool.sqlite while RabbitMQ is unavailable; off refuses "
        "submissions instead",
    )
    spool_max_size: int = _setting(
        SIZE,
        "1GiB",
        "maximum size of the spool; while it is full, submissions are refused",
        least=65536,
    )


@dataclass(frozen=True)
class JobSettings:
    """When there are new jobs, and what is remembered of old ones."""

    interval: float = _setting(DURATION, "30s", "time between two jobs", least=0.01, reload=True)
    expire: float = _setting(
        DURATION,
        "0",
        "age at which a job expires, after which its submissions are rejected; 0: jobs "
        "never expire",
        reload=True,
    )
    history_window: float = _setting(
        DURATION,
        "10m",
        "age at which a job leaves the history, after which its submissions are rejected",
        least=1,
        reload=True,
    )
    history_jobs: int = _setting(
        COUNT,
        "1000",
        "maximum number of jobs in the history, including the current job",
        least=1,
        reload=True,
    )
    max_nonces: int = _setting(
        COUNT,
        "2000000",
        "maximum number of nonces remembered for all jobs; above it the oldest jobs are "
        "retired early",
        reload=True,
    )
    nonce_scope: str = _setting(
        choice("pool", "session"),
        "pool",
        "which sessions get the same server nonce: all of them (pool), or each session its "
        "own (session)",
    )
    duplicate_scope: str = _setting(
        choice("user", "session", "job"),
        "user",
        "where a client nonce must be unique for a job: among the sessions of one user "
        "(user), within one session (session) or among all sessions (job)",
    )


@dataclass(frozen=True)
class RateSettings:
    """How often sessions, users and addresses may submit."""

    submit_interval: float = _setting(
        DURATION, "1s", "minimum time between two accepted submissions of one session", reload=True
    )
    attempts_rate: float = _setting(
        NUMBER,
        "1",
        "rejected submissions per second that one session is allowed; above it every "
        "submission is answered 'Submission too frequent'",
        reload=True,
    )
    attempts_burst: float = _setting(
        NUMBER, "5", "rejected submissions that one session is allowed at once", reload=True
    )
    ban_score: float = _setting(
        NUMBER,
        "10000",
        "excess rejected submissions of one address, over all its sessions within --ban-time, at "
        "which the session is closed and the address is banned; 0: no bans",
        reload=True,
    )
    ban_time: float = _setting(
        DURATION,
        "60s",
        "how long a ban lasts, and over how long excess rejected submissions add up; 0: no bans",
        reload=True,
    )
    user_rate: float = _setting(
        NUMBER, "0", "accepted submissions per second that one user is allowed"
    )
    ip_rate: float = _setting(
        NUMBER, "0", "accepted submissions per second that one IP address is allowed"
    )
    attempts_pause: float = _setting(
        DURATION,
        "1s",
        "how long a session is not read after an excess rejected submission, once its address has "
        "a tenth of --ban-score; 0: never",
        reload=True,
    )


@dataclass(frozen=True)
class NodeLoginSettings:
    """How passwords are checked, and how many wrong ones are taken; for ``auth``."""

    timeout: float = _setting(
        DURATION,
        "10s",
        "maximum time that a checker of --auth takes; after that the client is told to try again",
        least=0.1,
        name="auth_timeout",
    )
    permissions: tuple[str, ...] = _setting(
        TEXT,
        (),
        "additional permission WHO ACTION PATTERN, where WHO is a user or @ and a role: 'bank "
        "subscribe bank.>', '@operator GET /stats'; kupool config --user shows what applies",
        reload=True,
    )
    http_secret: str = _setting(
        TEXT,
        "",
        "bearer token with which the HTTP API may be used as an admin; without it the daemon keeps "
        "one in the file http-secret of the data folder",
        secret=hide,
    )
    token_secret: str = _setting(
        TEXT,
        "",
        "secret that signs the tokens of logins over HTTP, at least 32 bytes; without it the "
        "daemon makes keys and keeps them in the data folder",
        secret=hide,
    )
    token_keys: tuple[str, ...] = _setting(
        TEXT,
        (),
        "PEM file with a public key (RSA or Ed25519); tokens that its owner signs are accepted",
    )
    token_lifetime: float = _setting(
        DURATION, "1h", "how long a token of a login over HTTP is valid", least=60
    )
    address_failures: float = _setting(
        NUMBER,
        "20",
        "failed logins per minute that one IP address is allowed; an IPv6 /64 network is one "
        "address",
        name="login_address_failures",
    )
    user_failures: float = _setting(
        NUMBER,
        "100",
        "failed logins per minute that are allowed for one user; addresses where the user has "
        "logged in before are exempt",
        name="login_user_failures",
    )
    delay: float = _setting(
        DURATION, "1s", "how long the answer to a wrong password is delayed", name="login_delay"
    )
    wait: float = _setting(
        DURATION,
        "15s",
        "how long a login waits for other logins of its address and its user; after that the "
        "client is told to try again",
        name="login_wait",
    )


@dataclass(frozen=True)
class LimitSettings:
    """What one connection may take, and how many there may be."""

    max_connections: int = _setting(
        COUNT, "10000", "maximum number of client connections", reload=True
    )
    max_connections_per_ip: int = _setting(
        COUNT,
        "5000",
        "maximum number of client connections from one IP address; an IPv6 /64 network is one "
        "address, and trusted proxies are exempt; 0: no limit",
        reload=True,
    )
    max_unauthorized: int = _setting(
        COUNT,
        "2500",
        "number of connections that have not authorized above which an address gets new ones only "
        "while it has fewer than 16 of them; 0: no limit",
        reload=True,
    )
    max_unauthorized_per_ip: int = _setting(
        COUNT,
        "1000",
        "maximum number of connections of one IP address that have not authorized; trusted proxies "
        "are exempt; 0: no limit",
        reload=True,
    )
    accept_pace: float = _setting(
        NUMBER,
        "500",
        "client connections that are accepted per second; further ones wait in the system's queue, "
        "so that a flood of them does not delay others; 0: no limit",
        reload=True,
    )
    refusals_per_ip: float = _setting(
        NUMBER,
        "10",
        "refused connections and logins of one IP address per second that are told the reason, ten "
        "times as many at once; beyond that its new connections are closed without a word; trusted "
        "proxies are exempt; 0: no limit",
        reload=True,
    )
    new_names: float = _setting(
        NUMBER,
        "600",
        "user names per minute that may authorize and are new; 10000 of them, or --max-connections "
        "if that is more, may come at once; 0: no limit",
    )
    new_names_per_ip: float = _setting(
        NUMBER,
        "60",
        "new user names per minute from one IP address; 5000 of them, or --max-connections-per-ip "
        "if that is more, may come at once; trusted proxies are exempt; 0: no limit",
    )
    known_users: int = _setting(
        COUNT,
        "20000",
        "users whose totals since the start of the daemon are kept after their last session has "
        "ended; of more, those who left first are forgotten",
    )
    max_frame: int = _setting(SIZE, "64KiB", "maximum size of a message", least=64, reload=True)
    first_frame: int = _setting(
        SIZE,
        "1KiB",
        "maximum size of a message from a client that has not authorized yet",
        least=64,
        reload=True,
    )
    authorize_timeout: float = _setting(
        DURATION,
        "10s",
        "time within which a new connection must authorize; after that it is closed",
        reload=True,
    )
    idle_timeout: float = _setting(
        DURATION,
        "180s",
        "time without data from a client after which its connection is closed",
        reload=True,
    )
    write_timeout: float = _setting(
        DURATION,
        "10s",
        "time within which a client must read something when --outbox-limit is reached; "
        "after that its connection is closed",
        least=0.1,
        reload=True,
    )
    max_errors: int = _setting(
        COUNT, "10", "number of malformed messages after which a connection is closed", reload=True
    )
    outbox_limit: int = _setting(
        SIZE,
        "256KiB",
        "size of the unread answers of one connection above which the daemon stops reading "
        "from that connection (backpressure)",
        least=4096,
        reload=True,
    )


@dataclass(frozen=True)
class SubmissionSettings:
    """How submissions become durable and are counted, and how long both are kept."""

    batch_delay: float = _setting(
        DURATION, "5ms", "maximum time that a batch stays open before it is written to the log"
    )
    batch_size: int = _setting(
        COUNT,
        "500",
        "number of submissions at which a batch is written to the log at once",
        least=1,
    )
    batches_in_flight: int = _setting(
        COUNT,
        "100",
        "maximum number of batches that wait for the log; above it submissions are refused",
        least=1,
    )
    flush_interval: float = _setting(
        DURATION, "1s", "interval between commits of counts to the store", least=0.01
    )
    log_peers: str = _setting(
        choice("on", "off"),
        "off",
        "whether the log has the session and the address of each submission; on costs up to 7 % "
        "more CPU for each",
    )
    memory_log_limit: int = _setting(
        SIZE,
        "64MiB",
        "maximum size of the log with --mq memory; while it is full, submissions are refused",
        least=65536,
    )
    log_retention: float = _setting(
        DURATION,
        "168h",
        "age at which counted entries are deleted from the log; 0: no limit by age",
        reload=True,
    )
    log_max_size: int = _setting(
        SIZE,
        "10GiB",
        "size of the log above which the oldest counted entries are deleted; 0: no limit by size",
        reload=True,
    )
    keep_minutes: float = _setting(
        DURATION,
        "720h",
        "age at which per-minute counts are rolled up into hours and rejections are "
        "deleted; 0: never",
        reload=True,
    )
    keep_hours: float = _setting(
        DURATION,
        "17520h",
        "age at which per-hour counts are rolled up into days; 0: never",
        reload=True,
    )


@dataclass(frozen=True)
class NodeBusSettings:
    """The message bus: which one, who may do what on it, and how much."""

    kind: str = _setting(
        choice("local", "rabbit", "off"),
        "local",
        "message bus of the sessions: within this daemon (local), across daemons over "
        "RabbitMQ (rabbit), or none (off)",
        name="bus",
    )
    url: str = _setting(
        TEXT,
        "",
        "RabbitMQ address of the bus with --bus rabbit; by default that of --mq-url",
        secret=mask,
        name="bus_url",
    )
    publish: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "topic pattern that every session may publish to; topics under kupool. are always refused",
        reload=True,
        name="bus_publish",
    )
    subscribe: tuple[str, ...] = _setting(
        TEXT,
        (">", "kupool.job"),
        "topic pattern that every session may subscribe to; only a pattern that begins with "
        "kupool. permits topics under kupool",
        reload=True,
        name="bus_subscribe",
    )
    permissions: tuple[str, ...] = _setting(
        TEXT,
        (),
        "additional permission for named users, for example 'bank subscribe bank.>'; needs --auth",
        reload=True,
        name="bus_permissions",
    )
    operators: tuple[str, ...] = _setting(
        TEXT,
        (),
        "user who may use all topics without a rate limit and read the status of the bus; "
        "needs --auth",
        reload=True,
        name="bus_operators",
    )
    direct: tuple[str, ...] = _setting(
        TEXT,
        (),
        "topic pattern on which a message with a key goes only to subscribers that declared "
        "the key, if there are any",
        name="bus_direct",
    )
    rate: float = _setting(
        NUMBER,
        "100",
        "bus requests per second that one session is allowed",
        reload=True,
        name="bus_rate",
    )
    topics: int = _setting(
        COUNT,
        "100",
        "maximum number of topics that one session may subscribe to",
        least=1,
        reload=True,
        name="bus_topics",
    )
    calls: int = _setting(
        COUNT,
        "1000",
        "maximum number of publishes of one session that have no outcome yet",
        least=1,
        reload=True,
        name="bus_calls",
    )
    user_calls: int = _setting(
        COUNT,
        "5000",
        "maximum number of publishes of one user that have no outcome yet; needs --auth",
        reload=True,
        name="bus_user_calls",
    )
    user_calls_size: int = _setting(
        SIZE,
        "8MiB",
        "maximum total data size of the publishes of one user that have no outcome yet; "
        "needs --auth",
        reload=True,
        name="bus_user_calls_size",
    )
    user_topics: int = _setting(
        COUNT,
        "10000",
        "maximum number of topics that one user may subscribe to; needs --auth",
        reload=True,
        name="bus_user_topics",
    )
    address_calls: int = _setting(
        COUNT,
        "20000",
        "maximum number of publishes from one IP address that have no outcome yet",
        reload=True,
        name="bus_address_calls",
    )
    address_calls_size: int = _setting(
        SIZE,
        "16MiB",
        "maximum total data size of the publishes from one IP address that have no outcome yet",
        reload=True,
        name="bus_address_calls_size",
    )
    address_topics: int = _setting(
        COUNT,
        "20000",
        "maximum number of topics that one IP address may subscribe to",
        reload=True,
        name="bus_address_topics",
    )
    max_calls: int = _setting(
        COUNT,
        "100000",
        "maximum number of calls of all sessions that have no outcome yet",
        least=1,
        name="bus_max_calls",
    )
    max_calls_size: int = _setting(
        SIZE,
        "64MiB",
        "maximum total data size of the calls of all sessions that have no outcome yet",
        least=65536,
        name="bus_max_calls_size",
    )
    max_data: int = _setting(
        SIZE, "45000", "maximum data size of one bus message", least=4096, name="bus_max_data"
    )
    timeout: float = _setting(
        DURATION,
        "3s",
        "time that a call has when its publisher sets no timeout",
        least=0.01,
        name="bus_timeout",
    )
    buffer_time: float = _setting(
        DURATION,
        "3s",
        "time that an unreliable message waits for its first subscriber",
        least=0.01,
        name="bus_buffer_time",
    )
    buffer_size: int = _setting(
        SIZE,
        "16MiB",
        "maximum total data size of the unreliable messages that wait for a first subscriber",
        least=65536,
        name="bus_buffer_size",
    )
    origins: tuple[str, ...] = _setting(
        TEXT, (), "web origin whose pages may use the bus over HTTP", name="bus_origins"
    )
    compatible_addr: str = _setting(
        TEXT,
        "",
        "address for clients of the predecessor's bus, for example 127.0.0.1:8082; these "
        "clients cannot authenticate, so it is refused together with --auth; an empty value "
        "turns it off",
        name="bus_compatible_addr",
    )
    token: str = _setting(
        TEXT,
        "",
        "bearer token that HTTP requests to the bus must send",
        secret=hide,
        name="bus_token",
    )
    get: str = _setting(
        choice("on", "off"),
        "off",
        "also publish to the bus by HTTP GET; for development only",
        name="bus_get",
    )


@dataclass(frozen=True)
class NodeRoomsSettings:
    """Rooms and matches."""

    offered: str = _setting(
        choice("on", "off"),
        "off",
        "offer rooms and matches to the sessions; with --bus rabbit, the rooms of all nodes",
        name="rooms",
    )
    rate: float = _setting(
        NUMBER,
        "20",
        "room and match requests per second that one session is allowed",
        reload=True,
        name="rooms_rate",
    )
    create: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "pattern of the room names that every session may create",
        reload=True,
        name="rooms_create",
    )
    join: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "pattern of the room names that every session may join",
        reload=True,
        name="rooms_join",
    )
    match: tuple[str, ...] = _setting(
        TEXT,
        (">",),
        "pattern of the modes in which every session may wait for a match",
        reload=True,
        name="rooms_match",
    )
    permissions: tuple[str, ...] = _setting(
        TEXT,
        (),
        "additional permission for named users, for example 'bank join bank.>'; needs --auth",
        reload=True,
        name="rooms_permissions",
    )
    max_rooms: int = _setting(COUNT, "1000", "maximum number of rooms", least=1, name="rooms_max")
    members: int = _setting(
        COUNT, "1000", "maximum number of members in one room", least=1, name="rooms_members"
    )
    user_rooms: int = _setting(
        COUNT,
        "10",
        "maximum number of rooms that one user has created; needs --auth",
        name="rooms_user_max",
    )
    user_connections: int = _setting(
        COUNT,
        "16",
        "maximum number of connections that one user has in a room; needs --auth",
        name="rooms_user_connections",
    )
    address_rooms: int = _setting(
        COUNT,
        "100",
        "maximum number of rooms that users from one IP address have created",
        name="rooms_address_max",
    )
    address_members: int = _setting(
        COUNT,
        "500",
        "maximum number of room members from one IP address, in all rooms together",
        name="rooms_address_members",
    )
    address_waiting: int = _setting(
        COUNT,
        "100",
        "maximum number of players from one IP address who wait for a match",
        name="rooms_address_waiting",
    )
    max_data: int = _setting(
        SIZE, "4KiB", "maximum data size of one message to a room", least=64, name="rooms_max_data"
    )
    grace: float = _setting(
        DURATION,
        "30s",
        "time that a room member without a connection has to reconnect before leaving the room",
        name="rooms_grace",
    )


@dataclass(frozen=True)
class NodeTopicsSettings:
    """Topics: where they are kept, and how much of them there may be."""

    kind: str = _setting(
        choice("auto", "off", "memory", "sqlite", "rabbit"),
        "auto",
        "where topics are kept: in an SQLite file, in memory (lost at exit), in RabbitMQ (rabbit), "
        "or nowhere (off); auto is rabbit with --mq rabbit, memory if the daemon keeps nothing on "
        "disk, and sqlite otherwise",
        name="topics",
    )
    advertise: str = _setting(
        TEXT,
        "",
        "HOST:PORT of this daemon that other daemons tell clients whose consumer group it leads, "
        "with topics in RabbitMQ; by default the first of --addr",
        name="topics_advertise",
    )
    pg_dsn: str = _setting(
        TEXT,
        "",
        "connection string of the PostgreSQL that daemons with the same topics in RabbitMQ share; "
        "by default that of --store pg",
        secret=mask,
        name="topics_pg_dsn",
    )
    prefix: str = _setting(
        TEXT,
        "",
        "beginning of the names of the streams of topics in RabbitMQ; by default kupool.topic, or "
        "QUEUE.topic with another --mq-queue QUEUE",
        name="topics_prefix",
    )
    most: int = _setting(COUNT, "1000", "maximum number of topics", least=1, name="max_topics")
    groups: int = _setting(
        COUNT,
        "1000",
        "maximum number of consumer groups with members",
        least=1,
        name="topics_max_groups",
    )
    user_groups: int = _setting(
        COUNT,
        "100",
        "maximum number of consumer groups with members that one user has made",
        name="topics_user_groups",
        least=1,
    )
    members: int = _setting(
        COUNT,
        "1000",
        "maximum number of members of one consumer group",
        least=1,
        name="topics_max_members",
    )
    group_partitions: int = _setting(
        COUNT,
        "10000",
        "maximum number of partitions of the topics that one consumer group reads",
        least=1,
        name="topics_group_partitions",
    )
    transactions: int = _setting(
        COUNT,
        "1000",
        "maximum number of transactions at the same time",
        least=1,
        name="topics_max_transactions",
    )
    user_transactions: int = _setting(
        COUNT,
        "100",
        "maximum number of transactions of one user at the same time",
        least=1,
        name="topics_user_transactions",
    )
    transaction_timeout: float = _setting(
        DURATION,
        "60s",
        "time after which a transaction that was not committed is aborted",
        least=1,
        name="topics_transaction_timeout",
    )
    rate: float = _setting(
        NUMBER,
        "1000",
        "requests to topics and groups per second that one session is allowed",
        reload=True,
        name="topics_rate",
    )
    fetch_size: int = _setting(
        SIZE,
        "1MiB",
        "maximum size of the records in one answer to a fetch; the first batch is returned "
        "whatever its size",
        least=1024,
        name="topics_fetch_size",
    )
    fetches: int = _setting(
        COUNT,
        "1000",
        "maximum number of fetches of one session that have no answer yet",
        least=1,
        reload=True,
        name="topics_fetches",
    )
    fetches_size: int = _setting(
        SIZE,
        "64MiB",
        "maximum size of the records that the fetches of one session without an answer ask for, "
        "together with the answers that it has not read yet",
        least=1024,
        reload=True,
        name="topics_fetches_size",
    )
    produce_size: int = _setting(
        SIZE,
        "2MiB",
        "maximum size of a request over HTTP that writes records",
        least=65536,
        name="topics_produce_size",
    )
    polls: int = _setting(
        COUNT,
        "500",
        "maximum number of fetches over HTTP that wait for records at the same time; they do not "
        "count towards --http-max-requests",
        least=1,
        name="topics_polls",
    )
    polls_per_ip: int = _setting(
        COUNT,
        "100",
        "maximum number of fetches over HTTP from one IP address that wait for records at the same "
        "time; trusted proxies are exempt; 0: no limit",
        name="topics_polls_per_ip",
    )
    memory: int = _setting(
        SIZE,
        "256MiB",
        "maximum size of all topics with --topics memory; while they are full, nothing is written",
        least=65536,
        name="topics_memory",
    )
    cleanup_interval: float = _setting(
        DURATION,
        "1h",
        "interval between two removals of records that are older or larger than their topic keeps",
        least=1,
        reload=True,
        name="topics_cleanup_interval",
    )
    events: str = _setting(
        choice("on", "off"),
        "on",
        "whether the daemon writes its events to the topic events: jobs, sessions, bans, problems, "
        "reloads",
    )


@dataclass(frozen=True)
class NodeLiveSettings:
    """Live channels: what there is to subscribe to, and how much of it."""

    offered: str = _setting(
        choice("on", "off"),
        "on",
        "whether clients may subscribe to live channels, over our own protocol, /events and the "
        "Centrifuge protocol",
        name="live",
    )
    rules: tuple[str, ...] = _setting(
        RULE,
        (),
        "channels besides those of the pool, and what they can do: a pattern and options, for "
        "example 'news.* history_size=10 presence=on'; in a file also a mapping",
        name="live_rules",
        reload=True,
    )
    history_size: int = _setting(
        COUNT,
        "0",
        "number of messages that a channel keeps if its rule does not say; 0: none",
        name="live_history_size",
        reload=True,
    )
    history_time: float = _setting(
        DURATION,
        "5m",
        "time for which a channel keeps messages if its rule does not say; 0: no limit",
        name="live_history_time",
        reload=True,
    )
    pool_interval: float = _setting(
        DURATION,
        "5s",
        "time between two snapshots of the pool on the channel pool",
        least=0.1,
        name="live_pool_interval",
        reload=True,
    )
    rate: float = _setting(
        NUMBER,
        "100",
        "requests to live channels per second that one session is allowed",
        name="live_rate",
        reload=True,
    )
    device_rate: int = _setting(
        COUNT,
        "100",
        "messages of one device in one channel in any second; emergencies pass; 0: no limit",
        name="live_device_rate",
        reload=True,
    )
    devices: int = _setting(
        COUNT,
        "10000",
        "maximum number of devices that are limited at a time; more are refused",
        least=1,
        name="live_max_devices",
    )
    overload_lag: float = _setting(
        DURATION,
        "30ms",
        "delay of the daemon's event loop at which live channels enter degraded mode; 0: none",
        name="live_overload_lag",
        reload=True,
    )
    overload_backlog: int = _setting(
        COUNT,
        "1000",
        "number of waiting messages at which live channels enter degraded mode; 0: none",
        name="live_overload_backlog",
        reload=True,
    )
    overload_clients: int = _setting(
        COUNT,
        "10",
        "number of sessions with more requests than can be handled at which live channels enter "
        "degraded mode; 0: none",
        name="live_overload_clients",
        reload=True,
    )
    overload_enter: float = _setting(
        DURATION,
        "1s",
        "time that the overload has to last before degraded mode",
        name="live_overload_enter",
        reload=True,
    )
    overload_leave: float = _setting(
        DURATION,
        "5s",
        "time that the load has to be below half of the limits before degraded mode ends",
        name="live_overload_leave",
        reload=True,
    )
    held: int = _setting(
        COUNT,
        "1000",
        "maximum number of messages that wait to be merged or sent in batches; more are refused",
        least=1,
        name="live_max_held",
    )
    batch_interval: float = _setting(
        DURATION,
        "20ms",
        "time between two batches in degraded mode",
        least=0.001,
        name="live_batch_interval",
    )
    breaker_failures: int = _setting(
        COUNT,
        "5",
        "failures in a row after which nothing is published to a topic for a while; 0: never",
        name="live_breaker_failures",
    )
    breaker_timeout: float = _setting(
        DURATION,
        "10s",
        "time without an answer after which publishing to a topic counts as a failure",
        least=0.1,
        name="live_breaker_timeout",
    )
    breaker_wait: float = _setting(
        DURATION,
        "1s",
        "first wait before a topic that fails is tried again; doubled after each failure",
        least=0.1,
        name="live_breaker_wait",
    )
    breaker_longest: float = _setting(
        DURATION,
        "30s",
        "longest wait before a topic that fails is tried again",
        least=0.1,
        name="live_breaker_longest",
    )
    remembered_events: int = _setting(
        COUNT,
        "100000",
        "maximum number of event ids that are remembered, so that an event is published once",
        least=1,
        name="live_remembered_events",
    )
    remembered_time: float = _setting(
        DURATION,
        "5m",
        "time for which an event id is remembered",
        least=1.0,
        name="live_remembered_time",
    )
    sweep_interval: float = _setting(
        DURATION,
        "5m",
        "time between two looks for what is left of clients that have gone; 0: never",
        name="live_sweep_interval",
    )
    audit_interval: float = _setting(
        DURATION,
        "10m",
        "time between two looks for events that a durable channel has more than once; 0: never",
        name="live_audit_interval",
    )
    audit_records: int = _setting(
        COUNT,
        "10000",
        "maximum number of messages of a durable channel that one such look reads",
        least=1,
        name="live_audit_records",
    )
    channels: int = _setting(
        COUNT,
        "10000",
        "maximum number of channels with subscribers or a history in memory",
        least=1,
        name="live_max_channels",
    )
    client_channels: int = _setting(
        COUNT,
        "128",
        "maximum number of channels that one client may subscribe to",
        least=1,
        name="live_client_channels",
    )
    clients: int = _setting(
        COUNT,
        "5000",
        "maximum number of clients of the Centrifuge protocol, and of streams at /events",
        least=1,
        name="live_max_clients",
    )
    clients_per_ip: int = _setting(
        COUNT,
        "1000",
        "maximum number of these of one IP address; trusted proxies are exempt; 0: no limit",
        name="live_clients_per_ip",
    )
    max_data: int = _setting(
        SIZE,
        "64KiB",
        "maximum size of a message in a channel",
        least=64,
        name="live_max_data",
    )
    history_per_call: int = _setting(
        COUNT,
        "300",
        "maximum number of messages that one request for a history returns",
        least=1,
        name="live_history_per_call",
    )
    token_secret: str = _setting(
        TEXT,
        "",
        "secret with which an application signs the tokens of clients of the Centrifuge protocol "
        "(HMAC), at least 32 bytes; without it no token is valid",
        secret=hide,
        name="live_token_secret",
    )
    api_key: str = _setting(
        TEXT,
        "",
        "key with which applications use the server API of live channels, at least 32 characters; "
        "without it that in the file live-api-key of the data folder, which is made",
        secret=hide,
        name="live_api_key",
    )
    api_max_body: int = _setting(
        SIZE,
        "1MiB",
        "maximum size of a request to the server API of live channels",
        least=65536,
        name="live_api_max_body",
    )
    api_max_calls: int = _setting(
        COUNT,
        "1000",
        "maximum number of channels of a broadcast, and of commands of a batch, by the server API "
        "of live channels",
        least=1,
        name="live_api_max_calls",
    )
    api_max_answer: int = _setting(
        SIZE,
        "32MiB",
        "size of the answer to a batch from which on the server API of live channels refuses its "
        "other commands",
        least=65536,
        name="live_api_max_answer",
    )
    anonymous: str = _setting(
        choice("on", "off"),
        "on",
        "whether clients of the Centrifuge protocol may connect without a token",
        name="live_anonymous",
    )
    insecure: str = _setting(
        choice("on", "off"),
        "off",
        "whether clients of the Centrifuge protocol may do everything without tokens and "
        "permissions; for development only",
        name="live_insecure",
    )
    ping_interval: float = _setting(
        DURATION,
        "25s",
        "interval between pings to clients of the Centrifuge protocol, and between comments on "
        "/events",
        least=1,
        name="live_ping_interval",
    )
    max_lifetime: float = _setting(
        DURATION,
        "24h",
        "time after which clients of the Centrifuge protocol and readers of /events have to "
        "connect again, which they do by themselves; 0: never",
        name="live_max_lifetime",
    )
    pong_timeout: float = _setting(
        DURATION,
        "8s",
        "time within which a client of the Centrifuge protocol must answer a ping",
        least=0.1,
        name="live_pong_timeout",
    )


@dataclass(frozen=True)
class NewTopicSettings:
    """What a new topic of the log has where its creator says nothing else, and the limits of
    topics.
    """

    durability: str = _setting(
        choice("always", "interval", "os"),
        "always",
        "when a record counts as written: once it is on disk, at the latest after "
        "--topics-flush-interval, or when the system writes it; a new topic's default",
        name="topics_durability",
    )
    flush_interval: float = _setting(
        DURATION,
        "5s",
        "time after which records of topics with the durability interval are on disk",
        least=0.01,
        name="topics_flush_interval",
    )
    retention_time: float = _setting(
        DURATION,
        "168h",
        "age up to which records are kept; 0: no limit; a new topic's default",
        name="topics_retention_time",
    )
    retention_bytes: int = _setting(
        SIZE,
        "0",
        "size up to which records of one partition are kept; 0: no limit; a new topic's default",
        name="topics_retention_bytes",
    )
    max_record: int = _setting(
        SIZE,
        "1MiB",
        "maximum size of a record, at most 16MiB; a new topic's default",
        least=1,
        name="topics_max_record",
    )
    compression: str = _setting(
        choice("none", "gzip", "snappy", "lz4", "zstd"),
        "none",
        "compression of batches of records; a new topic's default",
        name="topics_compression",
    )
    compression_threshold: int = _setting(
        SIZE,
        "1KiB",
        "size from which a batch is compressed; a new topic's default",
        name="topics_compression_threshold",
    )
    dedup_window: int = _setting(
        COUNT,
        "0",
        "number of records within which a repeated one is not written; 0: no limit, and off if "
        "--topics-dedup-time is 0 too; a new topic's default",
        name="topics_dedup_window",
    )
    dedup_time: float = _setting(
        DURATION,
        "0",
        "time within which a repeated record is not written; 0: no limit, and off if "
        "--topics-dedup-window is 0 too; a new topic's default",
        name="topics_dedup_time",
    )
    max_partitions: int = _setting(
        COUNT,
        "1000",
        "maximum number of partitions of a topic, at most 1000",
        least=1,
        name="topics_max_partitions",
    )


@dataclass(frozen=True)
class ProcessSettings:
    """The process itself."""

    shutdown_timeout: float = _setting(
        DURATION,
        "30s",
        "maximum time that a shutdown takes; after that the process exits, and counts what "
        "is left at the next start",
        least=1,
        reload=True,
    )
    log_level: str = _setting(
        choice("debug", "info", "warn", "error"),
        "info",
        "lowest level of messages in the process log",
        reload=True,
    )
    log_format: str = _setting(
        choice("auto", "json", "text"),
        "auto",
        "format of the process log; auto is text on a terminal and JSON otherwise",
    )
    config: str = _setting(TEXT, "", "settings file, YAML, JSON or TOML")


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
    topics: NodeTopicsSettings = NodeTopicsSettings()
    new_topics: NewTopicSettings = NewTopicSettings()
    live: NodeLiveSettings = NodeLiveSettings()
    process: ProcessSettings = ProcessSettings()


__all__ = [
    "JobSettings",
    "LimitSettings",
    "ListenSettings",
    "LogSettings",
    "NewTopicSettings",
    "NodeBusSettings",
    "NodeLoginSettings",
    "NodeRoomsSettings",
    "NodeTopicsSettings",
    "ProcessSettings",
    "RateSettings",
    "Settings",
    "StorageSettings",
    "SubmissionSettings",
]
