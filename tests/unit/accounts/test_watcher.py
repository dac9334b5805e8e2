"""The accounts in memory, and their file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from kupool.accounts.entries import BrokenAccounts, Secret
from kupool.accounts.file import AccountFile
from kupool.accounts.watcher import AccountWatcher


def the_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


class WatcherTests(TestCase):
    """K-17: the last good copy is kept while the file is missing or broken."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.write("alice:secret\n")
        self.watcher = AccountWatcher(the_reactor(), AccountFile(self.path))
        self.addCleanup(lambda: ensureDeferred(self.watcher.stop()))
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def logged(self, level: Any = None) -> list[str]:
        """Return what was logged since the last call, of one level or of all."""
        events, self.events[:] = list(self.events), []
        ours = [e for e in events if e.get("log_namespace", "").startswith("kupool")]
        return [formatEvent(e) for e in ours if level in (None, e["log_level"])]

    def write(self, text: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text, "utf-8")
        os.chmod(fresh, 0o600)
        os.replace(fresh, self.path)

    async def look(self) -> None:
        """Look twice: what has changed is read when it looks the same once more."""
        await self.watcher.look()
        await self.watcher.look()

    def names(self) -> list[str]:
        return self.watcher.accounts.names

    async def test_a_change_is_read(self) -> None:
        await self.look()
        self.assertEqual(self.logged(), [])
        self.write("alice:secret\nbob:secret\n")
        await self.watcher.look()
        self.assertEqual(self.names(), ["alice"])
        await self.watcher.look()
        self.assertEqual(self.names(), ["alice", "bob"])
        (line,) = self.logged(LogLevel.info)
        self.assertIn("Read 2 accounts", line)
        self.assertIn("1 new, 0 gone", line)

    async def test_a_file_that_is_away(self) -> None:
        moved = self.path.with_suffix(".away")
        self.path.rename(moved)
        await self.look()
        self.assertEqual(self.names(), ["alice"])
        self.assertEqual(self.watcher.problem, "No such file or directory")
        self.assertEqual(len(self.logged(LogLevel.error)), 1)
        moved.rename(self.path)
        await self.look()
        self.assertEqual(self.watcher.problem, "")
        self.write("bob:secret\n")
        await self.look()
        self.assertEqual(self.names(), ["bob"])

    async def test_a_file_that_is_broken(self) -> None:
        for text in ("", "bad line\n", "alice:secret\nbob\n"):
            self.write(text)
            await self.look()
            self.assertEqual(self.names(), ["alice"])
            self.assertTrue(self.watcher.problem, text)
        self.assertEqual(self.watcher.problem, "line 2: there is no colon after the name")
        self.write("alice:secret\nbob:secret\n")
        await self.look()
        self.assertEqual(self.watcher.problem, "")
        self.assertEqual(self.names(), ["alice", "bob"])

    async def test_the_same_file_again_after_a_broken_one(self) -> None:
        kept = self.path.with_suffix(".kept")
        os.link(self.path, kept)
        self.write("bad\n")
        await self.look()
        self.assertTrue(self.watcher.problem)
        os.replace(kept, self.path)
        await self.look()
        self.assertEqual(self.watcher.problem, "")

    async def test_it_is_read_again_when_asked(self) -> None:
        """K-17: on SIGHUP, without waiting for a second look."""
        self.write("carol:secret\n")
        await self.watcher.reread()
        self.assertEqual(self.names(), ["carol"])

    async def test_what_an_operator_should_know(self) -> None:
        """K-17: plain text, with the command that hashes it, and a file that others can read."""
        os.chmod(self.path, 0o644)
        watcher = AccountWatcher(the_reactor(), AccountFile(self.path))
        watcher.start()
        await watcher.stop()
        plain, mode = self.logged(LogLevel.warn)
        self.assertIn("contains plain-text passwords of alice", plain)
        self.assertIn(f"kupool user hash --file {self.path}", plain)
        self.assertNotIn("secret", plain)
        self.assertIn(f"chmod 600 {self.path}", mode)

    async def test_many_lines_that_cannot_be_read_are_few_in_the_log(self) -> None:
        """K-92"""
        self.write("alice:secret\n" + "bad\n" * 1000)
        watcher = AccountWatcher(the_reactor(), AccountFile(self.path))
        watcher.start()
        await watcher.stop()
        self.assertTrue(len(self.logged(LogLevel.warn)) < 10)

    def test_no_file_to_begin_with(self) -> None:
        self.path.unlink()
        self.assertRaises(FileNotFoundError, self.make)
        self.path.write_text("")
        self.assertRaises(BrokenAccounts, self.make)
        AccountFile(self.path).replace(lambda s: False, (Secret("bob", "x"),))
        self.assertEqual(self.make().accounts.names, ["bob"])

    def make(self) -> AccountWatcher:
        return AccountWatcher(the_reactor(), AccountFile(self.path))
