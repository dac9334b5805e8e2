"""How the daemon starts, and the one line it leaves when it cannot."""

from __future__ import annotations

import contextlib
import json
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

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import ROOT, LineClient, RunningDaemon
from tests.terminal import terminal

#: The settings file of a Go-Queue broker.
BROKER = ROOT / "tests" / "data" / "broker.json"

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
PASSWORD = "hunter2s3cret"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_daemon(
        self, *flags: str, env: Mapping[str, str] | None = None, twistd: tuple[str, ...] = ("-n",)
    ) -> subprocess.CompletedProcess[str]:
        """Run the daemon to its end."""
        return subprocess.run(
            [*TWISTD, *twistd, "--pidfile=", "kupool", *flags],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, "utf-8")
        return str(path)

    def taken_port(self) -> int:
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        port: int = sock.getsockname()[1]
        return port


class FailureTests(Case):
    """K-88: a failure to start is one clear line on stderr, and a status that is not 0."""

    def check(
        self, expected: str, *flags: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The daemon refuses to start with this line; ``...`` stands for anything."""
        free = (
            f"--data={self.folder}/data",
            "--addr=127.0.0.1:0",
            "--http=tcp:0:interface=127.0.0.1",
        )
        given = " ".join(flags)
        others = [flag for flag in free if flag.split("=")[0] not in given]
        ended = self.run_daemon(*others, *flags, env=env)
        self.assertEqual(ended.returncode, 1, ended)
        (line,) = ended.stderr.splitlines()
        pattern = ".*".join(map(re.escape, f"kupool: {expected}".split("...")))
        self.assertRegex(line, f"^{pattern}$")
        self.assertNotIn("Traceback", ended.stdout)
        return ended

    def test_a_port_that_is_taken(self) -> None:
        port = self.taken_port()
        why = "Address already in use"
        self.check(
            f"addr: cannot listen on 127.0.0.1:{port}: {why} (from flag --addr)",
            f"--addr=127.0.0.1:{port}",
        )
        self.check(
            f"http: cannot listen on 127.0.0.1:{port}: {why} (from flag --http)",
            f"--http=tcp:{port}:interface=127.0.0.1",
        )
        # The second address of several; the first is let go of again.
        self.check(
            f"addr: cannot listen on 127.0.0.1:{port}: {why} (from flag --addr)",
            "--addr=127.0.0.1:0",
            f"--addr=127.0.0.1:{port}",
        )

    def test_it_is_said_once(self) -> None:
        """K-88: where log and stderr are one terminal, or one journal."""
        ended = subprocess.run(
            [*TWISTD, "-n", "--pidfile=", "kupool", f"--addr=127.0.0.1:{self.taken_port()}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual(ended.returncode, 1)
        lines = [line for line in ended.stdout.splitlines() if "Address already in use" in line]
        self.assertEqual(len(lines), 1, ended.stdout)

    def test_on_a_terminal(self) -> None:
        """K-92: the log is text there by default, and JSON where --log-format says so."""
        for flags, is_json in (((), False), (("--log-format=json",), True)):
            ours, theirs = terminal()
            port = self.taken_port()
            process = subprocess.Popen(
                [*TWISTD, "-n", "--pidfile=", "kupool", f"--addr=127.0.0.1:{port}", *flags],
                stdout=theirs,
                stderr=theirs,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # how a terminal ends
                while data := os.read(ours, 65536):
                    shown += data
            os.close(ours)
            self.assertEqual(process.wait(30), 1)
            (line,) = [line for line in shown.decode().splitlines() if "already in use" in line]
            self.assertEqual(line.startswith("{"), is_json, line)
            if not is_json:
                self.assertRegex(line, r"^\d{4}-\d\d-\d\d [\d:]{8}Z ERROR: Cannot start: addr: ")

    def test_tls_without_the_extra(self) -> None:
        """K-88: it says what to install."""
        missing = self.folder / "OpenSSL"
        missing.mkdir()
        (missing / "__init__.py").write_text("raise ImportError('no OpenSSL')")
        self.check(
            "addr: 'ssl:0': TLS needs the extra kupool[tls]; from a checkout: pip install '.[tls]' "
            "(from flag --addr)",
            "--addr=ssl:0",
            env={"PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}"},
        )

    def test_a_file_for_the_data_folder(self) -> None:
        """K-88"""
        path = self.file("file", "x")
        self.check(
            f"data: data folder {path}: this is a file; name a folder with --data (from flag "
            "--data)",
            f"--data={path}",
        )

    def test_a_duration_that_is_none(self) -> None:
        """K-88: from each source."""
        wrong = "'5 minutes' is not a duration such as 30s, 1h30m or 0"
        self.check(f"interval: {wrong} (from flag --interval)", "--interval=5 minutes")
        self.check(
            f"interval: {wrong} (from environment KUP_INTERVAL)",
            env={"KUP_INTERVAL": "5 minutes"},
        )
        path = self.file("kupool.yaml", "interval: 5 minutes\n")
        self.check(f"interval: {wrong} (from file {path})", f"--config={path}")
        path = self.file("kupool.json", '{"interval": "5 minutes"}')
        self.check(f"interval: {wrong} (from file {path})", env={"KUP_CONFIG": path})

    def test_a_settings_file_that_cannot_be_read(self) -> None:
        path = f"{self.folder}/none.yaml"
        self.check(f"config: {path}: No such file or directory", f"--config={path}")
        self.check(f"config: {self.folder}: Is a directory", f"--config={self.folder}")
        path = self.file("list.yaml", "- addr\n")
        self.check(
            f"config: {path}: expected a mapping of setting names to values", f"--config={path}"
        )
        path = self.file("broken.json", '{"addr": ')
        self.check(f"config: {path}: Expecting value: line 1 ...", f"--config={path}")

    def test_a_settings_file_that_is_broken_is_not_quoted(self) -> None:
        """K-88, K-92: the place is named, and not what stands there."""
        path = self.file("broken.yaml", f'interval: 30s\npg_dsn: "postgres://u:{PASSWORD}@h\n')
        ended = self.check(f"config: {path}: line 3, column 1: found ...", f"--config={path}")
        self.assertNotIn(PASSWORD, ended.stderr + ended.stdout)
        path = self.file("list.yaml", f"pg_dsn: [postgres://u:{PASSWORD}@h]\n")
        ended = self.check("pg_dsn: expected text or a number, ...", f"--config={path}")
        self.assertNotIn(PASSWORD, ended.stderr + ended.stdout)

    def test_a_key_that_is_unknown(self) -> None:
        path = self.file("kupool.yaml", "intervall: 30s\n")
        self.check(
            f"intervall: no such setting, did you mean interval? (from file {path})",
            f"--config={path}",
        )

    def test_a_flag_that_is_unknown(self) -> None:
        self.check(
            "option --intervall not recognized, did you mean --interval?; see --help",
            "--intervall=30s",
        )
        self.check("unexpected argument 'start'; see --help", "start")
        self.check("option --expire requires argument; see --help", "--expire")

    def test_a_data_folder_that_cannot_be_used(self) -> None:
        path = self.file("file", "")
        self.check(
            f"data: data folder {path}/data: a part of this path is a file; name a folder with "
            "--data (from flag --data)",
            f"--data={path}/data",
        )
        self.check(
            f"data: data folder {path}: this is a file; name a folder with --data "
            "(from flag --data)",
            f"--data={path}",
        )

    def test_a_data_folder_in_use(self) -> None:
        with RunningDaemon("--interval=1h") as daemon:
            self.check(
                f"data: data folder {daemon.data}: in use by another process "
                f"(pid {daemon.pid} on {socket.gethostname()} since ... UTC) (from flag --data)",
                f"--data={daemon.data}",
            )
            self.assertEqual(daemon.get("/ready")[0], 200)
            LineClient(daemon).authorize("alice")

    def test_a_file_that_is_no_database(self) -> None:
        for name in ("log.sqlite", "store.sqlite"):
            data = self.folder / name.partition(".")[0]
            data.mkdir()
            (data / name).write_bytes(b"this is no database, but long enough for one" * 99)
            self.check(
                f"data: database {data}/{name} is damaged: file is not a database; stop the "
                "daemon, move the file and its -wal away and start it again, or "
                "use 'kupool restore' with a backup; ... (from flag --data)",
                f"--data={data}",
            )

    def test_a_database_of_a_newer_version(self) -> None:
        with RunningDaemon("--interval=1h") as daemon:
            daemon.stop()
            with contextlib.closing(sqlite3.connect(daemon.data / "store.sqlite")) as connection:
                connection.execute("INSERT INTO schema_version (version) VALUES (9999)")
                connection.commit()
            self.check(
                "data: the store database has schema version 9999, ...(from flag --data)",
                f"--data={daemon.data}",
            )

    def test_an_engine_that_is_not_there(self) -> None:
        self.check("pg_dsn: --store pg needs a connection string (from default)", "--store=pg")
        self.check(
            "mq_url: --mq rabbit needs the address of a broker (from environment KUP_MQ_URL)",
            env={"KUP_MQ": "rabbit", "KUP_MQ_URL": ""},
        )
        self.check("mq: 'kafka' is not one of sqlite, memory, rabbit (from ...", "--mq=kafka")

    def test_a_checker_that_is_none(self) -> None:
        self.check(
            "auth: 'file:/none': No such file or directory (from flag --auth)",
            "--auth=file:/none",
        )
        ended = self.check("auth: 'memory:***': ...", f"--auth=memory:admin:{PASSWORD}:x")
        self.assertNotIn(PASSWORD, ended.stderr + ended.stdout)
        self.check("auth: 'ldap:***': no such kind of checker, there are ...", "--auth=ldap:x")
        self.check(
            "auth: 'anonymous': it does not check passwords (from flag --auth)",
            "--auth=anonymous",
        )

    def test_an_address_that_is_none(self) -> None:
        for address in ("nonsense", "tcp:99999", "ssl:8443:privateKey=/none", "quic:1:2", "::1:80"):
            self.check(f"addr: {address!r}...(from flag --addr)", f"--addr={address}")
        self.check("http: 'nonsense'...(from flag --http)", "--http=nonsense")
        self.check("addr: no address to listen on (from flag --addr)", "--addr=")
        self.check(
            f"addr: cannot listen on {self.folder}/none/sock: No such file or directory"
            " (from flag --addr)",
            f"--addr=unix:{self.folder}/none/sock",
        )

    def test_an_origin_that_is_none(self) -> None:
        self.check(
            "ws_origins: 'pool example'...(from flag --ws-origins)", "--ws-origins=pool example"
        )
        self.check("http_hosts: 'a:b:c'...(from flag --http-hosts)", "--http-hosts=a:b:c")

    def test_a_log_file_that_cannot_be_written(self) -> None:
        ended = self.run_daemon(twistd=("-n", f"--logfile={self.folder}/none/log"))
        self.assertNotEqual(ended.returncode, 0)
        self.assertEqual(
            ended.stderr.splitlines()[-1],
            f"kupool: log file {self.folder}/none/log: No such file or directory; name another "
            "with 'twistd --logfile=FILE kupool', or start in a folder that you may write to",
        )


class BackgroundTests(Case):
    """K-88: without -n, twistd's parent says so and exits with a failure."""

    def start(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.run_daemon(
            "--http=", f"--data={self.folder}/data", *flags, twistd=("--pidfile=pid",)
        )

    def test_it_goes_into_the_background_and_stops(self) -> None:
        """K-85, K-92: it logs to a file there, and stops in order on a signal."""
        command = [*TWISTD, "--pidfile=pid", "--logfile=log", "kupool", "--addr=127.0.0.1:0"]
        ended = subprocess.run(
            [*command, "--http=", "--data=data"],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        pid = int((self.folder / "pid").read_text())
        try:
            self.wait_until(lambda: "Ready: " in self.log())
            os.kill(pid, signal.SIGUSR1)
            self.wait_until(lambda: (self.folder / "log.1").exists())
            os.kill(pid, signal.SIGTERM)
            self.wait_until(lambda: not (self.folder / "pid").exists())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lines = [json.loads(line) for line in self.log().splitlines()]
        self.assertIn("Stopped", [line["message"] for line in lines])

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text("utf-8") if path.exists() else ""

    def wait_until(self, call: object) -> None:
        deadline = time.monotonic() + 20
        while not call():  # type: ignore[operator]
            self.assertLess(time.monotonic(), deadline, self.log())
            time.sleep(0.02)

    def test_failures(self) -> None:
        """K-88: a port that is taken, a damaged file, a wrong value."""
        port = self.taken_port()
        data = self.folder / "broken"
        data.mkdir()
        (data / "log.sqlite").write_bytes(b"no database" * 999)
        for expected, flags in (
            (
                f"kupool: addr: cannot listen on 127.0.0.1:{port}: Address already in use",
                [f"--addr=127.0.0.1:{port}"],
            ),
            (
                f"kupool: data: database {data}/log.sqlite is damaged: file is not a database",
                ["--addr=127.0.0.1:0", f"--data={data}"],
            ),
            ("kupool: expire: 'x' is not a duration such as 30s, 1h30m or 0", ["--expire=x"]),
        ):
            ended = self.start(*flags)
            self.assertNotEqual(ended.returncode, 0)
            lines = ended.stderr.splitlines()
            self.assertEqual(len(lines), 1, ended.stderr)
            self.assertTrue(lines[0].startswith(expected), lines)
            self.assertNotIn("Traceback", ended.stderr)
        log = self.folder / "twistd.log"
        self.assertIn("Cannot start: ", log.read_text("utf-8"))
        self.assertNotIn("Traceback", log.read_text("utf-8"))

    def test_places_that_cannot_be_written_to(self) -> None:
        """K-88: the log file and the file with the process id are named, with what to do."""
        for option, name in (("--pidfile", "process id file"), ("--logfile", "log file")):
            path = f"{self.folder}/none/x"
            ended = subprocess.run(
                [*TWISTD, f"{option}={path}", "kupool", "--addr=127.0.0.1:0", "--http="],
                capture_output=True,
                text=True,
                timeout=30,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            self.assertEqual(ended.returncode, 1)
            self.assertRegex(
                ended.stderr, rf"^kupool: {name} {path}: .*; name another with 'twistd {option}="
            )
            self.assertEqual(ended.stderr.count("\n"), 1)


class FlagTests(Case):
    """K-89, K-90: every name of a flag and a variable, and which of them wins."""

    def test_the_flags_of_the_first_implementation(self) -> None:
        """K-89: the daemon takes each in Go's manner."""
        daemon = RunningDaemon(
            "-interval",
            "20s",
            "-expire",
            "0",
            "-store",
            "memory",
            "-mq",
            "memory",
            "-pg_dsn",
            f"postgres://kupool:{PASSWORD}@db/kupool",
            "-mq_url",
            f"amqp://kupool:{PASSWORD}@mq/",
            "-mq_queue",
            "queue",
            "-addr",
            "127.0.0.1:0",
        )
        with daemon:
            self.assertEqual(len(daemon.addresses), 2)
            LineClient(daemon).authorize("alice")
            self.assertEqual(daemon.stop(), 0)
            self.assertNotIn(PASSWORD, daemon.output)
            self.assertIn("in memory (--", daemon.output)

    def test_the_variables_of_the_first_implementation(self) -> None:
        """K-89, K-90: the daemon goes by its environment, and a flag wins over it."""
        path = self.file("kupool.yaml", "submit_interval: 0s\nhistory_window: 5m\ninterval: 9h\n")
        env = {
            "KUP_INTERVAL": "50ms",
            "KUP_EXPIRE": "1h",
            "KUP_STORE": "memory",
            "KUP_MQ": "memory",
            "KUP_LOG_LEVEL": "warn",
            "KUP_HISTORY_WINDOW": "2m",
            "KUP_PG_DSN": f"host=db password={PASSWORD}",
            "KUP_MQ_URL": "",
            "KUP_MQ_QUEUE": "q",
            "KUP_ADDR": "127.0.0.1:1,127.0.0.1:2",
        }
        # --log-level wins over KUP_LOG_LEVEL, --addr over KUP_ADDR; the file over defaults.
        with RunningDaemon("--log-level=info", f"--config={path}", env=env) as daemon:
            client = LineClient(daemon)
            job = client.authorize("alice")
            self.assertEqual(client.job()["job_id"], job["job_id"] + 1)  # not in 9 hours
            self.assertEqual(client.submit(job, "a")["result"], True)
            self.assertEqual(client.submit(job, "b")["result"], True)  # no second between
            self.assertNotIn(PASSWORD, daemon.output)


class LogTests(Case):
    """K-92: the log is JSON with a level, and holds what it should and no secret."""

    def test_lines_and_fields(self) -> None:
        """K-92: at debug, what happens to a session has its fields."""
        with RunningDaemon("--interval=1h", env={"KUP_LOG_LEVEL": "debug"}) as daemon:
            client = LineClient(daemon)
            job = client.authorize("alice.rig1")
            local = "{}:{}".format(*client.socket.getsockname())
            client.close()
            while "alice.rig1 left" not in daemon.output:
                time.sleep(0.02)
            self.assertEqual(daemon.stop(), 0)
            events = daemon.events()
            self.assertEqual(len(events), len(daemon.lines))
            for event in events:
                self.assertGreaterEqual(set(event), {"time", "level", "module", "message"})
            (came,) = [e for e in events if e["message"] == "alice.rig1 authorized"]
            (left,) = [e for e in events if e["message"].startswith("alice.rig1 left")]
            for event in (came, left):
                self.assertEqual(event["level"], "debug")
                self.assertEqual(event["username"], "alice.rig1")
                self.assertEqual(event["remote"], local)
                self.assertEqual(event["module"], "kupool.pool.pool.Pool")
                self.assertRegex(event["session"], "^[0-9a-f]{32}$")
            self.assertEqual(came["session"], left["session"])
            (made,) = [e for e in events if "job_id" in e and e["level"] == "info"]
            self.assertEqual(made["job_id"], job["job_id"])

    def test_the_level(self) -> None:
        """K-92: less than the level of KUP_LOG_LEVEL is not there."""
        with RunningDaemon("--interval=1h", env={"KUP_LOG_LEVEL": "info"}) as daemon:
            LineClient(daemon).authorize("alice")
            daemon.stop()
            self.assertNotIn("alice", daemon.output)
            self.assertEqual({e["level"] for e in daemon.events()}, {"info"})

    def test_text(self) -> None:
        """K-92: --log-format text is for people."""
        with RunningDaemon("--interval=1h", "--log-format=text") as daemon:
            daemon.stop()
            self.assertEqual(daemon.events(), [])
            self.assertRegex(daemon.output, r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ Ready: ")


class BrokerTests(Case):
    """The settings and the flags of a Go-Queue broker start the daemon."""

    def test_its_file_and_its_flags(self) -> None:
        """Q-67, Q-68: what has no meaning here is named once."""
        flags = ("-broker-id", "7", "-raft-addr=h:1", "-config", str(BROKER))
        with RunningDaemon(*flags) as daemon:
            daemon.stop()
            told = [e["message"] for e in daemon.events() if "has no meaning here" in e["message"]]
        keys = [text.partition(" ")[0] for text in told]
        self.assertEqual(len(keys), len(set(keys)))
        self.assertLessEqual({"broker_id", "raft_addr", "segment_size"}, set(keys))
        self.assertIn("segment_size has no meaning here: SQLite keeps no segments", told)
