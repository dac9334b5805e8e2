"""Issue 14: which tests reach a line, by what coverage has noted."""

from __future__ import annotations

import tempfile
from pathlib import Path

from coverage import CoverageData
from twisted.trial.unittest import SynchronousTestCase

from tools.reached_lines import ReachedLines

MODULE = """\
LIMIT = 10


def first(number):
    if number > LIMIT and (
        number < 100
    ):
        return 1
    return 2
"""


class ReachedLinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        (self.root / "module.py").write_text(MODULE)
        files = [self.noted("one", {"": [1, 4], "a": [5, 9]}), self.noted("two", {"b": [6, 8]})]
        self.reached = ReachedLines(self.root, files)

    def noted(self, name: str, contexts: dict[str, list[int]]) -> Path:
        """Write the data file of a run: the lines that each test has reached."""
        path = self.root / name
        data = CoverageData(str(path))
        for context, lines in contexts.items():
            data.set_context(context)
            data.add_lines({str(self.root / "module.py"): lines})
        data.write()
        return path

    def test_a_statement_of_several_lines(self) -> None:
        """A test reaches all of it if it reaches a line of it; its body is apart."""
        for line in (5, 6, 7):
            self.assertEqual(self.reached.tests("module.py", line), {"a", "b"}, line)
        self.assertEqual(self.reached.tests("module.py", 8), {"b"})
        self.assertEqual(self.reached.tests("module.py", 9), {"a"})

    def test_what_runs_at_the_import(self) -> None:
        """Any test may notice a change of it."""
        self.assertEqual(self.reached.tests("module.py", 1), set())
        self.assertEqual(self.reached.tests("module.py", 4), set())

    def test_a_module_that_no_test_reaches(self) -> None:
        (self.root / "other.py").write_text("def f():\n    return 1\n")
        self.assertEqual(self.reached.tests("other.py", 2), set())
