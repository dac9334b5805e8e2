"""Parses and checks the parameters of a query. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from kupool.pool.session import valid_username
from kupool.web.answers import ApiError

MINUTE = 60

#: Minutes of a query without a range, including the current one.
DEFAULT_MINUTES = 15

#: The end of ranges without an end, in seconds since the epoch: 9999-12-31 23:59.
FOREVER = 253_402_300_740

#: The longest range that is answered minute by minute, in seconds.
MAX_RANGE = 7 * 24 * 3600

DEFAULT_TOP = 10
MAX_TOP = 1000

#: How many workers of a user are listed.
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_PARAMETERS = frozenset(("username", "minute", "from", "to", "top", "limit"))

# In a parsed query string, the plus sign of an offset has become a space.
_RFC3339 = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[Tt ](?P<hour>\d\d:\d\d):(?P<second>\d\d)(?:\.\d+)?"
    r"(?:(?P<utc>[Zz])|(?P<sign>[+ -])(?P<offset>\d\d:\d\d))",
    re.ASCII,
)


class Query(NamedTuple):
    """A query for counts. Times are whole minutes, in seconds since the epoch, UTC.

    ``minute`` is None unless one minute was asked for. ``start`` and ``end`` are the range, without
    ``end`` itself. ``top`` is the number of listed users, ``limit`` that of listed workers.
    """

    username: str
    minute: int | None
    start: int
    end: int
    top: int
    limit: int


def single(args: Mapping[bytes, Sequence[bytes]], known: Collection[str]) -> dict[str, str]:
    """Return the parameters of a query, each given once.

    Raises :class:`ApiError` that names the wrong parameter.
    """
    given = {}
    for raw, values in args.items():
        name = raw.decode(errors="replace")
        if name not in known:
            expected = ", ".join(sorted(known))
            raise ApiError(400, f"{name:.40}: unknown parameter, expected {expected}")
        if len(values) != 1:
            raise ApiError(400, f"{name}: given more than once")
        try:
            given[name] = values[0].decode()
        except UnicodeDecodeError:
            raise ApiError(400, f"{name}: is not UTF-8") from None
    return given


def parse_query(args: Mapping[bytes, Sequence[bytes]], now: float) -> Query:
    """Return the query in a query string; ``now`` is in seconds since the epoch.

    Raises :class:`ApiError` that names the wrong parameter.
    """
    given = single(args, _PARAMETERS)
    username = given.get("username", "")
    if "username" in given and not valid_username(username):
        raise ApiError(400, "username: must be 1 to 255 characters, none of them control ones")
    minute = parse_time("minute", given["minute"])[0] if "minute" in given else None
    for other in ("from", "to", "top", "limit"):
        if minute is not None and other in given:
            raise ApiError(400, f"{other}: cannot be combined with minute")
    start, end = _range(given, now)
    top = parse_number("top", given.get("top"), DEFAULT_TOP, MAX_TOP)
    limit = parse_number("limit", given.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)
    return Query(username, minute, start, end, top, limit)


def _range(given: Mapping[str, str], now: float) -> tuple[int, int]:
    this_minute = int(now) // MINUTE * MINUTE
    end = this_minute + MINUTE
    if "to" in given:
        at, whole = parse_time("to", given["to"])
        end = at if whole else at + MINUTE  # the range includes the minute of its end
    start = end - DEFAULT_MINUTES * MINUTE
    if "from" in given:
        start, _ = parse_time("from", given["from"])
    if start >= end:
        raise ApiError(400, "from: must be before to")
    return max(0, start), end


def parse_number(name: str, text: str | None, default: int, most: int, *, least: int = 1) -> int:
    """Return a whole number, the ``default`` if there is no text; raises :class:`ApiError`."""
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ApiError(400, f"{name}: must be a whole number from {least} to {most}")
    return int(text)


def parse_time(name: str, text: str) -> tuple[int, bool]:
    """Return the UTC minute of an RFC 3339 time, and whether the time is a whole minute.

    Raises :class:`ApiError` with the parameter's ``name``.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ApiError(400, f"{name}: must be an RFC 3339 time such as 2026-11-21T10:05:00Z")
    offset = "+00:00" if found["utc"] else found["sign"].replace(" ", "+") + found["offset"]
    second = "59" if found["second"] == "60" else found["second"]  # a leap second
    try:
        at = datetime.fromisoformat(f"{found['day']}T{found['hour']}:{second}{offset}").timestamp()
    except (ValueError, OverflowError) as error:
        raise ApiError(400, f"{name}: {error}") from None
    if not 0 <= at < FOREVER:
        raise ApiError(400, f"{name}: must be after 1970 and before the year 10000")
    minute = int(at) // MINUTE * MINUTE
    whole = int(at) == minute and not re.search(r"\.\d*[1-9]", text)
    return minute, whole


def show_time(seconds: float) -> str:
    """Return seconds since the epoch as an RFC 3339 time in UTC, without fractions."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_moment(seconds: float) -> str:
    """Return seconds since the epoch as an RFC 3339 time in UTC, to the millisecond."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


__all__ = [
    "DEFAULT_LIMIT",
    "DEFAULT_MINUTES",
    "DEFAULT_TOP",
    "FOREVER",
    "MAX_LIMIT",
    "MAX_RANGE",
    "MAX_TOP",
    "MINUTE",
    "Query",
    "parse_number",
    "parse_query",
    "parse_time",
    "show_moment",
    "show_time",
    "single",
]
