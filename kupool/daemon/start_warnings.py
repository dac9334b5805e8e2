"""What the daemon warns of at its start: data in memory, and too few descriptors."""

from __future__ import annotations

from collections.abc import Iterator

from kupool.daemon.connection_limits import descriptor_limit
from kupool.daemon.parts import Parts
from kupool.settings import Settings


def start_warnings(settings: Settings, parts: Parts) -> Iterator[str]:
    """Yield a sentence for each thing that an operator should know."""
    if not parts.log.persistent:
        yield (
            "The submission log is in memory (--mq memory): submissions that are not counted yet "
            "are lost when the process ends"
        )
    if not parts.stats.persistent:
        yield "The counts are in memory (--store memory): they are lost when the process ends"
    if settings.topics.kind == "memory":
        yield "Topics are in memory (--topics memory): they are lost when the process ends"
    wanted = settings.limits.max_connections
    most = parts.server.manager.settings.max_connections
    if most and (most < wanted or not wanted):
        yield (
            f"This process may open {descriptor_limit()} files, which is enough for {most} clients "
            f"(max_connections is {wanted or 'not limited'}): raise the limit of open files "
            "(ulimit -n, LimitNOFILE)"
        )


__all__ = ["start_warnings"]
