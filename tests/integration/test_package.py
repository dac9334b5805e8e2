"""The package: what is installed is all that the source has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import ROOT

#: Run by the Python of the built package alone.
_IMPORTS_ALL = """
import pkgutil, sys
from importlib import import_module
sys.path.insert(0, sys.argv[1])
import kupool
for module in pkgutil.walk_packages(kupool.__path__, "kupool."):
    import_module(module.name)
print(kupool.__file__)
"""

#: What is installed beside the modules.
_DATA = ("*.sql", "py.typed", "*.html", "*.css", "*.js")


class PackageTests(SynchronousTestCase):
    """Q-96: the published source builds, and nothing is missing."""

    def setUp(self) -> None:
        self.source = Path(self.mktemp())
        self.source.mkdir(parents=True)
        for name in ("kupool", "twisted"):
            shutil.copytree(
                ROOT / name, self.source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, self.source)
        self.built = self.source.resolve() / "built"
        command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(self.built)]
        subprocess.run(command, cwd=self.source, check=True, capture_output=True, timeout=120)

    def files(self, folder: Path) -> set[str]:
        wanted = ("*.py", *_DATA)
        return {
            path.relative_to(folder).as_posix()
            for pattern in wanted
            for path in folder.rglob(pattern)
        }

    def test_every_file_is_installed(self) -> None:
        expected = {f"kupool/{name}" for name in self.files(self.source / "kupool")}
        expected.add("twisted/plugins/kupool_plugin.py")
        self.assertEqual(self.files(self.built), expected)

    def test_every_module_can_be_imported(self) -> None:
        command = [sys.executable, "-P", "-c", _IMPORTS_ALL, str(self.built)]
        done = subprocess.run(
            command, cwd=self.built, capture_output=True, text=True, timeout=120, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(Path(done.stdout.strip()), self.built / "kupool" / "__init__.py")
