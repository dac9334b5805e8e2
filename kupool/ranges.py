"""Check the values of parameters, with errors that name the parameter. Pure.

:mod:`kupool.kinds` parses texts, such as those of flags and files. This module checks
values that code passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from sys import float_info

#: Returns a valid value; raises :class:`ValueError`, which says what is valid.
Check = Callable[[object], object]


def number(least: float = 0.0, *, above: bool = False) -> Check:
    """Return a check for finite numbers of at least ``least``, or only above it."""
    expected = f"a number {'above' if above else 'of at least'} {least:g}"

    def check(value: object) -> float:
        # A comparison with NaN is false.
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value <= float_info.max
            or (above and value == least)
        ):
            raise ValueError(f"expected {expected}, not {_shown(value)}")
        return value

    return check


def whole(least: int = 0, most: int | None = None) -> Check:
    """Return a check for whole numbers of at least ``least``, and at most ``most``."""
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"

    def check(value: object) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value < least
            or (most is not None and value > most)
        ):
            raise ValueError(f"expected a whole number {limits}, not {_shown(value)}")
        return value

    return check


def a(kind: type) -> Check:
    """Return a check for the objects of a class."""

    def check(value: object) -> object:
        if not isinstance(value, kind):
            raise ValueError(f"expected a {kind.__name__}, not {_shown(value)}")
        return value

    return check


def one_of(kind: type[Enum]) -> Check:
    """Return a check for the members of an enumeration and their values."""
    expected = ", ".join(str(member.value) for member in kind)

    def check(value: object) -> object:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"expected one of {expected}, not {_shown(value)}") from None

    return check


def check(expected: Mapping[str, Check], **values: object) -> None:
    """Check parameters by name; raises :class:`ValueError` for the first invalid one."""
    for name, value in values.items():
        try:
            expected[name](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def check_fields(expected: Mapping[str, Check], settings: object) -> None:
    """Check the attributes of an object, as :func:`check` does."""
    check(expected, **{name: getattr(settings, name) for name in expected})


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except BaseException:  # repr() failed: too many digits, or an exception of the class
        return f"such a {type(value).__name__}"
    return text if len(text) <= 50 else f"{text[:47]}..."


__all__ = ["Check", "a", "check", "check_fields", "number", "one_of", "whole"]
