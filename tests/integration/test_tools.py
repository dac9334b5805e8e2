"""Issue 14: the long-running tools are commands with help, and are listed."""

from __future__ import annotations

import re
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import ROOT

README = ROOT / "tools" / "README.md"


def commands() -> list[str]:
    """The modules of `tools` that can be run, by their dotted names."""
    return sorted(
        f"tools.{path.stem}"
        for path in (ROOT / "tools").glob("*.py")
        if '__name__ == "__main__"' in path.read_text("utf-8")
    )


class ToolTests(SynchronousTestCase):
    def test_each_is_listed(self) -> None:
        text = (ROOT / "tools" / "README.md").read_text("utf-8")
        self.assertEqual(
            sorted(re.findall(r"^\| `python -m (\S+)`", text, re.MULTILINE)), commands()
        )

    def test_each_has_help(self) -> None:
        started = {
            name: subprocess.Popen(
                [sys.executable, "-m", name, "--help"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name in commands()
        }
        for name, process in started.items():
            shown, _ = process.communicate()
            self.assertEqual(process.returncode, 0, shown)
            self.assertRegex(shown, r"^usage: ", name)

    def test_commands_in_documents_exist(self) -> None:
        """What the documents tell to run is there."""
        documents = [
            *ROOT.glob("*.md"),
            *(ROOT / "docs").glob("*.md"),
            ROOT / "tools" / "README.md",
        ]
        named = {
            name
            for path in documents
            for name in re.findall(
                r"-m ((?:tools|tests|bench)\.\w[\w.]*\w)", path.read_text("utf-8")
            )
        }
        self.assertIn("tools.kill9", named)
        for name in named:
            parts = ROOT / name.replace(".", "/")
            self.assertTrue(parts.with_suffix(".py").is_file() or parts.is_dir(), name)
