"""What every durable log does, and what it hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zope.interface import Attribute, Interface

from kupool.log.identity import Extent, Identity, Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred


class Entry(NamedTuple):
    """An entry of the log; ``appended_at`` is in seconds since the epoch."""

    position: int
    entry_id: str
    appended_at: float
    body: bytes


class DeliveredEntry(NamedTuple):
    """An entry handed to a consumer; ``attempt`` is 1 the first time.

    With ``earlier`` it was appended before the newest epoch of the log began, which may not
    hold it.
    """

    entry: Entry
    attempt: int
    earlier: bool = False


class LogStatus(NamedTuple):
    """How a log is: ``depth`` is the entries that a group has not acknowledged.

    ``problem`` is why it takes no entries; empty when it does. A log with a spool before
    it also says how many entries wait in there for the log behind it, since when the
    oldest does (seconds since the epoch, 0 when none does), and in ``away`` why that log
    takes none now.
    """

    appended: int
    depth: int
    dead_letters: int
    problem: str
    spooled: int = 0
    spooled_since: float = 0.0
    away: str = ""


class LogUnavailable(Exception):
    """The log cannot take an entry now; nothing of it was kept."""


class IConsumer(Interface):
    """What takes the entries of a log."""

    def received(deliveries: Sequence[DeliveredEntry]) -> None:
        """Take entries, in order; each is to be acknowledged or refused later."""


class ISubscription(Interface):
    """A consumer's place in a log."""

    def ack(deliveries: Sequence[DeliveredEntry]) -> None:
        """Entries have been processed and will not be delivered again."""

    def nack(delivery: DeliveredEntry, reason: str, retry: bool) -> None:
        """An entry could not be processed.

        With ``retry`` it comes again after a delay, until its attempts are used up;
        then, or without, it goes to the dead letters with the reason.
        """

    def stop() -> Deferred[None]:
        """Deliver nothing more, and keep the place; fires when it is kept."""


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
        """Make the log ready; fails with a clear error where that is impossible."""

    def extent(known: Identity | None, mark: Mark) -> Deferred[Extent]:
        """Return what the log holds, to be compared with a store.

        ``known`` and ``mark`` are what the store says. A log that keeps its own marks, in a
        file, does not need them; one in RabbitMQ has no other way to know its epoch.
        """

    def identify(identity: Identity) -> Deferred[None]:
        """Carry an identity from now on; fires when it is kept.

        New entries get positions above the last one and above what the newest epoch begins
        after.
        """

    def append(entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry; fires when it is durable.

        Fails with :class:`LogUnavailable` when it could not be kept.
        """

    def read(after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries that follow the position ``after``."""

    def consume(
        group: str, consumer: IConsumer, prefetch: int, after: int | None = None
    ) -> Deferred[ISubscription]:
        """Deliver what a group has not acknowledged, at most ``prefetch`` entries ahead.

        With ``after``, a log that holds the group's place itself delivers everything after
        that position, whatever was acknowledged.
        """

    def trim(now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        """Drop acknowledged entries that have been here for ``max_age`` seconds, or beyond a
        size; returns how many were dropped. 0 turns either bound off.

        ``now`` is the time of the retention clock, in seconds since the epoch. An entry's age is
        how far that clock has advanced, between trims of the same process, since the first
        trim that found the entry. Where the clock jumps between two runs nothing gets older.
        """

    def trimmed() -> Deferred[int | None]:
        """Return the newest position that a trim dropped, 0 for none; None where the log
        cannot tell.
        """

    def status() -> LogStatus:
        """Say how the log is."""

    def close() -> Deferred[None]:
        """Finish what was begun and close; may be called again."""


class ISpool(Interface):
    """A log of which the newest entries may not have reached its place yet."""

    def read_spool(after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` of the entries that wait, after a position in the spool.

        What is no longer among them can be read from the log: to see every entry, read
        these to the end first, and the log thereafter. Some may be seen twice.
        """


__all__ = [
    "DeliveredEntry",
    "Entry",
    "IConsumer",
    "ILog",
    "ISpool",
    "ISubscription",
    "LogStatus",
    "LogUnavailable",
]
