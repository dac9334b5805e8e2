"""Issue 14, item 4: every code block of every page runs, or says why it does not.

To add a page, put it into ``docs/``: it is run from then on, in a folder like a clone of the
project. ``tests/docs/pages.py`` says what each kind of block is and what a comment can tell the
test, ``tests/docs/likeness.py`` which values may be others than those shown. What the reader has
before the first line, such as a RabbitMQ, is in ``tests/docs/set_ups.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import blocks, names
from tests.docs.reader import Reader
from tests.docs.set_ups import SET_UPS

#: Pages with a block that does not work yet, and why. To be emptied.
KNOWN: dict[str, str] = {}

#: How many blocks of a page are not run; the page has the reason at each.
#: ``python -m tests.docs`` lists them.
NOT_RUN: dict[str, int] = {
    "README.md": 3,
    "README.zh-CN.md": 3,
    "docs/accounts.md": 1,
    "docs/architecture.md": 1,
    "docs/backup.md": 3,
    "docs/bus.md": 1,
    "docs/framework.md": 2,
    "docs/install.md": 7,
    "docs/live.md": 4,
    "docs/migrate.md": 2,
    "docs/operations.md": 1,
    "docs/settings.md": 1,
    "docs/speed.md": 3,
    "docs/store-and-log.md": 2,
    "docs/rooms.md": 1,
}

#: The page whose blocks another one shows in another language.
TRANSLATED = {
    "README.zh-CN.md": "README.md",
    "docs/install.zh-CN.md": "docs/install.md",
}


class PagesTests(SynchronousTestCase):
    """Each page, block by block, as a reader would go through it.

    A-41: the framework and rooms as they are told to those who build on them. A-62: what
    docs/bus.md shows of the bus across nodes is what is there.
    """

    def read(self, page: str) -> None:
        if page in KNOWN:
            raise SkipTest(KNOWN[page])
        with Reader(page) as reader:
            failures = reader.failures()
        self.assertEqual(failures, [], "\n\n".join(failures))


def _add(page: str) -> None:
    name = "test_" + re.sub(r"\W", "_", page.removeprefix("docs/").removesuffix(".md"))
    setattr(PagesTests, name, lambda self: self.read(page))


for _page in sorted(set(names()) - set(TRANSLATED)):
    _add(_page)


class EveryBlockTests(SynchronousTestCase):
    """No block is forgotten."""

    def test_what_is_not_run(self) -> None:
        """Each has a reason, and there are no more of them than are known."""
        counts: Counter[str] = Counter()
        for page in names():
            for block in blocks(page):
                if block.why_not is not None:
                    self.assertGreater(len(block.why_not.split()), 1, block.where)
                    counts[page] += 1
        self.assertEqual(counts, NOT_RUN)

    def test_a_translated_page_has_the_blocks_of_the_other(self) -> None:
        for page, other in TRANSLATED.items():
            if page in KNOWN:
                raise SkipTest(KNOWN[page])
            run = [block.text for block in blocks(other)]
            for block in blocks(page):
                self.assertTrue(block.why_not or block.text in run, block.where)

    def test_tables_name_pages(self) -> None:
        for table in (KNOWN, NOT_RUN, TRANSLATED, SET_UPS):
            self.assertLessEqual(set(table), set(names()))
