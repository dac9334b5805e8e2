"""What users and workers did over time, and where their submissions are, for HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from kupool.daemon.files import topics_kind
from kupool.pool.online import OnlineWorkers
from kupool.pool.pool import Pool
from kupool.settings import Settings
from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.downloads import Downloads
from kupool.web.history import HistoryPages
from kupool.web.logged import LoggedSubmissions
from kupool.web.trace import Traces


@dataclass(frozen=True)
class PastPart:
    """The pages about history, and the reader of the log that they use."""

    reader: Any
    pages: HistoryPages
    downloads: Downloads
    traces: Traces

    def open(self) -> Deferred[None]:
        """Open the reader, after the log."""
        opened: Deferred[None] = self.reader.open()
        return opened

    def close(self) -> Deferred[None]:
        """Close the reader, before the log."""
        closed: Deferred[None] = self.reader.close()
        return closed

    def routes(self, access: WebAccess) -> dict[str, ApiResource]:
        """Return the routes of the HTTP API."""
        handlers = {
            "/api/history": self.pages.history,
            "/api/workers": self.pages.workers,
            "/api/rank": self.pages.rank,
            "/api/submissions": self.downloads.get,
            "/api/trace": self.traces.get,
        }
        return {path: access.resource(path, {b"GET": get}) for path, get in handlers.items()}


def make_history(
    settings: Settings,
    reactor: Any,
    wall: Callable[[], float],
    *,
    log: Any,
    stats: Any,
    pool: Pool,
    connections: Any,
    bus: bool,
) -> PastPart:
    """Make the pages; nothing is opened.

    ``connections`` are those that may have sessions; ``bus`` says whether a bus is told of
    submissions.
    """
    reader = log.reader()
    logged = LoggedSubmissions(reactor, reader, stats, positional=log.positional)
    return PastPart(
        reader,
        HistoryPages(stats, OnlineWorkers(reactor, pool.usernames, connections), wall),
        Downloads(reactor, wall, logged, patience=settings.limits.write_timeout),
        Traces(stats, logged, lambda username: pushes(settings, username, bus=bus)),
    )


def pushes(settings: Settings, username: str, *, bus: bool) -> str:
    """Say who is told of an accepted submission of a full name, if they listen."""
    told = []
    if settings.live.offered == "on":
        # Not imported where live channels are off, so that the start takes no longer for them.
        from kupool.daemon.live_channels import channels_of

        told += [f"subscribers of the channel {channel}" for channel in channels_of(username)]
    if topics_kind(settings) != "off":
        told.append("readers of the topic submissions")
    if bus:
        told.append("subscribers on the bus")
    if not told:
        return "nobody is told: live channels, topics and the bus are off"
    return f"told to {', '.join(told)}"


__all__ = ["PastPart", "make_history", "pushes"]
