"""The chat of docs/framework.md is the example of that name."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_examples import CHAT_FILES, blocks
from tests.servers.programs import EXAMPLES


class ChatSectionTests(SynchronousTestCase):
    """A-41: what a newcomer makes of the page; tests.docs runs it, step by step."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        for block in blocks("python"):
            name = re.match(r"# (\w+\.py)\n", block)
            if name is not None and name[1] in CHAT_FILES:
                (self.folder / name[1]).write_text(block, "utf-8")

    def test_it_is_the_example(self) -> None:
        """The page and the example are one, and short."""
        for name in CHAT_FILES:
            shown = (self.folder / name).read_text("utf-8")
            self.assertEqual(f"# {name}\n" + (EXAMPLES / name).read_text("utf-8"), shown)
        self.assertLessEqual(len((EXAMPLES / "chat.py").read_text("utf-8").splitlines()), 60)
