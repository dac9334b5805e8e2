"""Issue 14, item 4: what a page's blocks say to a reader, and its comments to the test."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import Block, Command, Said, blocks


class BlockTests(SynchronousTestCase):
    def page(self, text: str) -> list[Block]:
        folder = tempfile.mkdtemp()
        path = Path(folder, "page.md")
        path.write_text(text, "utf-8")
        self.addCleanup(os.rmdir, folder)
        self.addCleanup(path.unlink)
        return blocks(str(path))

    def only(self, text: str) -> Block:
        (block,) = self.page(text)
        return block

    def test_blocks_and_their_comments(self) -> None:
        first, second = self.page(
            "<!-- test: not run: needs root -->\n```console\n$ a\n```\n"
            "- a list:\n  ```python\n  # a.py\n  x = 1\n  ```\n"
        )
        self.assertEqual((first.language, first.text, first.line), ("console", "$ a\n", 3))
        self.assertEqual(first.why_not, "needs root")
        self.assertEqual((second.text, second.why_not), ("# a.py\nx = 1\n", None))
        self.assertEqual((second.file_name, second.continues), ("a.py", False))

    def test_what_cannot_be_meant(self) -> None:
        for text in (
            "<!-- test: dance -->\n```console\n$ a\n```\n",
            "<!-- test: stays -->\nText.\n```console\n$ a\n```\n",
            "```console\n$ a\n",
        ):
            self.assertRaises(ValueError, self.page, text)

    def test_commands(self) -> None:
        block = self.only(
            "```console\n$ a \\\n  b\nout\nout\nann$ (echo 1\n  echo 2)\n$ cat <<E\n$ x\nE\n```\n"
        )
        self.assertEqual(
            block.commands(),
            [
                Command("", "a \\\n  b", ("out", "out")),
                Command("ann", "(echo 1\n  echo 2)", ()),
                Command("", "cat <<E\n$ x\nE", ()),
            ],
        )

    def test_a_block_that_goes_on(self) -> None:
        block = self.only("<!-- test: terminal: ann -->\n```console\nout\n```\n")
        self.assertEqual(block.commands(), [Command("ann", "", ("out",))])

    def test_a_file_in_two_blocks(self) -> None:
        first, second = self.page(
            "```yaml\n# a/b.yaml\n```\n```yaml\n# a/b.yaml (continued)\n```\n"
        )
        self.assertEqual([first.file_name, second.file_name], ["a/b.yaml"] * 2)
        self.assertEqual([first.continues, second.continues], [False, True])

    def test_a_conversation(self) -> None:
        block = self.only("```\nA> 00 x\n< y␊\n```\n")
        self.assertEqual(block.conversation(), [Said("A", True, "00 x"), Said("", False, "y␊")])
        self.assertIsNone(self.only("```\nA> x\nelse\n```\n").conversation())
