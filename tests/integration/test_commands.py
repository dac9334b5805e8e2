"""The commands beside the daemon, as processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from twisted.trial.unittest import SynchronousTestCase

from kupool.settings import declared, flag_name
from tests.servers.commands import KUPOOL, environment, kupool
from tests.servers.pool_load import counted
from tests.servers.running_daemon import ROOT, UNLIMITED, LineClient, RunningDaemon
from tests.terminal import terminal


class CountsTests(SynchronousTestCase):
    """K-73, K-77: stats, audit and rebuild work on the files of a running daemon."""

    def setUp(self) -> None:
        self.daemon = RunningDaemon("--interval=1h", "--flush-interval=50ms", *UNLIMITED)
        self.addCleanup(self.daemon.__exit__)
        self.daemon.start()
        self.data = f"--data={self.daemon.data}"
        if time.time() % 60 > 50:  # all of it is to be in one row for each user
            time.sleep(60 - time.time() % 60)
        for username, count in (("alice.rig1", 3), ("alice.rig2", 2), ("bob", 4)):
            client = LineClient(self.daemon)
            job = client.authorize(username)
            for number in range(count):
                self.assertEqual(client.submit(job, f"{username}{number}")["result"], True)
            client.close()
        self.counts = {"alice": 5, "bob": 4}
        self.wait_for(self.counts)

    def wait_for(self, counts: Mapping[str, int]) -> None:
        deadline = time.monotonic() + 20
        while counted(self.daemon.data) != counts:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def tamper(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.daemon.data / "store.sqlite")) as connection:
            connection.execute(statement)
            connection.commit()

    def test_stats(self) -> None:
        """K-73: users, workers and totals as tables, from the daemon's own files."""
        shown = kupool("stats", self.data)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertIn("Accepted in all: 9", shown.stdout)
        self.assertRegex(shown.stdout, r"(?s)Most accepted.*alice .* 5 .*bob .* 4 ")
        shown = kupool("stats", self.data, "--username", "alice", "--minutes", "5")
        self.assertRegex(shown.stdout, r"(?s)Workers.*rig1 .* 3 .*rig2 .* 2 ")
        self.assertNotIn("bob", shown.stdout)
        shown = kupool("stats", self.data, "--username", "alice.rig2")
        self.assertRegex(shown.stdout, r" 2 ")
        self.assertEqual(kupool("stats", self.data, "--minutes", "0").returncode, 2)

    def test_nobody_and_nothing(self) -> None:
        """K-73: an unknown user is an error, and a range without anything no empty table."""
        shown = kupool("stats", self.data, "--username", "nobody")
        self.assertEqual((shown.returncode, shown.stdout), (1, ""))
        self.assertEqual(
            shown.stderr,
            "kupool: no submission of user nobody is counted; 'kupool stats' without --username "
            "lists users\n",
        )
        shown = kupool("stats", self.data, "--username", "alice.rig9")
        self.assertIn("no submission of worker rig9 of user alice is counted", shown.stderr)
        # As if they had all been accepted long ago.
        self.tamper("UPDATE submissions SET timestamp = '2020-01-01 00:00:00'")
        self.tamper("UPDATE worker_submissions SET timestamp = '2020-01-01 00:00:00'")
        for arguments, what in (((), ""), (("--username=alice",), " of alice")):
            shown = kupool("stats", self.data, *arguments)
            self.assertEqual((shown.returncode, shown.stderr), (0, ""))
            self.assertRegex(
                shown.stdout,
                rf"^No submission{what} was accepted in the last 15 minutes. \d are counted in "
                r"all: a larger --minutes shows older ones.\n$",
            )

    def test_a_reader_that_goes_away(self) -> None:
        """K-88: as with ``kupool stats | head -1``."""
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        ended = subprocess.run(
            [*KUPOOL, "stats", self.data],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=environment(),
        )
        self.assertEqual((ended.returncode, ended.stderr), (141, ""))

    def assert_equal_counts(self) -> None:
        """The audit has compared all submissions, and found nothing."""
        found = kupool("audit", self.data)
        self.assertEqual((found.returncode, found.stderr), (0, ""), found.stdout)
        first, last = found.stdout.splitlines()
        self.assertRegex(
            first,
            rf"^compared: \d+ batches with {sum(self.counts.values())} submissions, positions 1 "
            r"to \d+ of the log, \d minutes? from \d{4}-\d\d-\d\d \d\d:\d\d to [-\d]+ [\d:]+ UTC$",
        )
        self.assertEqual(last, "0 differences")

    def test_audit(self) -> None:
        """K-77: no differences, and a row that was tampered with is found."""
        self.assert_equal_counts()
        self.tamper("UPDATE submissions SET submission_count = 7 WHERE username = 'alice'")
        self.tamper("DELETE FROM worker_submissions WHERE worker = 'rig2'")
        found = kupool("audit", self.data)
        self.assertEqual(found.returncode, 1)
        _, first, second, last = found.stdout.splitlines()
        self.assertRegex(first, r"^\d{4}-\d\d-\d\d \d\d:\d\d alice: 5 in the log, 7 counted$")
        self.assertRegex(second, r"^\d{4}-\d\d-\d\d \d\d:\d\d alice.rig2: 2 in the log, 0 counted$")
        self.assertEqual(last, "2 differences")
        found = kupool("audit", self.data, "--to", "2020-01-01")
        self.assertEqual(
            (found.returncode, found.stdout), (3, "nothing to compare\n0 differences\n")
        )
        found = kupool("audit", self.data, "--from", "yesterday")
        self.assertIn("'yesterday' is not a time such as 2026-11-21T10:05:00Z", found.stderr)
        found = kupool("audit", self.data, "--from", "2030-01-01", "--to", "2020-01-01")
        self.assertEqual(
            (found.returncode, found.stderr), (2, "kupool: --from has to be before --to\n")
        )
        found = kupool("audit", self.data, "--from", "yesterday")
        self.assertEqual(found.returncode, 2)

    def test_rebuild(self) -> None:
        """K-77: the table is made again from the log, while the daemon counts on."""
        self.tamper("UPDATE submissions SET submission_count = 70 WHERE username = 'alice'")
        self.tamper("DELETE FROM submissions WHERE username = 'bob'")
        self.tamper("INSERT INTO submissions VALUES ('mallory', '2026-01-01 00:00:00', 99)")
        made = kupool("stats", "rebuild", self.data)
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertRegex(
            made.stdout,
            r"(?m)^Rebuilt the per-minute table from \d+ batches: 3 rows corrected, "
            "0 missing batches counted$",
        )
        self.assertEqual(counted(self.daemon.data), self.counts)
        client = LineClient(self.daemon)
        job = client.authorize("bob")
        self.assertEqual(client.submit(job, "one more")["result"], True)
        client.close()
        self.counts["bob"] = 5
        self.wait_for(self.counts)
        self.assert_equal_counts()
        self.assertEqual(self.daemon.stop(), 0)
        self.assert_equal_counts()

    def test_a_table_that_was_dropped(self) -> None:
        """K-77: with the daemon away, even a table that is gone comes back."""
        self.assertEqual(self.daemon.stop(), 0)
        self.tamper("DROP TABLE submissions")
        self.assertEqual(kupool("stats", "rebuild", self.data).returncode, 0)
        self.assertEqual(counted(self.daemon.data), self.counts)


