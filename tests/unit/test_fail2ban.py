"""The filter for fail2ban finds addresses in lines of the log, and only those of attackers."""

from __future__ import annotations

import re
from collections.abc import Callable
from configparser import ConfigParser
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.login_guard import LoginGuard, LoginSettings
from kupool.daemon.observer import as_json, as_text
from kupool.net.admission import Admission

HOST = "192.0.2.7"

FOLDER = Path(__file__).parents[2] / "etc" / "fail2ban"

#: What fail2ban makes of the tags and of the parts of a time.
TAGS = {
    "<ADDR>": r"\[?(?P<host>[0-9a-fA-F.:]*[0-9a-fA-F])\]?",
    "<SUBNET>": r"\[?(?P<host>[0-9a-fA-F.:]*[0-9a-fA-F:])(?:/\d+)?\]?",
}
TIMES = {"%Y": r"\d{4}", "%m": r"\d\d", "%d": r"\d\d", "%H": r"\d\d", "%M": r"\d\d", "%S": r"\d\d"}
TIMES |= {"%f": r"\d{1,6}", "%z": r"(?:Z|[+-]\d\d:?\d\d)"}


class FilterTests(SynchronousTestCase):
    """Issue 15, build 9: a filter for fail2ban works on the lines of the daemon."""

    def setUp(self) -> None:
        parser = ConfigParser()
        parser.read(FOLDER / "filter.d" / "kupool.conf", "utf-8")
        definition = parser["Definition"]
        self.patterns = [
            self.translated(line, TAGS) for line in definition["failregex"].splitlines()
        ]
        self.date = self.translated(definition["datepattern"], TIMES)
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.clock = Clock()
        self.guard = LoginGuard(self.clock, LoginSettings(address_failures=1, delay=0.0))
        self.admission = Admission(self.clock)
        self.addCleanup(self.guard.refusals.stop)

    def translated(self, text: str, words: dict[str, str]) -> re.Pattern[str]:
        for word, pattern in words.items():
            text = text.replace(word, pattern)
        return re.compile(text)

    def found(self, happens: Callable[[], object]) -> list[str]:
        """Return what is found in the lines of each form: files, and the journal."""
        self.events.clear()
        happens()
        found = []
        for event in self.events:
            for form in (as_text, as_json):
                line = form(event)
                self.assertRegex(line, self.date)
                in_journal = f"pool1 twistd[17]: {line}"
                hits = [self.hit(self.date.sub("", line, count=1)), self.hit(in_journal)]
                self.assertEqual(hits[0], hits[1], line)
                found.append(hits[0])
        self.assertEqual(found[::2], found[1::2])
        return found[::2]

    def hit(self, line: str) -> str:
        matches = [match for pattern in self.patterns if (match := pattern.search(line))]
        self.assertLessEqual(len(matches), 1)
        return matches[0]["host"] if matches else ""

    def fail_to_log_in(self, user: str, host: str) -> None:
        attempt = self.successResultOf(self.deferred(self.guard.enter(user, host)))
        self.guard.leave(attempt, failed=True)
        self.guard.refused(attempt, "wrong password or token, or no such user")

    def deferred(self, work: Any) -> Any:
        return Deferred.fromCoroutine(work)

    def test_failed_logins(self) -> None:
        for host in ("192.0.2.7", "2001:db8::7"):
            self.assertEqual(self.found(lambda host=host: self.fail_to_log_in("al", host)), [host])

    def test_too_many_failed_logins(self) -> None:
        self.fail_to_log_in("al", "192.0.2.7")
        self.assertEqual(self.found(lambda: self.guard_refuses("192.0.2.7")), ["192.0.2.7"])

    def guard_refuses(self, host: str) -> None:
        self.deferred(self.guard.enter("al", host)).addErrback(lambda failure: None)

    def test_bans(self) -> None:
        def ban(host: str) -> Callable[[], object]:
            return lambda: self.admission.ban(host, 60.0, "too many rejected submissions")

        self.assertEqual(self.found(ban("192.0.2.7")), ["192.0.2.7"])
        self.assertEqual(self.found(ban("2001:db8::7")), ["2001:0db8:0000:0000::"])
        self.assertEqual(self.found(lambda: self.admission.unban("192.0.2.7", "ada")), [""])

    def test_refused_connections_are_no_attacks(self) -> None:
        """Also those get them who come when a pool is full."""
        self.assertEqual(
            self.found(lambda: self.admission.refusals.note("connection, banned", "192.0.2.7")),
            [""],
        )
        self.admission.refusals.stop()

    def test_names_that_look_like_lines(self) -> None:
        """Nobody can have another address banned by a name."""
        for name in (
            "x' from 198.51.100.9: user 'y': wrong",
            "WARN: Login refused from 198.51.100.9: user 'y'",
            '", "level": "warn", "module": "kupool.x", "message": "Banned 198.51.100.9 for 60 s',
            "\nLogin refused from 198.51.100.9: user",
            "2026-11-30 08:00:00Z WARN: Banned 198.51.100.9 for 60 s",
        ):
            why = f"too many rejected submissions, the last by {name!r:.80}"
            for happens, expected in (
                (partial(self.fail_to_log_in, name, HOST), HOST),
                (partial(self.admission.ban, HOST, 60.0, why), HOST),
                (partial(self.admission.refusals.note, "authorize, x", HOST, name), ""),
            ):
                self.assertEqual(self.found(happens), [expected])
            self.clock.advance(60.0)
            self.admission.refusals.stop()

    def test_an_example_of_a_jail(self) -> None:
        parser = ConfigParser()
        parser.read(FOLDER / "jail.d" / "kupool.conf", "utf-8")
        self.assertEqual(parser["kupool"]["filter"], "kupool")
