"""The tables of limits that pages have for the settings of a class."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from fractions import Fraction
from typing import Any

from tests.docs.pages import ROOT

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def documented(page: str, kind: type) -> dict[str, Any]:
    """Return the defaults that a page has for the settings of a class, by their names.

    The table follows the line that begins with the name of the class. Values are numbers, with
    or without a unit, ``none`` or text.
    """
    text = (ROOT / page).read_text("utf-8")
    table = re.search(rf"^`{kind.__name__}`.*\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    if table is None:
        raise LookupError(f"{page} has no table of {kind.__name__}")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", table[1], re.MULTILINE)
    return {name: _value(shown) for name, shown in rows}


def defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of the settings of a class, but for those that are settings, too."""
    return {
        each.name: _plain(each.default)
        for each in fields(kind)
        if each.default is not MISSING and type(each.default).__module__ == "builtins"
    }


def _value(shown: str) -> Any:
    number, _, unit = shown.partition(" ")
    if shown in ("none", "yes", "no"):
        return {"none": None, "yes": True, "no": False}[shown]
    try:
        return Fraction(number) * _UNITS.get(unit, 1)
    except ValueError:
        return shown


def _plain(default: Any) -> Any:
    if default == ():
        return None
    if type(default) in (int, float):
        return Fraction(default).limit_denominator(1000)
    return default