class FailureTests(SynchronousTestCase):
    """K-88: a command that cannot work says why in one line, with status 1."""

    def check(self, expected: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        ended = kupool(*arguments, env=env)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertEqual(ended.stderr, f"kupool: {expected}\n")

    def test_each(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for command in ("stats", "audit"):
                self.check(
                    f"{folder}/log.sqlite: no such file; is --data the daemon's data folder?",
                    command,
                    f"--data={folder}",
                )
                self.check(
                    "mq is 'memory': there is nothing on disk for this command to read",
                    command,
                    "--mq=memory",
                )
                self.check(
                    "interval: 'x' is not a duration such as 30s, 1h30m or 0 "
                    "(from flag --interval)",
                    command,
                    "--interval=x",
                )
            for name in ("log.sqlite", "store.sqlite"):
                (Path(folder) / name).write_bytes(b"no database" * 999)
            for command in ("stats", "audit"):
                self.check(
                    f"database {folder}/log.sqlite is damaged: file is not a database; stop the "
                    "daemon, move the file and its -wal away and start it again, or use "
                    "'kupool restore' with a backup; what only it held is lost then",
                    command,
                    f"--data={folder}",
                )

    def test_a_file_for_the_data_folder(self) -> None:
        """K-88: it is named as one, with the flag that names it."""
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/file"
            Path(path).write_text("x")
            told = f"{path}: this is not a folder; --data has to name the daemon's data folder"
            self.check(told, "stats", f"--data={path}")
            self.check(told, "audit", f"--data={path}")
            self.check(told, "backup", f"--data={path}", f"{folder}/copy")
            told = f"data folder {path}: this is a file; name a folder with --data"
            self.check(told, "restore", f"--data={path}", folder)
            below = (
                f"data folder {path}/x: a part of this path is a file; name a folder with --data"
            )
            self.check(below, "restore", f"--data={path}/x", folder)

    def test_misspelt_variables(self) -> None:
        """K-88: every command names the variable, and the one that was meant."""
        for command in ("config", "stats", "work", "bench"):
            self.check(
                "KUP_ADR: no such setting, did you mean KUP_ADDR? (from environment)",
                command,
                env={"KUP_ADR": ":1"},
            )

    def test_a_reader_that_goes_away(self) -> None:
        """K-88: ``kupool config | head`` is no error to be told, and no success either."""
        for stdout, status, told in (
            ("/dev/full", 1, "kupool: No space left on device\n"),
            (None, 141, ""),
        ):
            with contextlib.ExitStack() as stack:
                if stdout is None:
                    reader, writer = os.pipe()
                    os.close(reader)
                    stack.callback(os.close, writer)
                else:
                    writer = os.open(stdout, os.O_WRONLY)
                    stack.callback(os.close, writer)
                ended = subprocess.run(
                    [*KUPOOL, "config"],
                    stdout=writer,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=60,
                    env=environment(),
                )
            self.assertEqual((ended.returncode, ended.stderr), (status, told))


class ConfigTests(SynchronousTestCase):
    """K-90: every value with its source; flag before environment, file and default."""

    def lines(self, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, list[str]]:
        shown = kupool("config", "--show", *arguments, env=env)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        rows = [re.split(r" {2,}", line) for line in shown.stdout.splitlines()]
        return {name: [value, source] for name, value, source in rows}

    def test_precedence_and_sources(self) -> None:
        """K-90: one setting from each source, and one from all of them."""
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/kupool.yaml"
            Path(path).write_text("interval: 4s\nexpire: 4s\nhistory_window: 4s\nframing: line\n")
            env = {"KUP_INTERVAL": "3s", "KUP_EXPIRE": "3s", "KUP_STORE": "memory"}
            found = self.lines("--interval=2s", "-mq", "memory", "--config", path, env=env)
        self.assertEqual(found["interval"], ["2s", "flag --interval"])
        self.assertEqual(found["mq"], ["memory", "flag --mq"])
        self.assertEqual(found["expire"], ["3s", "environment KUP_EXPIRE"])
        self.assertEqual(found["store"], ["memory", "environment KUP_STORE"])
        self.assertEqual(found["history_window"], ["4s", f"file {path}"])
        self.assertEqual(found["framing"], ["line", f"file {path}"])
        self.assertEqual(found["max_frame"], ["64KiB", "default"])

    def test_on_a_terminal(self) -> None:
        """K-90: a table that fits the terminal."""
        ours, theirs = terminal()
        process = subprocess.Popen(
            [*KUPOOL, "config", f"--data=/{'x' * 150}"],
            stdout=theirs,
            env=environment({"COLUMNS": "60", "TERM": "xterm"}),
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
        self.assertEqual(process.wait(60), 0)
        lines = re.sub("\x1b\\[[0-9;]*m", "", shown.decode()).splitlines()
        self.assertEqual(max(map(len, lines)), 60)
        self.assertIn("xxxxxxxxx", shown.decode())

    def test_secrets_are_masked(self) -> None:
        """K-90, K-92: whatever the source, no password is shown."""
        env = {
            "KUP_PG_DSN": "postgres://kupool:s3cret@db/kupool?sslpassword=s3cret",
            "KUP_AUTH": "memory:admin:s3cret,file:/etc/kupool/passwd",
        }
        shown = kupool("config", "--mq-url", "amqp://kupool:s3cret@mq/", env=env)
        self.assertNotIn("s3cret", shown.stdout + shown.stderr)
        self.assertIn("amqp://kupool:***@mq/", shown.stdout)
        self.assertIn("memory:***, file:/etc/kupool/passwd", shown.stdout)

    def test_only_the_command_that_runs_is_imported(self) -> None:
        """The others take longer to import than this one to run."""
        program = (
            "import sys; from kupool.cli import main; main(['config']); "
            "print([n for n in sys.modules if n.startswith('kupool.commands.')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        imported = done.stdout.splitlines()[-1]
        self.assertIn("'kupool.commands.config'", imported)
        self.assertNotIn("audit", imported)

    def test_the_example_is_in_step(self) -> None:
        """K-89: etc/kupool.yaml is what the command prints, and holds every setting."""
        shown = kupool("config", "--example")
        self.assertEqual((ROOT / "etc" / "kupool.yaml").read_text("utf-8"), shown.stdout)

    def test_every_line_of_the_example_is_a_setting(self) -> None:
        """K-89: with the marks of the comments taken away, it is a file of the defaults."""
        text = (ROOT / "etc" / "kupool.yaml").read_text("utf-8")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kupool.yaml"
            path.write_text(
                "\n".join(
                    line[1:] for line in text.splitlines() if line[:1] == "#" and line[1] != " "
                )
            )
            found = self.lines(f"--config={path}")
            plain = self.lines()
        self.assertEqual(
            {source for _, source in found.values()}, {f"file {path}", "flag --config"}
        )
        self.assertEqual(
            {name: value for name, (value, _) in found.items() if name != "config"},
            {name: value for name, (value, _) in plain.items() if name != "config"},
        )


class DemoTests(SynchronousTestCase):
    """K-93: one command shows all of it, and leaves nothing behind."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.data = f"--data={folder.name}/data"

    def free_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port: int = sock.getsockname()[1]
            return port

    def test_it_runs_and_ends(self) -> None:
        """K-93: accepted lines, the table, and on SIGINT an end with nothing left."""
        pool, http = self.free_port(), self.free_port()
        process = subprocess.Popen(
            [
                *KUPOOL,
                "demo",
                f"--addr=127.0.0.1:{pool}",
                self.data,
                f"--http=tcp:{http}:interface=127.0.0.1",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        seen: list[str] = []
        for line in process.stdout:
            seen.append(line)
            if "in all" in line:
                break
        text = "".join(seen)
        for username in ("alice.rig1", "alice.rig2", "bob", "carol.gpu"):
            self.assertRegex(text, rf"(?m)^accepted  {username} +job \d+  nonce ")
        self.assertRegex(text, "Accepted submissions a minute")
        (daemon,) = children(process.pid)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        self.assertEqual(process.wait(20), 0, rest)
        self.assertIn("The workers and the daemon have stopped.", rest)
        self.assertNotIn("Traceback", text + rest)
        process.stdout.close()
        self.assertFalse(psutil.pid_exists(daemon))
        found = kupool("audit", self.data)
        self.assertEqual(found.returncode, 0, found.stdout + found.stderr)
        self.assertTrue(found.stdout.endswith("0 differences\n"), found.stdout)

    def test_a_port_that_is_taken(self) -> None:
        """K-88: it says so in one line, and starts nothing."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            ended = kupool("demo", f"--addr=127.0.0.1:{port}", "--http=", self.data)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertEqual(
            ended.stderr,
            f"kupool: addr: cannot listen on 127.0.0.1:{port}: Address already in use\n",
        )

    def test_an_address_that_is_none(self) -> None:
        """K-88: it says so in one line."""
        for address in ("nonsense", "unix:/tmp/sock", "127.0.0.1:0"):
            ended = kupool("demo", f"--addr={address}", "--http=", self.data)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertRegex(ended.stderr, r"^kupool: .*\n$")

    def test_a_daemon_that_does_not_start(self) -> None:
        """K-88: it says why, once."""
        folder = self.data.partition("=")[2]
        Path(folder).write_text("x")
        ended = kupool("demo", f"--addr=127.0.0.1:{self.free_port()}", "--http=", self.data)
        self.assertEqual((ended.returncode, ended.stderr), (1, ""))
        self.assertEqual(ended.stdout.count("this is a file; name a folder with --data"), 1)

    def test_a_daemon_that_dies(self) -> None:
        """K-88: it ends with the daemon, and with a failure."""
        pool = self.free_port()
        process = subprocess.Popen(
            [*KUPOOL, "demo", f"--addr=127.0.0.1:{pool}", "--http=", self.data],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("accepted"):
                break
        (daemon,) = children(process.pid)
        os.kill(daemon, signal.SIGKILL)
        rest = process.stdout.read()
        self.assertEqual(process.wait(20), 1)
        self.assertNotIn("Traceback", rest)
        process.stdout.close()


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""

    return [child.pid for child in psutil.Process(pid).children()]


class HelpTests(SynchronousTestCase):
    """K-89: what there is, is shown."""

    def test_every_setting_is_in_the_help_of_the_daemon(self) -> None:
        """K-89: each flag with its variable; --auth and its kinds as well."""

        def twistd(*arguments: str) -> str:
            ended = subprocess.run(
                [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                env=environment({"COLUMNS": "300"}),
            )
            self.assertEqual((ended.returncode, ended.stderr), (0, ""))
            return ended.stdout

        text = twistd("kupool", "--help")
        for name in declared():
            self.assertRegex(text, rf"--{flag_name(name)}=")
            self.assertIn(f"[KUP_{name.upper()}]", text)
        self.assertIn("file", twistd("kupool", "--help-auth"))
        self.assertRegex(twistd("--help"), r"kupool +Hands out jobs")

    def test_the_commands(self) -> None:
        """K-89: kupool names its commands, and takes no other."""
        text = kupool("--help").stdout
        for command in ("work", "bench", "demo", "stats", "audit", "config"):
            self.assertRegex(text, rf"(?m)^    {command} ")
        self.assertRegex(kupool("--version").stdout, r"^kupool \d+\.\d+")
        self.assertEqual(kupool("fly").returncode, 2)
