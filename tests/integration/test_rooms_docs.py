"""The chat of docs/framework.md: its files, its test and its conversations."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_examples import CHAT_FILES, blocks
from tests.servers.programs import EXAMPLES, Program
from tests.servers.sockets import Peer


class ChatSectionTests(SynchronousTestCase):
    """A-41: what a newcomer makes of the page works, step by step."""

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

    def test_its_test_passes(self) -> None:
        command = (sys.executable, "-m", "twisted.trial", "test_chat")
        with Program(*command, cwd=self.folder) as program:
            status, output = program.end()
        self.assertEqual(status, 0, output)
        self.assertIn("PASSED (successes=4)", output)

    def test_it_says_what_the_page_shows(self) -> None:
        shown = {b[:3]: b.splitlines()[1:] for b in blocks("console") if "$ nc" in b[:8]}
        with Program(sys.executable, "chat.py", "--port", "0", cwd=self.folder) as program:
            port = program.port()
            with Peer(port) as ann, Peer(port) as bob:
                for name, peer in (("ann", ann), ("bob", bob)):
                    for line in shown[name]:
                        if "method" in json.loads(line):
                            peer.send(line.encode() + b"\n")
                        else:
                            self.assertEqual(peer.line().decode(), line)
                (read,) = (b for b in blocks("console") if b.startswith('{"id":null,'))
                for line in read.splitlines():
                    self.assertEqual(ann.line().decode(), line)
                program.interrupt()
                self.assertIn(b"server going down", bob.line())
            self.assertEqual(program.end(), (0, ""))
