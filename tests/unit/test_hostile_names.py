"""Names that peers choose, in every place where they are shown: nothing is interpreted.

A new command fails :class:`CommandTests` until it is in one of its two tables.
"""

from __future__ import annotations

import ast
import io
import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.cli import COMMANDS, main
from kupool.client.failures import ClientError
from kupool.commands import running, stats
from kupool.commands.audit import _print
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.running import Ending, Output
from kupool.daemon.observer import JsonObserver, TextObserver
from kupool.options import SettingOptions
from kupool.printable import printable, printable_json
from kupool.stats.side_by_side import Difference
from kupool.wire.live_extras import LiveExtras, encode_extras
from tests.fakes.topics_api import FakeApi, partition, record
from tests.fakes.web_site import RouteTestCase

#: What a terminal, a log or a format would interpret, by what it is.
HOSTILE = {
    "ANSI escape": "a\x1b[2J\x1b[31mred",
    "OSC 8": "a\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "title": "a\x1b]0;title\x07",
    "C1 control": "a\x9b31mred",
    "line ends": "a\r\n2026-11-30 00:00:00Z Ready: forged",
    "other line ends": "a\x0b\x0c\x85\u2028\u2029b",
    "NUL": "a\x00b",
    "backspace": "admin\x08\x08\x7f",
    "bidi override": "a\u202egnp.exe\u202c",
    "bidi isolate": "a\u2067b\u2069",
    "marks": "a\u200e\u200f\u061cb",
    "zero width": "ad\u200bmin\u200c\u200d\u2060\ufeff",
    "soft hyphen": "ad\xadmin",
    "tags": "a\U000e0041\U000e007f",
    "lone surrogate": "a\ud800b",
}

#: What must be shown as it is, since only a format or markup would read it.
VERBATIM = (
    "[red]a[/red]",
    "[link=http://evil.example]a[/link]",
    "{}",
    "{0.__class__}",
    "%s%n",
    ":x:",
)

ALL = (*HOSTILE.values(), *VERBATIM)

_INTERPRETED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


class _Case(Protocol):
    def fail(self, msg: str) -> Any: ...


def check(case: _Case, shown: str, name: str, *, escaped: bool = True) -> None:
    """Fail unless a text shows a name, and nothing in it is interpreted; lines end with LF."""
    for character in shown:
        if character != "\n" and unicodedata.category(character) in _INTERPRETED:
            case.fail(f"{character!r} of {name!r} is in {shown!r}")
    wanted = printable(name) if escaped else json.dumps(name)[1:-1]
    if "".join(wanted.split()) not in "".join(shown.split()):  # a table folds it at spaces
        case.fail(f"{name!r} is not in {shown!r}")


def _is_seen(number: int) -> bool:
    """Say whether a format character has a shape: signs of numbers, and joins of hieroglyphs."""
    signs = ("ARABIC NUM", "ARABIC SIGN", "ARABIC FOOT", "ARABIC END", "ARABIC DISP")
    signs += ("ARABIC POUND", "ARABIC PIASTRE", "SYRIAC", "KAITHI", "EGYPTIAN", "SHORTHAND")
    return unicodedata.name(chr(number), "").startswith(signs)


class EscapeTests(SynchronousTestCase):
    """Issue 15, build 8."""

    def test_every_character(self) -> None:
        for number in range(0x110000):
            character = chr(number)
            if unicodedata.category(character) in _INTERPRETED and not _is_seen(number):
                self.assertNotEqual(printable(character), character, f"U+{number:04X}")

    def test_other_text_stays(self) -> None:
        for text in ("alice.rig1", "名前", "é", "naïve 🙂", "שלום", *VERBATIM):
            self.assertEqual(printable(text), text)

    def test_json_keeps_its_meaning(self) -> None:
        for name in ALL:
            text = printable_json(json.dumps(name, ensure_ascii=False))
            self.assertEqual(json.loads(text), name)


