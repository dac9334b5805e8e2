"""A writer of topics that is killed a few times; five hundred kills are a command (Q-88)."""

from __future__ import annotations

import random
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.topic_kills import Books, run


class TopicKillsTests(SynchronousTestCase):
    """Q-01, Q-06, Q-10, Q-24: a few kills, and a tool that notices what it should."""

    def test_what_was_confirmed_is_there_once_and_in_order(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        books = run(folder, 4, random.Random(1))
        self.assertEqual(books.problems, [])
        self.assertGreater(len(books.confirmed), 0)
        self.assertGreaterEqual(len(books.seen), len(books.confirmed))

    def test_differences(self) -> None:
        def problems(*founds: dict[tuple[int, int], int]) -> int:
            books = Books()
            books.confirmed[0, 0] = 7
            for found in founds:
                books.compare(found)
            return len(books.problems)

        self.assertEqual(problems({(0, 0): 7, (0, 1): 8, (1, 0): 3}), 0)
        self.assertEqual(problems({(0, 0): 8}), 1)
        self.assertEqual(problems({}), 1)
        self.assertEqual(problems({(0, 0): 7, (0, 2): 8}), 1)
        self.assertEqual(problems({(0, 0): 7, (0, 1): 7}), 1)
        self.assertEqual(problems({(0, 0): 7, (0, 1): 6}), 1)
        self.assertEqual(problems({(0, 0): 7, (0, 1): 8}, {(0, 0): 7, (0, 1): 9}), 1)
