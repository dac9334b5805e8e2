"""A process that uses a spool, to be killed: ``python -m tests.servers.spool_process``.

Arguments: the spool's file, the file of the log behind, and what to do. ``fill`` appends
without end, prints the id of each entry that was acknowledged, and now and then drops out
or hangs on the side of the log behind; ``drain`` waits until nothing is left, and ends.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from kupool.log import ILog, LogStatus, LogUnavailable
from kupool.log.spool import SpooledLog, SpoolSettings
from kupool.log.spool_file import SpoolFile
from kupool.storage.database import Database


@implementer(ILog)
class LinesLog:
    """Entries as lines of a file, which outlive the process; fails as often as told."""

    persistent = True
    instant = False
    positional = False

    def __init__(self, path: str, fails: bool) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._fails = fails
        self._until = 0.0
        self._how = "refuse"

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        now = time.monotonic()
        if self._fails and now > self._until + 0.05:
            self._until = now + random.random() / 10
            self._how = random.choice(("refuse", "hang", "lie"))
        away = self._fails and now < self._until
        if not away or self._how == "lie":
            os.write(self._file, entry_id.encode() + b"\n")
        if away:
            return Deferred() if self._how == "hang" else fail(LogUnavailable(self._how))
        return succeed(None)

    def open(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def status(self) -> LogStatus:
        return LogStatus(0, 0, 0, "")


async def main(reactor: Any, spool: str, lines: str, action: str) -> None:
    """Do what the arguments say."""
    remote: Any = LinesLog(lines, action == "fill")
    file = SpoolFile(Database(reactor, Path(spool), "spool"), reactor, time.time)
    log = SpooledLog(remote, file, reactor, SpoolSettings(0.05, 0.2, 8, 0.01, 0.05))
    await log.open()
    print("open", flush=True)
    number = 0

    def acknowledged(_: object, entry_id: str) -> None:
        print(entry_id, flush=True)

    while action == "fill":
        for _ in range(5):
            number += 1
            entry_id = f"{os.getpid()}-{number}"
            log.append(entry_id, b"x" * 200).addCallback(acknowledged, entry_id)
        await task.deferLater(reactor, 0.003)
    while log.status().spooled:
        await task.deferLater(reactor, 0.02)
    await log.close()


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, *sys.argv[1:])))
