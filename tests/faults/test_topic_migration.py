"""Q-37, Q-85: topics are moved while a daemon takes records."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tools.topic_migration import move


class TopicMigrationTests(SynchronousTestCase):
    def test_under_load(self) -> None:
        """Every batch, every confirmed record and every position of a group is on the new side."""
        with tempfile.TemporaryDirectory(prefix="kupool-test-") as folder:
            move(Path(folder), 20_000, 5, 200.0)