class LogTests(SynchronousTestCase):
    """Issue 15, build 8: the process log, in both forms."""

    def logged(self, kind: Any, write: Callable[[Logger], object]) -> str:
        file = io.StringIO()
        write(Logger("kupool.somewhere", observer=LogPublisher(kind(file))))
        return file.getvalue()

    def test_text(self) -> None:
        for name in ALL:
            text = self.logged(TextObserver, lambda log: log.warn("{user} left", user=name))  # noqa: B023
            check(self, text, name)
            self.assertEqual(text.count("\n"), 1)

    def test_text_of_errors(self) -> None:
        """The lines of a traceback are indented: none of them looks like another event."""
        for name in ALL:
            failure = Failure(ValueError(name))
            text = self.logged(TextObserver, lambda log: log.failure("It failed", failure))  # noqa: B023
            for character in text:
                if character != "\n":
                    self.assertNotIn(unicodedata.category(character), _INTERPRETED, repr(name))
            first, *others = text.rstrip("\n").split("\n")
            self.assertIn("It failed", first)
            self.assertTrue(all(line.startswith("  ") for line in others), text)

    def test_json(self) -> None:
        for name in ALL:
            text = self.logged(JsonObserver, lambda log: log.warn("{user} left", user=name))  # noqa: B023
            self.assertEqual(text.count("\n"), 1)
            self.assertEqual(json.loads(text)["user"], name)
            self.assertEqual(json.loads(text)["message"], f"{name} left")
            for character in text[:-1]:
                self.assertNotIn(unicodedata.category(character), _INTERPRETED, repr(name))

    def test_formats_of_names(self) -> None:
        """A name with braces or percent signs is a value, never a format."""
        text = self.logged(TextObserver, lambda log: log.info("{user}", user="{log_time}%(x)s"))
        self.assertIn("{log_time}%(x)s", text)


class HttpTests(RouteTestCase):
    """Issue 15, build 8: answers of the HTTP API, which people read with curl."""

    def test_paths_and_methods(self) -> None:
        for name in ("%1b[31m", "%c2%9b31m", "%e2%80%ae", "%e2%80%8b", "[red]", "{}", "%25s"):
            body = self.ask(f"/x{name}").body.decode()
            self.assertEqual(self.ask(f"/x{name}").code, 404)
            for character in body[:-1]:
                self.assertNotIn(unicodedata.category(character), _INTERPRETED, name)

    def test_raw_bytes(self) -> None:
        """Bytes that no client would send in a path or a method."""
        for name in (b"/\xc2\x9b31m", b"/\xe2\x80\xae", b"/\x1b[31m", b"/\x00", b"/\xff"):
            for line in (b"GET " + name + b" HTTP/1.1", b"G" + name[1:] + b"T / HTTP/1.1"):
                data = self.raw(line + b"\r\nHost: localhost\r\nX-Y: " + name + b"\r\n\r\n")
                text = data.decode().replace("\r\n", "\n")
                for character in text:
                    if character != "\n":
                        self.assertNotIn(unicodedata.category(character), _INTERPRETED, repr(data))

    def test_counted_names(self) -> None:
        for name in ("a\u202eb", "a\x9b31m", "zero\u200b", "[red]", "{}"):
            self.count(1795255500, name)
            answer = self.ask("/stats")
            self.assertIn(name, json.dumps(answer.json, ensure_ascii=False))
            for character in answer.body.decode()[:-1]:
                self.assertNotIn(unicodedata.category(character), _INTERPRETED, name)


