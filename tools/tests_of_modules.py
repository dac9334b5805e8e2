"""Which unit and contract tests test a module: by their place, and by what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

#: Where tests are looked for. Those of the other kinds start processes, which takes long.
KINDS = ("unit", "contract")

#: Words in the paths of contract tests that need a server, which takes long.
SERVERS = ("rabbit", "postgres")


def servers_of(test: str) -> list[str]:
    """Return the servers that a file of tests needs; unit tests need none."""
    return [word for word in SERVERS if word in test] if "/contract/" in test else []


class TestsOfModules:
    """The graph of imports of a checkout, from the files of tests downwards.

    ``root`` is the checkout. Names that a package's ``__init__`` only passes on are followed
    to their module.
    """

    __test__ = False  # not for pytest

    def __init__(self, root: Path) -> None:
        self._root = root
        self._graph = {
            name: set(self._imports(path))
            for top in ("kupool", "tests", "bench", "tools")
            for path in (root / top).rglob("*.py")
            for name in [path.relative_to(root).as_posix()]
        }
        folders = tuple(f"tests/{kind}/" for kind in KINDS)
        tests = [name for name in self._graph if name.startswith(folders) and "/test_" in name]
        self._reach = [(test, self._reached(test)) for test in sorted(tests)]

    def of(self, module: str) -> list[str]:
        """Return the files of tests for a module, by their paths.

        That is the file in the module's own place, those of its package that reach it at all,
        and those that reach it by the fewest imports, where fakes count as what imports them.
        They come in this order, but those that need a server come last.
        """
        mirror, folder = self._place(module)
        steps = {test: reached[module] for test, reached in self._reach if module in reached}
        nearest = min(steps.values(), default=0)
        found = {
            test
            for test, count in steps.items()
            if count == nearest or test == mirror or test.startswith(folder)
        }

        def order(test: str) -> tuple[int, bool, bool, int, str]:
            apart = not test.startswith(folder)
            return len(servers_of(test)), test != mirror, apart, steps[test], test

        return sorted(found, key=order)

    def _place(self, module: str) -> tuple[str, str]:
        """The file of unit tests that a module has, and the folder of its package's."""
        folder, _, name = module.removeprefix("kupool/").rpartition("/")
        place = f"tests/unit/{folder}/"
        return f"{place}test_{name}", place

    def _reached(self, test: str) -> dict[str, int]:
        """The files that a test reaches, and by how many imports between modules of ours."""
        nearest = {test: 0}
        left = [test]
        while left:
            name = left.pop()
            step = 1 if name.startswith("kupool/") else 0
            for other in self._graph.get(name, ()):
                if nearest[name] + step < nearest.get(other, len(self._graph)):
                    nearest[other] = nearest[name] + step
                    left.append(other)
        return nearest

    def _imports(self, path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._file(alias.name, "")
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    yield from self._file(node.module, alias.name)

    def _file(self, module: str, name: str, depth: int = 0) -> Iterator[str]:
        """The file that a name of a module is from."""
        base = self._root.joinpath(*module.split("."))
        if name and base.joinpath(f"{name}.py").is_file():
            yield base.joinpath(f"{name}.py").relative_to(self._root).as_posix()
        elif base.with_suffix(".py").is_file():
            yield base.with_suffix(".py").relative_to(self._root).as_posix()
        elif name and (base / "__init__.py").is_file() and depth < 3:
            package = base / "__init__.py"
            yield package.relative_to(self._root).as_posix()
            for node in ast.walk(ast.parse(package.read_bytes())):
                names = node.names if isinstance(node, ast.ImportFrom) else []
                if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in names]:
                    yield from self._file(node.module or "", name, depth + 1)
