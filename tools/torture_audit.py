"""What ``kupool audit`` says after a round: it must be right, also of a row that is false."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from tests.servers.commands import kupool
from tools.torture_accounts import Row
from tools.torture_site import Site

#: The exit status: all is equal, there are differences, there is nothing to compare, the log
#: does not reach back to what was asked for.
EQUAL, DIFFERENT, NOTHING, CUT_OFF = 0, 1, 3, 4

#: Times, and the seconds between, that the audit is asked again after a new log.
_LOOKS = 20
_PAUSE = 2.0

#: Lines of an answer that are shown.
_SHOWN = 6

_DIFFERENCE = re.compile(
    r"(?P<minute>\d{4,5}-\d\d-\d\d \d\d:\d\d) (?P<name>\S+): "
    r"(?P<logged>\d+) in the log, (?P<counted>\d+) counted"
)


class Said(NamedTuple):
    """The exit status, what was printed, and the rows that were named, by (name, minute)."""

    status: int
    text: str
    rows: dict[tuple[str, int], tuple[int, int]]

    def __str__(self) -> str:
        lines = self.text.strip().splitlines()
        if len(lines) > _SHOWN:
            lines[_SHOWN - 1 : -1] = ["..."]
        return f"status {self.status}, {len(self.rows)} rows: {' / '.join(lines)}"


def read_answer(status: int, text: str) -> Said:
    """Return what an answer says: for each row that differs what is logged, and counted."""
    rows = {}
    for found in _DIFFERENCE.finditer(text):
        at = datetime.strptime(found["minute"], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        rows[found["name"], int(at.timestamp())] = (int(found["logged"]), int(found["counted"]))
    return Said(status, text, rows)


class Forgery(NamedTuple):
    """A row that is made false: its count becomes ``made``; None: it is deleted."""

    row: Row
    made: int | None

    def __str__(self) -> str:
        return f"{self.row} made {self.made}"


def forge(rows: Iterable[Row], minutes: set[int], chance: random.Random) -> Forgery | None:
    """Choose a row to falsify in one of these minutes; None where there is none."""
    known = [row for row in rows if row.minute in minutes]
    if not known:
        return None
    row = chance.choice(known)
    kind = chance.randrange(4)
    if kind == 0:
        return Forgery(row, None)
    if kind == 1:  # a user, or a worker, whom nobody has seen
        name = f"{row.name.partition('.')[0]}.forged" if "." in row.name else "forged"
        return Forgery(Row(name, row.minute, 0), chance.randint(1, 3))
    return Forgery(row, row.submissions + (1 if kind == 2 or row.submissions == 1 else -1))


class Auditor:
    """Asks after a round, and counts what was asked; returns what was wrong as texts."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._chance = random.Random(f"{seed}/audit")
        self.asked = self.forged = 0
        self.statuses: dict[int, int] = {}

    def check(self) -> list[str]:
        """Ask how it is, and once more with a row that is false."""
        said = self._ask()
        wrong = self._judge_honest(said)
        site = self._site
        minutes = site.accounts.covered()
        if not site.accounts.whole:
            minutes &= site.claimed()
        forgery = forge(site.rows(), minutes, self._chance)
        if forgery is not None:
            wrong += self._try(forgery)
        return wrong

    def _try(self, forgery: Forgery) -> list[str]:
        self.forged += 1
        row, site = forgery.row, self._site
        site.set_row(row, forgery.made)
        try:
            said = self._ask()
            for _ in range(_LOOKS):
                if site.accounts.whole or said.status != CUT_OFF or said.rows:
                    break
                time.sleep(_PAUSE)  # what follows a new log may be under way
                said = self._ask()
        finally:
            site.set_row(row, row.submissions or None)
        expected = {(row.name, row.minute): (row.submissions, forgery.made or 0)}
        if said.status == DIFFERENT and said.rows == expected:
            return []
        return [f"audit, with {forgery}: {said}"]

    def _judge_honest(self, said: Said) -> list[str]:
        """Say whether an answer is right when all counts are."""
        if self._site.accounts.whole:
            fine = said.status == EQUAL
        else:  # it has to say that, and why, it cannot tell of everything
            fine = said.status in (NOTHING, CUT_OFF) and bool(said.text.strip())
        if fine and not said.rows:
            return []
        return [f"audit: {said}"]

    def _ask(self) -> Said:
        site = self._site
        done = kupool("audit", *site.audit_flags(), env=site.clock.environment)
        self.asked += 1
        self.statuses[done.returncode] = self.statuses.get(done.returncode, 0) + 1
        return read_answer(done.returncode, done.stdout + done.stderr)


__all__ = ["Auditor", "Forgery", "Said", "forge", "read_answer"]
