"""Makes tests/REQUIREMENTS.md: every requirement in scope, and the tests that name it.

Run as ``python -m tests.requirements`` to write it. A test names a requirement by its id,
as in ``K-44``, in its own docstring or in that of its class or module.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "tests" / "REQUIREMENTS.md"

_ID = re.compile(r"\b([KPAQWX]-\d{2})(?:\.\.(?:[KPAQWX]-)?(\d{2}))?\b")
_ROW = re.compile(r"^\| (?P<id>[KPAQWX]-\d{2}) \| (?P<text>[^|]*) \|", re.MULTILINE)


def ids_in(text: str) -> Iterator[str]:
    """Yield the ids that a text names, ranges such as ``K-67..K-70`` included."""
    for first, last in _ID.findall(text):
        kind, number = first.split("-")
        for each in range(int(number), int(last or number) + 1):
            yield f"{kind}-{each:02}"


@cache
def tests_by_requirement() -> dict[str, list[str]]:
    """Return the tests that name each requirement, as ``file::Class.test``."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT).as_posix()
        module = ast.parse(path.read_text("utf-8"))
        for requirement in ids_in(ast.get_docstring(module) or ""):
            found[requirement].add(name)
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                _of_class(node, name, found)
    return {requirement: sorted(names) for requirement, names in found.items()}


def _of_class(node: ast.ClassDef, name: str, found: dict[str, set[str]]) -> None:
    for requirement in ids_in(ast.get_docstring(node) or ""):
        found[requirement].add(f"{name}::{node.name}")
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for requirement in ids_in(ast.get_docstring(child) or ""):
                found[requirement].add(f"{name}::{node.name}.{child.name}")


def rows() -> dict[str, str]:
    """Return the requirements that the document lists, by id."""
    text = DOCUMENT.read_text("utf-8")
    return {m["id"]: m["text"].strip() for m in _ROW.finditer(text)}


def rendered() -> str:
    """Return the document with its lists of tests made anew."""
    found = tests_by_requirement()

    def row(match: re.Match[str]) -> str:
        tests = "<br>".join(f"`{t.removeprefix('tests/')}`" for t in found.get(match["id"], ()))
        return f"| {match['id']} | {match['text'].strip()} | {tests} |"

    text = DOCUMENT.read_text("utf-8")
    return re.sub(r"^\| ([KPAQWX]-\d{2}) \|.*$", lambda m: _again(m, row), text, flags=re.MULTILINE)


def _again(line: re.Match[str], row: object) -> str:
    match = _ROW.match(line[0])
    assert match is not None, line[0]
    return str(row(match))  # type: ignore[operator]


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(), "utf-8")
