"""Times on a command line and in output: RFC 3339, to the minute, in UTC."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import UTC, datetime


def parse_time(text: str) -> int:
    """Return an RFC 3339 time, UTC where no offset is given, in seconds since the epoch.

    Raises :class:`argparse.ArgumentTypeError` saying what a time looks like.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a time such as 2026-11-21T10:05:00Z") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def minute_text(seconds: int) -> str:
    """Return a minute as ``2026-11-21 10:05``, in UTC; as seconds if it has no date."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
