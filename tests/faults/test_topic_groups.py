"""A consumer group whose members come and go for some seconds; ten minutes are a command."""

from __future__ import annotations

import random
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.topic_groups import older_commits, run
from tools.topic_member import Results


class TopicGroupsTests(SynchronousTestCase):
    """Q-42, Q-43, Q-44, Q-46, Q-47: some changes, and a tool that notices what it should."""

    def folder(self) -> Path:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        return folder

    def test_every_number_is_counted_once(self) -> None:
        trial = run(self.folder(), 15, random.Random(3), rate=100)
        self.assertEqual(trial.problems, [])
        self.assertGreater(len(trial.ownerless), 0)

    def test_commits_of_an_older_generation(self) -> None:
        seen = [(1.0, 5), (2.0, 6), (3.0, 7)]
        good = [(0.5, 1), (1.5, 5), (2.0, 5), (2.1, 6), (9.0, 8)]
        self.assertEqual(older_commits(good, seen), [])
        self.assertEqual(len(older_commits([(2.1, 5), (3.1, 6), (3.2, 7)], seen)), 2)

    def test_what_is_wrong_with_records(self) -> None:
        """A gap and a number that is counted twice are noticed; what comes again is not counted."""
        results = Results(self.folder() / "results")
        self.addCleanup(results.close)
        self.assertEqual(results.count("a", 0, [(0, 10), (1, 11)]), "")
        self.assertEqual(results.count("b", 0, [(0, 10), (1, 11), (2, 12)]), "")
        self.assertIn("5 was read, 3 is next", results.count("a", 0, [(5, 15)]))
        self.assertIn("a number is there twice", results.count("a", 1, [(0, 10)]))
        self.assertEqual(results.table("counted"), {10: "a", 11: "a", 12: "b", 15: "a"})
        self.assertEqual(results.table("processed"), {10: 2, 11: 2, 12: 1, 15: 1})
