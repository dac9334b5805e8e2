"""``kupool config --api-key``, in this process."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.cli import main
from kupool.daemon.files import API_KEY_FILE

KEY = "k" * 40


class ApiKeyCommandTests(SynchronousTestCase):
    """Issue 17, build 3: the key is shown to who may read the data folder or the settings."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def run_config(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(["config", "--api-key", f"--data={self.folder}", *words])
        return status, out.getvalue(), err.getvalue()

    def test_of_the_data_folder(self) -> None:
        (self.folder / API_KEY_FILE).write_text(KEY)
        self.assertEqual(self.run_config(), (0, f"{KEY}\n", ""))

    def test_of_the_settings(self) -> None:
        """It is the one that counts, as in the daemon."""
        (self.folder / API_KEY_FILE).write_text(KEY)
        file = self.folder / "other"
        file.write_text("o" * 40)
        self.assertEqual(self.run_config(f"--live-api-key-file={file}"), (0, "o" * 40 + "\n", ""))

    def test_none(self) -> None:
        status, out, err = self.run_config()
        self.assertEqual((status, out), (1, ""))
        self.assertIn(f"{self.folder / API_KEY_FILE}: No such file", err)
        self.assertIn("--data", err)
