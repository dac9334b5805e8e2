"""Stands in for the command ``sqlite3`` where it is not installed: one query, rows with bars."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing


def main(path: str, query: str) -> None:
    """Print the rows of a query."""
    with closing(sqlite3.connect(path)) as connection:
        for row in connection.execute(query):
            print("|".join("" if value is None else _text(value) for value in row))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    main(*sys.argv[1:3])
