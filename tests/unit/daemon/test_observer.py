"""The log of the process: JSON lines, levels, and where they go."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
from typing import Any

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.observer import JsonObserver, Level, as_json, make_observer


class Sink:
    """A logger, and the lines that its JSON observer wrote."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.log = Logger("kupool.somewhere", observer=LogPublisher(JsonObserver(self.file)))

    def line(self) -> dict[str, Any]:
        text = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        assert text.endswith("\n"), text
        assert text.count("\n") == 1, text
        found: dict[str, Any] = json.loads(text, parse_constant=lambda name: 1 / 0)
        return found


class JsonTests(SynchronousTestCase):
    """K-92: one JSON object a line, with its fields."""

    def setUp(self) -> None:
        self.sink = Sink()

    def test_fields(self) -> None:
        """K-92: module and level, and what the event was logged with."""
        self.sink.log.warn(
            "{username} left", username="alice", session="ab", job_id=7, remote="h:1", none=None
        )
        line = self.sink.line()
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")
        self.assertEqual(
            line,
            {
                "level": "warn", "module": "kupool.somewhere", "message": "alice left",
                "username": "alice", "session": "ab", "job_id": 7, "remote": "h:1", "none": None,
            },
        )  # fmt: skip

    def test_values_of_every_kind(self) -> None:
        """K-92: whatever is logged, the line can be read."""
        self.sink.log.info(
            "x", infinite=float("inf"), nan=float("nan"), many=[1, b"2"], error=ValueError("no"),
            lines="a\nb", quote='"', wide="工作", broken="\udcff", true=True,
        )  # fmt: skip
        line = self.sink.line()
        self.assertEqual((line["infinite"], line["nan"]), ("inf", "nan"))
        self.assertEqual(line["many"], "[1, b'2']")
        self.assertEqual((line["lines"], line["wide"], line["true"]), ("a\nb", "工作", True))
        self.assertEqual(line["error"], "no")
        self.assertEqual(line["broken"], "\udcff")

    def test_a_line_is_utf_8(self) -> None:
        """K-92: a name that no encoding can carry does not lose the line."""
        self.sink.log.info("{name}", name=os.fsdecode(b"/tmp/\xff"))
        self.sink.file.getvalue().encode("utf-8")

    def test_fields_do_not_hide_the_line_s_own(self) -> None:
        """K-92: an event cannot pretend to be of another time, level or module."""
        self.sink.log.info("told", module="m", time="then", message="other")
        line = self.sink.line()
        self.assertEqual((line["level"], line["message"]), ("info", "told"))
        self.assertEqual(line["module"], "kupool.somewhere")
        self.assertNotEqual(line["time"], "then")

    def test_failures(self) -> None:
        """K-92: a traceback is a field, not lines of its own."""
        try:
            raise KeyError("gone")
        except KeyError:
            self.sink.log.failure("It failed")
        line = self.sink.line()
        self.assertEqual((line["message"], line["level"]), ("It failed", "critical"))
        self.assertIn("Traceback", line["error"])
        self.assertIn("KeyError: 'gone'", line["error"])

    def test_a_format_that_is_broken(self) -> None:
        self.sink.log.info("{missing}")
        self.assertIn("Unable to format", self.sink.line()["message"])

    def test_events_of_the_older_log(self) -> None:
        """K-92: what libraries write with twisted.python.log is a line too."""
        events: list[Any] = []
        legacy.addObserver(events.append)
        legacy.msg("old style", extra=1)
        legacy.removeObserver(events.append)
        line = json.loads(as_json(events[0]))
        self.assertEqual((line["message"], line["extra"]), ("old style", 1))


class DestinationTests(SynchronousTestCase):
    """K-92: the level, the form, and twistd's own options."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)

    def observer(self, form: str, level: Level, **twistd: object) -> Any:
        return make_observer(form, level, twistd, self)

    def callFromThread(self, call: Any) -> None:
        """Be the reactor: what the signal's handler asks for is done later."""
        self.asked = call

    def logger(self, form: str, level: str) -> tuple[Logger, Level, str]:
        path = f"{self.folder}/log"
        chosen = Level(level)
        observer = self.observer(form, chosen, logfile=path)
        return Logger("n", observer=LogPublisher(observer)), chosen, path

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    def test_every_level(self) -> None:
        """K-92: from a level on, and the level may change."""
        log, level, path = self.logger("json", "error")
        names = ["debug", "info", "warn", "error", "critical"]
        for least in ("error", "debug", "warn", "info"):
            level.set(least)
            for name in names:
                log.emit(LogLevel.levelWithName(name), f"{least}-{name}")
        seen = [json.loads(line)["message"] for line in self.read(path).splitlines()]
        self.assertEqual(
            seen,
            [
                f"{least}-{name}"
                for least in ("error", "debug", "warn", "info")
                for name in names[names.index(least) :]
            ],
        )

    def test_text(self) -> None:
        log, _, path = self.logger("text", "info")
        log.info("hello")
        self.assertRegex(self.read(path), r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ hello\n$")

    def test_auto(self) -> None:
        """K-92: text on a terminal; in a file, in a pipe and for journald JSON."""
        log, _, path = self.logger("auto", "info")
        log.info("hello")
        self.assertEqual(json.loads(self.read(path))["message"], "hello")
        for is_terminal in (True, False):
            stdout = io.StringIO()
            stdout.isatty = lambda answer=is_terminal: answer  # type: ignore[method-assign]
            self.patch(sys, "stdout", stdout)
            observer = self.observer("auto", Level("info"), nodaemon=True)
            Logger("n", observer=LogPublisher(observer)).warn("hello")
            self.assertEqual(stdout.getvalue().startswith("{"), not is_terminal)

    def test_text_with_what_a_peer_sent(self) -> None:
        """K-92: it changes no terminal, and makes no line of its own."""
        log, _, path = self.logger("text", "info")
        log.warn("{username} left", username="\x1b[2Jalice\nbob\u202e")
        self.assertTrue(self.read(path).endswith("Z WARN: \\x1b[2Jalice\\nbob\\u202e left\n"))

    def test_text_with_a_traceback(self) -> None:
        log, _, path = self.logger("text", "info")
        log.failure("It failed", Failure(ValueError("why")))
        text = self.read(path)
        self.assertRegex(text, r"Z CRITICAL: It failed\n")
        self.assertIn("ValueError: why", text)

    def test_a_new_file_on_sigusr1(self) -> None:
        """K-92: the file is changed by the reactor, not in the midst of a line."""
        log, _, path = self.logger("json", "info")
        log.info("before")
        os.kill(os.getpid(), signal.SIGUSR1)
        log.info("between")
        self.asked()
        log.info("after")
        self.assertIn("between", self.read(f"{path}.1"))
        self.assertEqual(json.loads(self.read(path))["message"], "after")

    def test_what_twistd_is_told_to_use(self) -> None:
        for option in ("logger", "syslog"):
            self.assertIsNone(self.observer("json", Level("info"), **{option: "x"}))

    def test_places_that_cannot_be(self) -> None:
        """K-88: a background process has no stdout, and a folder must be there."""
        self.assertRaises(SystemExit, self.observer, "json", Level("info"), logfile="-")
        self.assertRaises(
            OSError, self.observer, "json", Level("info"), logfile=f"{self.folder}/none/log"
        )
