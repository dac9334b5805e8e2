"""Issue 14: the tests of a module, by its place and by imports."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.tests_of_modules import TestsOfModules, servers_of

FILES = {
    "kupool/a/__init__.py": "from kupool.a.one import One",
    "kupool/a/one.py": "from kupool.a.two import Two",
    "kupool/a/two.py": "",
    "tests/fakes/ones.py": "from kupool.a import One",
    "tests/unit/a/test_one.py": "from kupool.a.one import One",
    "tests/unit/a/test_other.py": "from kupool.a.one import One",
    "tests/unit/b/test_far.py": "from tests.fakes.ones import some",
    "tests/unit/b/test_none.py": "",
    "tests/contract/test_two.py": "from kupool.a.two import Two",
    "tests/contract/test_one_postgres.py": "from kupool.a.one import One",
    "tests/integration/test_long.py": "from kupool.a.two import Two",
}


class TestsOfModulesTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = Path(folder.name)
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        self.tests = TestsOfModules(root)

    def test_its_own_place_first_then_what_imports_it(self) -> None:
        """By way of a package's ``__init__`` and of fakes, too."""
        own, *others = self.tests.of("kupool/a/one.py")
        self.assertEqual(own, "tests/unit/a/test_one.py")
        self.assertEqual(others[:2], ["tests/unit/a/test_other.py", "tests/unit/b/test_far.py"])

    def test_servers_last(self) -> None:
        """What needs a server takes long: most mutants are killed before."""
        self.assertEqual(
            self.tests.of("kupool/a/one.py")[3:], ["tests/contract/test_one_postgres.py"]
        )

    def test_which_servers(self) -> None:
        """Contract tests say it by their names; unit tests need none, wherever they are."""
        self.assertEqual(servers_of("tests/contract/test_log_rabbit.py"), ["rabbit"])
        self.assertEqual(
            servers_of("tests/contract/test_rabbit_postgres.py::A::test_b"), ["rabbit", "postgres"]
        )
        self.assertEqual(servers_of("tests/unit/log/rabbit/test_log.py"), [])

    def test_without_a_place(self) -> None:
        """Those of the package, and the nearest; tests that start processes never."""
        found = self.tests.of("kupool/a/two.py")
        package = ["tests/unit/a/test_one.py", "tests/unit/a/test_other.py"]
        self.assertEqual(found, [*package, "tests/contract/test_two.py"])
