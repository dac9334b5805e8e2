"""The interfaces of every durable log, and the data it hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Attribute, Interface

from kupool.log.identity import Extent, Identity, Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred


class Entry(NamedTuple):
    """An entry of the log; ``appended_at`` is in seconds since the epoch."""

    position: int
    entry_id: str
    appended_at: float
    body: bytes


class DeliveredEntry(NamedTuple):
    """An entry handed to a consumer; ``attempt`` is 1 the first time.

    ``earlier`` says that it was appended before the newest epoch of the log began, so the log may
    not contain it.
    """

    entry: Entry
    attempt: int
    earlier: bool = False


class LogStatus(NamedTuple):
    """The status of a log: ``depth`` is the number of entries that a group has not acknowledged.

    ``problem`` says why it accepts no entries; empty if it does. A log with a spool also reports
    how many entries wait in the spool, since when the oldest one waits (seconds since the epoch, 0
    if there is none), and in ``away`` why the remote log is unavailable.
    """

    appended: int
    depth: int
    dead_letters: int
    problem: str
    spooled: int = 0
    spooled_since: float = 0.0
    away: str = ""


class LogBounds(NamedTuple):
    """The positions of the first and the last entry that a log has; of none, ``last + 1`` and
    ``last``.

    ``size`` is about what it takes, in bytes; 0 if that is not known.
    """

    first: int
    last: int
    size: int


class LogUnavailable(Exception):
    """The log cannot accept an entry now; nothing of it was stored."""


class IConsumer(Interface):
    """A consumer of the entries of a log."""

    def received(deliveries: Sequence[DeliveredEntry]) -> None:
        """Take entries, in order; each must be acknowledged or refused later."""


class ISubscription(Interface):
    """The subscription of a consumer to a log."""

    def ack(deliveries: Sequence[DeliveredEntry]) -> None:
        """Entries have been processed and will not be delivered again."""

    def nack(delivery: DeliveredEntry, reason: str, retry: bool) -> None:
        """An entry could not be processed.

        With ``retry`` it is delivered again after a delay, until its attempts are used up. Then, or
        without ``retry``, it is moved to the dead letters with the reason.
        """

    def stop() -> Deferred[None]:
        """Deliver nothing more, and save the position; fires when it is saved."""


class ILog(Interface):
    """A durable log."""

    persistent = Attribute("Whether entries outlive the process.")
    instant = Attribute(
        "Whether an append costs nothing, so that gathering entries into larger ones is idle."
    )

    positional = Attribute(
        "Whether deliveries come in the order of their positions. Otherwise their positions only "
        "number them, and a sweep has to read the log itself."
    )

    def open() -> Deferred[None]:
        """Prepare the log; fails with a clear error if that is impossible."""

    def extent(known: Identity | None, mark: Mark) -> Deferred[Extent]:
        """Return what the log contains, for a comparison with a store.

        ``known`` and ``mark`` are the store's. A log in a file, which has its own marks, does not
        need them. A log in RabbitMQ has no other way to know its epoch.
        """

    def identify(identity: Identity) -> Deferred[None]:
        """Set the identity; fires when it is saved.

        New entries get positions above the last one and above the start of the newest epoch.
        """

    def append(entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry; fires when it is durable.

        Fails with :class:`LogUnavailable` if it could not be stored.
        """

    def read(after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries that follow the position ``after``."""

    def consume(
        group: str, consumer: IConsumer, prefetch: int, after: int | None = None
    ) -> Deferred[ISubscription]:
        """Deliver the entries that a group has not acknowledged, at most ``prefetch`` at once.

        With ``after``, a log that keeps the group's position itself delivers everything after that
        position, acknowledged or not.
        """

    def trim(now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        """Drop acknowledged entries older than ``max_age`` seconds, or above a size; returns how
        many.

        0 turns either limit off. ``now`` is the time of the retention clock, in seconds since the
        epoch. The age of an entry is how far that clock has advanced, between trims of the same
        process, since the first trim that found the entry. If the clock jumps between two runs, no
        entry gets older.
        """

    def trimmed() -> Deferred[int | None]:
        """Return the newest position that a trim dropped, 0 if none; None if the log cannot
        tell.
        """

    def reader() -> ILogReader:
        """Return a reader of this log, to be opened after the log and closed before it."""

    def status() -> LogStatus:
        """Return the status of the log."""

    def close() -> Deferred[None]:
        """Finish running work and close; may be called again."""


class ILogReader(Interface):
    """Reads a log beside those who append to it, on a connection of its own.

    Its calls fail with :class:`LogUnavailable`, or with an error of the file, if nothing can be
    read now.
    """

    def open() -> Deferred[None]:
        """Prepare the reader."""

    def read(after: int, max_bytes: int) -> Deferred[Sequence[Entry]]:
        """Return the entries that follow a position, up to ``max_bytes``.

        The first is returned whatever its size; none only at the end.
        """

    def bounds() -> Deferred[LogBounds]:
        """Return what the log has."""

    def find(at: float) -> Deferred[int]:
        """Return the position of the first entry that was appended at a time or later.

        ``at`` is in seconds since the epoch. Behind the last entry, the next position. If the clock
        was set back, it is the position of one of those that follow an earlier entry.
        """

    def watch(told: Callable[[], object]) -> None:
        """Have ``told`` called soon after entries were appended."""

    def close() -> Deferred[None]:
        """Finish running work and close; may be called again."""


class ISpool(Interface):
    """A log whose newest entries may still be in a spool."""

    def read_spool(after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` waiting entries after a position in the spool.

        Entries that have left the spool can be read from the log. To see every entry, read the
        spool to its end first, and then the log. Some may be seen twice.
        """


__all__ = [
    "DeliveredEntry",
    "Entry",
    "IConsumer",
    "ILog",
    "ILogReader",
    "ISpool",
    "ISubscription",
    "LogBounds",
    "LogStatus",
    "LogUnavailable",
]
