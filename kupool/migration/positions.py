"""Where the entries of one log are in another that was copied from it. Pure.

The target begins a new epoch, after every position that anybody knows. So what lies before
the first entry of the source is before the first entry of the target as well, unchanged:
neither log reaches back to it.

=================================================  ===========================================
A position in the source                           In the target
=================================================  ===========================================
Below the one before its first entry               The same
Up to its first entry                              What the new epoch begins after
Of an entry                                        Of the same entry
Between two entries, or after the last             Of the entry before it
=================================================  ===========================================

Positions are bounds: "above this one", "up to this one". With the entry before, both stay true.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kupool.migration.tables import Row, Table


class Run(NamedTuple):
    """Consecutive entries of both logs; ``length`` is their number."""

    source: int
    target: int
    length: int


@dataclass(frozen=True)
class PositionMap:
    """Converts positions of the source to those of the target.

    ``first`` is the position of the source's first entry. The target's epoch begins after ``base``.
    """

    first: int
    base: int
    runs: tuple[Run, ...] = ()

    def __call__(self, position: int) -> int:
        """Return the position in the target."""
        if position < self.first - 1:
            return position
        number = bisect_right(self.runs, position, key=_source) - 1
        if number < 0:
            return self.base
        run = self.runs[number]
        return run.target + min(position - run.source, run.length - 1)

    @property
    def last(self) -> int:
        """The position of the target's last entry, or what its epoch begins after."""
        return self.runs[-1].target + self.runs[-1].length - 1 if self.runs else self.base

    def row(self, table: Table, row: Row) -> Row:
        """Return a row of the source with the target's positions."""
        if not table.holds_places:
            return row
        values = list(row)
        for number in table.places:
            if values[number] is not None:
                values[number] = self(values[number])
        return tuple(values)

    def sql(self, column: str) -> str:
        """Return an SQL expression for the target's position of a column."""
        cases = [f"{column} IS NULL THEN NULL", f"{column} < {self.first - 1:d} THEN {column}"]
        before = self.base
        for run in self.runs:
            cases.append(f"{column} < {run.source:d} THEN {before:d}")
            end = run.source + run.length
            cases.append(f"{column} < {end:d} THEN {column} + {run.target - run.source:d}")
            before = run.target + run.length - 1
        whens = " ".join(f"WHEN {case}" for case in cases)
        return f"CASE {whens} ELSE {before:d} END"


@dataclass(frozen=True)
class Unmoved(PositionMap):
    """Leaves every position unchanged, because the log is not moved."""

    first: int = 0
    base: int = 0

    def __call__(self, position: int) -> int:
        """Return the position."""
        return position

    def sql(self, column: str) -> str:
        """Return the column."""
        return column


class MapBuilder:
    """Makes a map from pairs of positions, given in order."""

    def __init__(self, first: int, base: int) -> None:
        self._first = first
        self._base = base
        self._runs: list[Run] = []

    def add(self, source: int, target: int) -> None:
        """Add an entry of the source that was found in the target."""
        if self._runs:
            run = self._runs[-1]
            if (source, target) == (run.source + run.length, run.target + run.length):
                self._runs[-1] = run._replace(length=run.length + 1)
                return
        self._runs.append(Run(source, target, 1))

    def build(self) -> PositionMap:
        """Return the map."""
        return PositionMap(self._first, self._base, tuple(self._runs))


def mapped_marks(positions: PositionMap, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of ``log_marks`` with the target's positions, in order.

    If several get the same position, the last one stays: it names the entry before it, if any of
    them does.
    """
    return sorted({positions(place): (positions(place), name) for place, name in rows}.values())


def _source(run: Run) -> int:
    return run.source


__all__ = ["MapBuilder", "PositionMap", "Run", "Unmoved", "mapped_marks"]
