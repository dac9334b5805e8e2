"""Daemons with live channels, for clients of the Centrifuge protocol."""

from __future__ import annotations

import atexit
import functools

from tests.servers.own_process import free_port
from tests.servers.running_daemon import RunningDaemon

#: The secret of the tokens.
TOKEN_SECRET = "a secret of more than thirty-two characters"

#: Durable channels, each with a topic of its name.
KEPT = ("kept-websocket", "kept-sse", "kept-http_stream", "kept-python")

_COMMON = "presence=on publish_by_clients=on history_time=5m forced_recovery=on"

RULES = (
    *(f"{name} kind=durable topic={name} {_COMMON}" for name in KEPT),
    f"* history_size=100 {_COMMON}",
    f"recovery:* history_size=100 {_COMMON}",
    f"smallhistory:* history_size=2 {_COMMON}",
    f"joins:* history_size=100 join_leave=on {_COMMON}",
)


def live_daemon(*flags: str) -> RunningDaemon:
    """Return a daemon with channels of several kinds, which is not started.

    It has the same port after each start.
    """
    rules = [f"--live-rules={rule}" for rule in RULES]
    return RunningDaemon(
        f"--live-token-secret={TOKEN_SECRET}",
        "--topics=sqlite",
        *rules,
        *flags,
        http_address=f"tcp:{free_port()}:interface=127.0.0.1",
    )


@functools.cache
def open_daemon() -> RunningDaemon:
    """Return a daemon in which clients may do everything without tokens.

    It serves every test of this run, and ends with the process.
    """
    daemon = _until_the_end(live_daemon("--live-insecure=on"))
    for name in KEPT:
        status, answer = daemon.post("/api/topic/create", {"topic": name, "partitions": 1})
        assert status == 200, answer
    return daemon


@functools.cache
def strict_daemon() -> RunningDaemon:
    """Return a daemon in which clients need tokens, and do what permissions allow."""
    return _until_the_end(live_daemon("--live-anonymous=off"))


def _until_the_end(daemon: RunningDaemon) -> RunningDaemon:
    daemon.start()
    atexit.register(daemon.__exit__)
    return daemon
