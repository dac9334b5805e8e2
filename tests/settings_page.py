"""Makes the tables of docs/settings.md: every setting, as it is declared.

Run as ``python -m tests.settings_page`` to write them. The page has a line
``<!-- settings: GROUP -->`` where the table of a group goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from kupool.settings import (
    ENV_PREFIX,
    Settings,
    declared,
    expected,
    flag_name,
    reloadable,
    repeatable,
    secret_files,
    shown,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

#: The line before a table, and the table.
TABLE = re.compile(r"^<!-- settings: (\w+) -->\n(?:\|.*\n)*", re.MULTILINE)

_HEAD = (
    "| flag | environment | default | values | reloadable | description |",
    "|---|---|---|---|---|---|",
)


def groups() -> list[str]:
    """Return the names of the groups, in the order in which settings are shown."""
    return [group.name for group in fields(Settings)]


def table(group: str) -> str:
    """Return the table of a group; raises :class:`AttributeError` where there is none."""
    return "\n".join((*_HEAD, *_rows(group)))


def _rows(group: str) -> Iterator[str]:
    defaults, now = shown(Settings()), set(reloadable())
    files = {name: file for file, name in secret_files().items()}
    own = set(fields(getattr(Settings(), group)))
    for name, f in declared().items():
        if f not in own:
            continue
        cells = (
            f"`--{flag_name(name)}`",
            f"`{ENV_PREFIX}{name.upper()}`",
            f"`{defaults[name]}`" if defaults[name] else "none",
            _values(f),
            "yes" if name in now else "no",
            f.metadata["doc"] + _or_file(files.get(name)),
        )
        yield f"| {' | '.join(cells)} |"


def _or_file(name: str | None) -> str:
    if name is None:
        return ""
    return f"; from a file: `--{flag_name(name)}`, `{ENV_PREFIX}{name.upper()}`"


def _values(f: Field[Any]) -> str:
    words = expected(f).split("|")
    text = ", ".join(f"`{word}`" for word in words) if len(words) > 1 else words[0]
    return f"{text}, repeatable" if repeatable(f) else text


def rendered() -> str:
    """Return the page with its tables made anew."""

    def again(found: re.Match[str]) -> str:
        return f"<!-- settings: {found[1]} -->\n{table(found[1])}\n"

    return TABLE.sub(again, PAGE.read_text("utf-8"))


if __name__ == "__main__":
    PAGE.write_text(rendered(), "utf-8")
