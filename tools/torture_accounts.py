"""The accounts of the torture: what clients were told, what the log holds, what is counted.

The log may be taken away, or replaced by an older copy: what it held until then was read
before, and is still what must have been counted. Nothing in here is code of the daemon.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import NamedTuple

from tools.torture_load import Key

#: A name and a minute, in seconds since the epoch. A worker's name is ``user.worker``.
Minute = tuple[str, int]

_NEVER = 2**40
_DAY = 86_400


class Stored(NamedTuple):
    """An entry of a log: its place, its id, its content."""

    offset: int
    entry_id: str
    body: bytes


class Row(NamedTuple):
    """A row of the per-minute tables; ``name`` is a user or, with a dot, a worker."""

    name: str
    minute: int
    submissions: int


class _Batch(NamedTuple):
    """What is kept of a batch; ``minute`` is None where it holds no submission."""

    digest: bytes
    minute: int | None


class Findings(NamedTuple):
    """What does not agree, as texts, and in how many submissions it is less or more."""

    texts: list[str]
    lost: int
    double: int

    def __bool__(self) -> bool:
        return bool(self.texts)


class Accounts:
    """Compares what is new since the last round, and at the end everything.

    ``read`` returns the entries of the log from a place on, and the number of dead letters;
    ``count`` returns the rows from a minute on, those of whole hours and days with their
    first. ``record`` returns, as ``read`` does, what was sent to the log, where somebody takes
    that down beside it. ``rolled`` returns the minute before which minutes are rolled up:
    there counts are compared by the day.
    """

    def __init__(
        self,
        read: Callable[[int], tuple[list[Stored], int]],
        count: Callable[[int], Iterable[tuple[str, int, int]]],
        record: Callable[[int], list[Stored]] | None = None,
        rolled: Callable[[], int] = lambda: 0,
    ) -> None:
        self._read = read
        self._count = count
        self._record = record
        self._rolled = rolled
        self._next = self._next_record = 0
        #: All batches that ever were in the log, by id; and how many were in it once more.
        self.batches: dict[str, _Batch] = {}
        self.copies = 0
        self.logged: set[Key] = set()
        self.minutes: Counter[Minute] = Counter()
        #: The batches that the log holds now, and how many for each minute: in it, and ever.
        self._here: set[str] = set()
        self._here_in: Counter[int] = Counter()
        self._ever_in: Counter[int] = Counter()
        #: Sent to the log, and not in it, or not yet.
        self._elsewhere: set[str] = set()
        self._excused = False
        #: How often the log was taken away, or replaced.
        self.logs_taken = 0
        self.in_table = 0
        self._told: set[Key] = set()
        self._unknown: set[Key] = set()
        #: What is on one side and not, or not yet, on the other.
        self._not_logged: set[Key] = set()
        self._not_told: set[Key] = set()
        self._dead = self._dead_before = 0
        #: The first minute that has changed in this round.
        self._since = _NEVER
        #: What has been found in this round and stays so.
        self._found: list[str] = []
        self._twice: set[Key] = set()
        #: How far the counts are off, as has been reported.
        self._off: Counter[Minute] = Counter()

    @property
    def in_log(self) -> int:
        """Submissions that are, or were, in the log."""
        return len(self.logged)

    @property
    def whole(self) -> bool:
        """Whether the log still holds all that ever was in it."""
        return self._here_in.total() == self._ever_in.total()

    def covered(self) -> set[int]:
        """Return the minutes of which the log holds every batch, and that are not rolled up."""
        before = self._rolled()
        return {
            minute
            for minute, n in self._ever_in.items()
            if self._here_in[minute] == n and minute >= before
        }

    def told(self, counted: Iterable[Key], unknown: Iterable[Key]) -> None:
        """Note what clients were told: counts, and cannot be known."""
        for key in counted:
            if key in self._told:
                self._double(key, "told twice that it counts")
            self._told.add(key)
            if key not in self.logged:
                self._not_logged.add(key)
            self._not_told.discard(key)
        self._unknown.update(unknown)
        self._not_told -= self._unknown

    def _double(self, key: Key, text: str) -> None:
        self._twice.add(key)
        self._found.append(f"{key}: {text}")

    # -- the log

    def read(self) -> None:
        """Read on in the log."""
        entries, self._dead = self._read(self._next)
        for entry in entries:
            self._next = max(self._next, entry.offset + 1)
            if entry.entry_id in self._here:
                self.copies += 1
            kept = self._keep(entry)
            if kept is not None and entry.entry_id not in self._here:
                self._here.add(entry.entry_id)
                if kept.minute is not None:
                    self._here_in[kept.minute] += 1
        self._elsewhere -= self._here
        for entry in self._record(self._next_record) if self._record is not None else ():
            self._next_record = max(self._next_record, entry.offset + 1)
            if self._keep(entry) is not None and entry.entry_id not in self._here:
                self._elsewhere.add(entry.entry_id)

    def new_log(self, excused: bool = False) -> None:
        """The log is another one from now on, and is read from its beginning.

        ``excused`` says that some of what is sent in this round may be in no log.
        """
        self.logs_taken += 1
        self.compare_every_minute()
        self._excused = self._excused or excused
        self._next = 0
        self._here.clear()
        self._here_in.clear()
        self._elsewhere.clear()

    def compare_every_minute(self) -> None:
        """In this round every minute may have changed: the store was replaced, or the log."""
        self._since = 0

    def _keep(self, entry: Stored) -> _Batch | None:
        """Take an entry into the accounts; returns what is kept of it, unless it is bad."""
        digest = sha256(entry.body).digest()
        known = self.batches.get(entry.entry_id)
        if known is not None:
            if known.digest == digest:
                return known
            self._found.append(f"batch {entry.entry_id}: in the log with two contents")
            return None
        batch = json.loads(entry.body)
        rows = list(zip(batch["usernames"], batch["job_ids"], batch["client_nonces"], strict=True))
        if not rows:  # a note
            self.batches[entry.entry_id] = _Batch(digest, None)
            return self.batches[entry.entry_id]
        minute = batch["at"] // 60000 * 60
        kept = self.batches[entry.entry_id] = _Batch(digest, minute)
        self._ever_in[minute] += 1
        self._since = min(self._since, minute)
        for name, job, nonce in rows:
            user, _, worker = name.rpartition(".")
            if user and worker:
                self.minutes[name, minute] += 1
            else:
                user = name
            self._take((user, job, nonce), minute)
        return kept

    def _take(self, key: Key, minute: int) -> None:
        self.minutes[key[0], minute] += 1
        if key in self.logged:
            self._double(key, "twice in the log")
        self.logged.add(key)
        self._not_logged.discard(key)
        if key not in self._told and key not in self._unknown:
            self._not_told.add(key)

    # -- what is found

    def compare(self) -> Findings:
        """Say what does not agree now; some of it may only not have arrived yet."""
        off = self._counts_off()
        missing = () if self._excused else self._elsewhere
        texts = [
            *self._found,
            *(f"{key}: told that it counts, and not in the log" for key in self._not_logged),
            *(f"{key}: in the log, and never answered so" for key in self._not_told),
            *(f"batch {batch}: sent to the log, and not in it" for batch in missing),
            *(
                f"{name}, minute {minute}: {by:+d} in the table against the log"
                for (name, minute), by in sorted(off.items())
            ),
        ]
        if self._dead != self._dead_before:
            texts.append(f"{self._dead - self._dead_before} dead letters")
        of_users = [by for (name, _), by in off.items() if "." not in name]
        lost = len(self._not_logged) - sum(by for by in of_users if by < 0)
        double = len(self._twice) + sum(by for by in of_users if by > 0)
        return Findings(texts, lost, double)

    def uncounted(self) -> int:
        """Return how many submissions in the log are not in the table."""
        self.compare_every_minute()
        off = self._counts_off()
        return -sum(by for (name, _), by in off.items() if by < 0 and "." not in name)

    def _counts_off(self) -> dict[Minute, int]:
        """Return by how much each count of the changed minutes is higher than the log says."""
        since, before = self._since, self._rolled()
        if since < before:
            since = since // _DAY * _DAY

        def place(name: str, minute: int) -> Minute:
            return name, minute if minute >= before else minute // _DAY * _DAY

        rows: Counter[Minute] = Counter()
        for name, minute, count in self._count(since):
            rows[place(name, minute)] += count
        self.in_table = sum(count for (name, _), count in rows.items() if "." not in name)
        logged: Counter[Minute] = Counter()
        for (name, minute), count in self.minutes.items():
            if minute >= since:
                logged[place(name, minute)] += count
        off = {key: rows[key] - logged[key] for key in rows.keys() | logged.keys()}
        return {key: by - self._off[key] for key, by in off.items() if by != self._off[key]}

    def close_round(self) -> None:
        """What was found is reported, and is not found again."""
        self._off.update(self._counts_off())
        self._not_logged.clear()
        self._not_told.clear()
        self._elsewhere.clear()
        self._excused = False
        self._dead_before = self._dead
        self._found, self._twice = [], set()
        self._since = _NEVER

    def compare_all(self) -> Findings:
        """Read the whole log again, and compare all of it with every count."""
        again, _ = self._read(0)
        kept = {entry.entry_id: sha256(entry.body).digest() for entry in again}
        self._found += [
            f"batch {entry_id}: was in the log and is not any more, or has changed"
            for entry_id in self._here
            if kept.get(entry_id) != self.batches[entry_id].digest
        ]
        self.compare_every_minute()
        return self.compare()


__all__ = ["Accounts", "Findings", "Minute", "Row", "Stored"]