class CommandTests(RouteTestCase):
    """Issue 15, build 8: what the commands print on a terminal, and elsewhere."""

    #: Commands that show what peers sent, and the test that shows it.
    SHOWN = {
        "work": "test_work",
        "stats": "test_stats",
        "audit": "test_audit",
        "user": "test_user",
        "config": "test_config",
        "bench": "test_the_ways_out",
        "demo": "test_work",
        "topic": "test_topics",
        "log": "test_records",
        "live": "test_repeated_events",
        "group": "test_groups",
        "dlq": "test_dead_letters",
    }

    #: Commands that show nothing of peers but errors of files and servers, by the ways out alone.
    ERRORS = ("backup", "restore", "migrate")

    def setUp(self) -> None:
        super().setUp()
        self.out, self.errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.errors)

    def shown(self) -> str:
        text = self.out.getvalue() + self.errors.getvalue()
        for stream in (self.out, self.errors):
            stream.seek(0)
            stream.truncate()
        return text

    def test_every_command_is_here(self) -> None:
        self.assertEqual({*self.SHOWN, *self.ERRORS}, set(COMMANDS), "add it, with its test")
        for name in self.SHOWN.values():
            self.assertTrue(callable(getattr(self, name)))

    def test_nothing_goes_another_way(self) -> None:
        """Commands print by `say`, `complain`, `Output` and tables, all of which escape."""
        own = {"console.py", "running.py"}
        folder = Path(running.__file__).parent
        for path in sorted(folder.glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if path.name in own or not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                constant = all(isinstance(a, ast.Constant) for a in node.args)
                direct = called == "print" or called in ("sys.stdout.write", "sys.stderr.write")
                if direct and not constant:
                    self.fail(f"{path.name}:{node.lineno}: use say() or complain()")
                marked = "markup=False" not in ast.unparse(node)
                if called == "Console" or (called == "TextColumn" and not constant):
                    self.assertFalse(marked, f"{path.name}:{node.lineno}: markup has to be off")
                if called == "TextColumn" and "{" in ast.unparse(node.args[0]):
                    self.assertFalse(marked, f"{path.name}:{node.lineno}: markup has to be off")

    def test_the_ways_out(self) -> None:
        for name in ALL:
            say(name)
            check(self, self.shown(), name)
            complain(name)
            check(self, self.shown(), name)
            print_table(make_console(), ("a", "b"), [(name, 1)], title=name, numbers=1)
            check(self, self.shown(), name)

    def test_work(self) -> None:
        """The client agent's view: names of servers, errors and closes that a server sends."""
        for name in ALL:
            output = Output(Ending())
            output.line(f"refused job 1: {name}")
            check(self, self.shown(), name)
            output.live(name)
            text = self.shown().removeprefix("\r\x1b[K")
            check(self, text, name)
            running._explain(Failure(ClientError(name)))
            check(self, self.shown(), name)

    def test_stats(self) -> None:
        self.patch(stats.time, "time", lambda: 1795255530.0)
        arguments = type("Arguments", (), {"username": None, "minutes": 15, "top": 100})
        for number, name in enumerate(ALL):
            worker = name.replace(".", "")
            self.count(1795255500 - 60 * (number % 3), f"alice.{worker}", f"{worker}{number}")
        for username in (None, "alice", *(f"alice.{name.replace('.', '')}" for name in ALL)):
            arguments.username = username
            shown: Deferred[int] = Deferred.fromCoroutine(stats._show(arguments, self.stats))  # type: ignore[arg-type]
            self.successResultOf(shown)
            text = self.shown()
            for name in [username] if username else [f"{n.replace('.', '')}" for n in ALL]:
                check(self, text, name)
        arguments.username = "nobody\x1b[2J"
        self.successResultOf(Deferred.fromCoroutine(stats._show(arguments, self.stats)))  # type: ignore[arg-type]
        check(self, self.shown(), "nobody\x1b[2J")

    def test_audit(self) -> None:
        for name in ALL:
            found = Difference(name, "", 1795255500, 1, 2)
            both = type("Both", (), {"difference_rows": lambda self, most: [found]})()  # noqa: B023
            audit = type(
                "Audit",
                (),
                {
                    "compared": type("Compared", (), {"minutes": 0})(),
                    "skipped": (), "gaps": (), "unreadable": 0, "differences": 1,
                    "waiting": type("Waiting", (), {"batches": 0})(),
                },
            )()  # fmt: skip
            _print(audit, both)
            check(self, self.shown(), name)

    def test_user(self) -> None:
        """The file of accounts may have been written by another program."""
        path = Path(self.mktemp())
        for name in ("a\u202eb", "zero\u200bwidth", "[red]a[/red]", "{}"):
            path.write_text(f"{name}:secret password\n", "utf-8")
            main(["user", "list", "--file", str(path)])
            check(self, self.shown(), name)
            main(["user", "remove", f"x{name}", "--file", str(path)])
            check(self, self.shown(), f"x{name}")

    def test_config(self) -> None:
        """Values of settings, and the errors about them."""
        for name in VERBATIM[:1] + tuple(n for n in HOSTILE.values() if "\ud800" not in n):
            path = Path(self.mktemp())
            path.write_text(json.dumps({"http_hosts": [name]}), "utf-8")
            config = path.rename(path.with_suffix(".json"))
            self.assertEqual(main(["config", "--config", str(config)]), 0)
            check(self, self.shown(), name.strip())
            config.write_text(json.dumps({name: 1}), "utf-8")
            self.assertEqual(main(["config", "--config", str(config)]), 1)
            check(self, self.shown(), name)
            config.write_text(json.dumps({"interval": name}), "utf-8")
            self.assertEqual(main(["config", "--config", str(config)]), 1)
            text = self.shown()
            self.assertTrue(text.startswith("kupool: interval: "), text)
            for character in text[:-1]:
                self.assertNotIn(unicodedata.category(character), _INTERPRETED)

    def run_on(self, api: FakeApi, *words: str) -> str:
        """Run a command on an API; returns what it showed."""
        self.successResultOf(api.run(*words))
        return self.shown()

    def test_topics(self) -> None:
        """Q-83: names and settings that a daemon sends."""
        for name in ALL:
            topic = {"topic": name, "partitions": 1, "settings": {"compression": name}}
            api = FakeApi(
                topic_list={"topics": [topic]},
                topic_describe={**topic, "partitions": []},
                topic_create=topic,
                topic_change={**topic, "warning": name},
            )
            for words in (["list"], ["describe", "t"], ["create", "t"]):
                check(self, self.run_on(api, "topic", *words), name)
            check(self, self.run_on(api, "topic", "change", "t", "--partitions", "2"), name)

    def test_records(self) -> None:
        """Q-83: keys and values that anybody wrote; programs get the values unchanged."""
        for name in (name for name in ALL if "\ud800" not in name):
            written = {**record(0, name), "key": name, "headers": {name: name}}
            for words in ([], ["--values"]):
                api = FakeApi(log_fetch=partition([written]))
                self.patch(self.out, "isatty", lambda: True)
                shown = self.run_on(api, "log", "fetch", "t", "--partition", "0", *words)
                check(self, shown, name)
            api = FakeApi(log_fetch=partition([written]))
            shown = self.run_on(api, "log", "fetch", "t", "--partition", "0", "--json")
            self.assertEqual(json.loads(shown), {"partition": 0, **written})
            self.assertTrue(shown.rstrip("\n").isprintable() or shown.isascii(), shown)

    def test_repeated_events(self) -> None:
        """W-60: ids that publishers chose."""
        for name in (name for name in ALL if name and "\ud800" not in name):
            headers = encode_extras(LiveExtras(event_id=name))
            records = [{**record(offset, "1"), "headers": headers} for offset in (0, 1)]
            words = ("live", "audit", "t", "--partition", "0")
            shown = self.run_on(FakeApi(log_fetch=partition(records)), *words)
            self.assertIn("first 0/0", shown)
            check(self, shown, name)

    def test_groups(self) -> None:
        """Q-83: names of groups and members."""
        for name in ALL:
            held = [{"topic": name, "partition": 0}]
            member = {"member": name, "assigned": held, "revoked": held, "last_seen_ms": 1}
            position = {"topic": name, "partition": 0, "lag": 1, "owner": name}
            found = {
                "group": name,
                "generation": 1,
                "members": [{**member, "session_timeout_ms": 1}],
                "positions": [position],
            }
            api = FakeApi(group_list={"groups": [name]}, group_describe=found)
            for words in (["list"], ["describe", "g"], ["lag"]):
                check(self, self.run_on(api, "group", *words), name)

    def test_dead_letters(self) -> None:
        """Q-83: what a consumer said, and what a producer wrote."""
        for name in (name for name in ALL if "\ud800" not in name):
            letter = {
                "partition": 0,
                "offset": 1,
                "source": {"topic": name, "partition": 0, "offset": 1},
                "group": name,
                "reason": name,
                "attempts": 1,
                "record": {**record(1, name), "key": name, "headers": {name: name}},
            }
            api = FakeApi(log_dead={"dead": [letter], "next": None})
            for words in (["list", "t"], ["inspect", "t", "0/1"]):
                check(self, self.run_on(api, "dlq", *words), name)

    def test_command_lines(self) -> None:
        for name in ALL:
            for words in (["stats", f"--x{name}"], ["stats", name], [name]):
                self.assertRaises(SystemExit, main, words)
                text = self.shown()
                for character in text:
                    if character != "\n":
                        self.assertNotIn(unicodedata.category(character), _INTERPRETED, text)
            ended = self.assertRaises(SystemExit, SettingOptions().parseOptions, [f"--x{name}"])
            for character in str(ended.code):
                self.assertNotIn(unicodedata.category(character), _INTERPRETED)
