"""Which tests reach which lines, as one run of the tests shows.

Coverage notes for each line the tests that ran it. Only these can fail if the line changes, unless
it runs while modules are imported, or in another process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from coverage import Coverage, CoverageData


class ReachedLines:
    """The tests by the lines that they reach, from the data files of runs of :func:`command`.

    ``root`` is the checkout that the tests ran in; paths are relative to it.
    """

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self._root = root
        self._data = []
        for file in files:
            data = CoverageData(str(file))
            data.read()
            self._data.append(data)
        self._statements: dict[str, list[range]] = {}

    def tests(self, path: str, line: int) -> set[str]:
        """Return the ids of the tests that reach the statement at a line.

        Returns none for a statement that runs while its module is imported: if it changes, any test
        may fail.
        """
        name = str(self._root / path)
        lines = self._statement(path, line)
        found: set[str] = set()
        for data in self._data:
            by_line = data.contexts_by_lineno(name)
            for number in lines:
                contexts = by_line.get(number, [])
                if "" in contexts:
                    return set()
                found.update(contexts)
        return found

    def _statement(self, path: str, line: int) -> range:
        """Return the lines of the innermost statement at a line, without those in its body."""
        if path not in self._statements:
            tree = ast.parse((self._root / path).read_bytes())
            self._statements[path] = [
                _own_lines(node) for node in ast.walk(tree) if isinstance(node, ast.stmt)
            ]
        found = [lines for lines in self._statements[path] if line in lines]
        return min(found, key=len, default=range(line, line + 1))


def _own_lines(node: ast.stmt) -> range:
    inner = [child.lineno for child in ast.walk(node) if isinstance(child, ast.stmt)]
    later = [number for number in inner if number > node.lineno]
    return range(node.lineno, min([(node.end_lineno or node.lineno) + 1, *later]))


def command(data: Path) -> list[str]:
    """Return the arguments after ``python`` that run pytest and write the data file."""
    run = ["-m", "coverage", "run", "--source=kupool", f"--data-file={data}"]
    return [*run, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", "tools.reached_lines"]


# -- in the run of the tests, as a plugin of pytest


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note the lines that run from now on for a test."""
    _switch(nodeid)


def pytest_runtest_logfinish() -> None:
    """Note no more lines for the test."""
    _switch("")


def _switch(context: str) -> None:
    coverage = Coverage.current()
    if coverage is not None:
        coverage.switch_context(context)
