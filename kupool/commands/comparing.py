"""What the commands that compare log and counts show: their findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kupool.commands.progress import counted
from kupool.commands.times import minute_text
from kupool.stats.auditing import Audit
from kupool.stats.side_by_side import ComparedRange, Difference


def compared_text(compared: ComparedRange) -> str:
    """Return in one line what was compared."""
    if not compared.minutes:
        return "nothing to compare"
    return (
        f"compared: {counted(compared.batches, 'batch', 'batches')} with "
        f"{counted(compared.submissions, 'submission')}, "
        f"positions {compared.first_position} to {compared.last_position} of the log, "
        f"{counted(compared.minutes, 'minute')} from {minute_text(compared.first_minute)} to "
        f"{minute_text(compared.last_minute)} UTC"
    )


def remarks(found: Audit) -> Iterator[str]:
    """Yield lines about what could not be compared, and what is missing."""
    for skipped in found.skipped:
        first, last = minute_text(skipped.first_minute), minute_text(skipped.last_minute)
        minutes = counted(skipped.minutes, "minute")
        yield f"not compared: {minutes} from {first} to {last} UTC: {skipped.reason}"
    for gap, reason in found.gaps:
        yield f"lost: positions {gap.first} to {gap.last} of the log: {reason}"
    if found.unreadable:
        entries = counted(found.unreadable, "entry", "entries")
        yield f"not counted: {entries} of the log that cannot be read as a batch"
    waiting = found.waiting
    if waiting.batches:
        spooled = f", {waiting.spooled:,} of them in the spool" if waiting.spooled else ""
        yield (
            f"acknowledged and not counted: {counted(waiting.batches, 'batch', 'batches')} with "
            f"{counted(waiting.submissions, 'submission')}{spooled}"
        )


def difference_cells(found: Difference) -> tuple[str, str, int, int]:
    """Return the cells of a difference: minute, user or worker, number in the log, and counted."""
    name = f"{found.username}.{found.worker}" if found.worker else found.username
    return minute_text(found.minute), name, found.logged, found.counted


def difference_text(found: Difference) -> str:
    """Return in one line how a row differs."""
    minute, name, logged, number = difference_cells(found)
    return f"{minute} {name}: {logged} in the log, {number} counted"


def as_json(found: Audit) -> dict[str, Any]:
    """Return the findings as values for JSON; times in seconds since the epoch."""
    return {
        "compared": found.compared._asdict(),
        "not_compared": [skipped._asdict() for skipped in found.skipped],
        "gaps": [
            {"first": gap.first, "last": gap.last, "reason": reason} for gap, reason in found.gaps
        ],
        "unreadable": found.unreadable,
        "waiting": found.waiting._asdict(),
        "differences": found.differences,
        "log_lost": found.lost,
        "beyond_reach": found.beyond,
    }


__all__ = [
    "as_json",
    "compared_text",
    "difference_cells",
    "difference_text",
    "remarks",
]
