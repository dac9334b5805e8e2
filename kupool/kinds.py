"""Parse and format durations, sizes and numbers. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
#: Go's longest duration: 2**63 - 1 nanoseconds.
_LONGEST = 2**63 / 1e9
_SIZE = re.compile(r"(\d+)\s*(|[KMGT]i?)B?", re.IGNORECASE)
_SIZE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_duration(text: str) -> float:
    """Parse a duration in Go notation, such as ``1h30m``, ``250ms`` or ``0``; returns seconds.

    Raises :class:`ValueError`. See the Go documentation of ``time.ParseDuration``.
    """
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 30s, 1h30m or 0")
    seconds = float(sum(float(n) * _UNITS[unit] for n, unit in _DURATION_PART.findall(text)))
    if seconds > _LONGEST:
        raise ValueError(f"{text!r} is too long")
    return seconds


def format_duration(seconds: float) -> str:
    """Return seconds in Go notation, rounded to the nanosecond."""
    if seconds < 1:
        milliseconds = _decimal(seconds * 1000, 6)
        return milliseconds if milliseconds == "0" else milliseconds + "ms"
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(f"{hours:.0f}", "h"), (f"{minutes:.0f}", "m"), (_decimal(rest, 9), "s")]
    return "".join(n + unit for n, unit in parts if n != "0")


def _decimal(value: float, places: int) -> str:
    return f"{value:.{places}f}".rstrip("0").rstrip(".")


def parse_size(text: str) -> int:
    """Parse a size such as ``65536``, ``64KiB`` or ``10G``; returns bytes. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 65536, 64KiB or 10GiB")
    factor: int = 1024 ** _SIZE_POWERS[found[2].lower().rstrip("i")]
    return int(found[1]) * factor


def format_size(size: int) -> str:
    """Return a number of bytes with the largest unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = 1024 ** _SIZE_POWERS[unit[0].lower()]
        if size and not size % factor:
            return f"{size // factor}{unit}"
    return str(size)


def parse_number(text: str) -> float:
    """Parse a number of 0 or more; raises :class:`ValueError`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a number of 0 or more")
    return value


def parse_count(text: str) -> int:
    """Parse a whole number of 0 or more; raises :class:`ValueError`."""
    if not re.fullmatch(r"\d{1,15}", text):
        raise ValueError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


class ValueKind(NamedTuple):
    """How to parse and format the values of a setting."""

    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    hint: str


def parse_mode(text: str) -> int:
    """Parse the permissions of a file in octal, such as ``660``; raises :class:`ValueError`.

    The owner always reads and writes. So a number that YAML has read as octal already, as it
    reads ``0660``, is refused and not taken for other permissions.
    """
    if not re.fullmatch(r"(?:0o?)?[0-7]{3}", text) or int(text[-3]) < 6:
        raise ValueError(f"{text!r} is not a mode such as 660; write it in quotes in YAML")
    return int(text[-3:], 8)


DURATION = ValueKind(parse_duration, format_duration, "DURATION")
SIZE = ValueKind(parse_size, format_size, "SIZE")
COUNT = ValueKind(parse_count, str, "N")
NUMBER = ValueKind(parse_number, lambda value: f"{value:g}", "N")
TEXT = ValueKind(str, str, "TEXT")

#: A rule as words, of which all but the first are ``NAME=VALUE``.
RULE = ValueKind(str, str, "RULE")
MODE = ValueKind(parse_mode, lambda mode: f"{mode:03o}", "MODE")


def choice(*names: str) -> ValueKind:
    """Return the kind of a setting whose value is one of some names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return ValueKind(parse, str, "|".join(names))
