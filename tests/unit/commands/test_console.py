"""How a command line is read, and what a command prints."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import sys

from twisted.trial.unittest import SynchronousTestCase

from kupool.cli import make_parser
from kupool.commands.console import make_console, print_table, run_to_status
from kupool.printable import printable


class Terminal(io.StringIO):
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


class CommandLineTests(SynchronousTestCase):
    """K-88: one line that names what was wrong, and what was meant."""

    def refused(self, *words: str) -> str:
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        end = self.assertRaises(SystemExit, make_parser().parse_args, list(words))
        self.assertEqual(end.code, 2)
        self.assertEqual(stderr.getvalue().count("\n"), 1)
        return stderr.getvalue().rstrip()

    def test_an_option_that_does_not_exist(self) -> None:
        """K-88"""
        for words, said in (
            (
                ("stats", "--user", "x"),
                "stats: there is no option --user; did you mean --username?",
            ),
            (("stats", "--usrname=x"), "did you mean --username?"),
            (("audit", "--jsno"), "audit: there is no option --jsno; did you mean --json?"),
            (
                ("work", "--conect", "h:1"),
                "work: there is no option --conect; did you mean --connect",
            ),
            (("work", "--qqqq"), "work: there is no option --qqqq; see kupool work --help"),
            (("--verison",), "kupool: there is no option --verison; did you mean --version?"),
        ):
            self.assertIn(said, self.refused(*words))

    def test_its_value_is_not_repeated(self) -> None:
        """K-92: it may be a secret."""
        self.assertNotIn("s3cret", self.refused("stats", "--pg-dns=postgres://u:s3cret@h/d"))

    def test_other_mistakes(self) -> None:
        """K-88"""
        for words, said in (
            ((), "required: COMMAND; see kupool --help"),
            (("wrok",), "invalid choice: 'wrok'"),
            (("bench", "more"), "bench: unexpected argument 'more'"),
            (("work", "--connect"), "expected one argument; see kupool work --help"),
            (("work", "--sessions", "0"), "'0' is not a whole number of 1 or more"),
        ):
            self.assertIn(said, self.refused(*words))

    def test_values_that_look_like_options(self) -> None:
        found = make_parser().parse_args(["stats", "--username=-x", "-pg_dsn", "d"])
        self.assertIsInstance(found, argparse.Namespace)


class StatusTests(SynchronousTestCase):
    """K-88: interruptions and streams that fail are no tracebacks."""

    def status(self, error: BaseException) -> tuple[int, str]:
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)

        def fails() -> int:
            raise error

        return run_to_status(fails), stderr.getvalue()

    def test_each(self) -> None:
        """K-88"""
        self.patch(sys.modules["kupool.commands.console"], "forget_output", lambda: None)
        self.assertEqual(self.status(KeyboardInterrupt()), (130, ""))
        self.assertEqual(self.status(BrokenPipeError()), (141, ""))
        full = OSError(errno.ENOSPC, "No space left on device")
        self.assertEqual(self.status(full), (1, "kupool: No space left on device\n"))
        named = OSError(errno.EACCES, "Permission denied", "/x/y")
        self.assertEqual(self.status(named), (1, "kupool: /x/y: Permission denied\n"))

    def test_closed_streams(self) -> None:
        """K-88"""
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.patch(sys, "stdout", None)
        self.assertEqual(run_to_status(lambda: 0), 1)
        self.assertIn("standard output is closed", stderr.getvalue())


class TableTests(SynchronousTestCase):
    """K-73: tables fit the terminal, and show names as they are."""

    def shown(self, stdout: io.StringIO, name: str, columns: str) -> str:
        self.patch(sys, "stdout", stdout)
        before = os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = columns
        self.addCleanup(os.environ.__setitem__, "COLUMNS", before or "80")
        print_table(make_console(), ("user", "accepted"), [(name, 1234)], title=name, numbers=1)
        return stdout.getvalue()

    def test_it_fits(self) -> None:
        """K-73: a name that is too long goes on in the next line; the numbers stay whole."""
        text = self.shown(Terminal(), "x" * 200, "40")
        text = re.sub("\x1b\\[[0-9;]*m", "", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 40)
        self.assertIn("1,234", text)

    def test_nothing_is_cut_in_a_pipe(self) -> None:
        """K-73"""
        self.assertIn("x" * 200, self.shown(io.StringIO(), "x" * 200, "40"))

    def test_names_are_no_markup(self) -> None:
        """K-73: neither Rich's nor the terminal's."""
        text = self.shown(io.StringIO(), "[red]:smile:[/] \x1b[2J", "80")
        self.assertIn("[red]:smile:[/] \\x1b[2J", text)
        self.assertNotIn("\x1b", text)


class PrintableTests(SynchronousTestCase):
    """K-92: what moves a cursor or is no character is shown as an escape."""

    def test_each(self) -> None:
        self.assertEqual(printable("a\x1b\n\x7f\x9b\u202e\ud800"), r"a\x1b\n\x7f\x9b\u202e\ud800")
        self.assertEqual(printable("名前 é ☃"), "名前 é ☃")
