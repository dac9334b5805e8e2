"""What happens to the data folder while the daemon runs, and before it starts."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed

_KUPOOL = (sys.executable, "-c", "import sys; from kupool.cli import main; sys.exit(main())")
REFUSED = ("Temporarily unavailable", 27)


def counted(data: Path) -> int:
    """How many submissions the store has counted."""
    connection = sqlite3.connect(data / "store.sqlite")
    try:
        found = connection.execute("SELECT sum(submission_count) FROM submissions").fetchone()
    finally:
        connection.close()
    return int(found[0] or 0)


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        root = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(root.cleanup)
        self.root = Path(root.name)
        self.data, self.away = self.root / "data", self.root / "away"
        self.number = 0

    def start(self, *flags: str, **more: Any) -> RunningDaemon:
        self.daemon = RunningDaemon("--interval=1h", *UNLIMITED, *flags, data=self.data, **more)
        self.addCleanup(self.daemon.__exit__)
        self.daemon.start(60)
        self.client = LineClient(self.daemon, 60)
        self.job = self.client.authorize("alice")
        return self.daemon

    def submit(self, nonce: str = "") -> Any:
        """Submit a new nonce, or this one; returns True, or the error."""
        self.number += not nonce
        answer = self.client.submit(self.job, nonce or f"n{self.number}")
        return answer["result"] or (answer["error"], answer["code"])

    def wait_for(self, status: int, text: str) -> None:
        """Wait until /ready answers with a status, and with a reason that has this in it."""
        deadline = time.monotonic() + 60
        while True:
            found, body = self.daemon.get("/ready", 60)
            if found == status and (text in str(body["reasons"]) if text else not body["reasons"]):
                return
            self.assertLess(time.monotonic(), deadline, (found, body))
            time.sleep(0.1)

    def refused_line(self, **more: Any) -> str:
        """Start a daemon that refuses to; returns its one line."""
        daemon = RunningDaemon("--interval=1h", data=self.data, **more)
        self.addCleanup(daemon.__exit__)
        self.assertRaises(StartFailed, daemon.start, 60)
        self.assertNotIn("Traceback", daemon.output)
        (line,) = daemon.refusals
        return line


class WhileItRunsTests(FolderCase):
    """Issue 11, point 4: never ``true`` for what the next start would not find."""

    def test_moved_and_put_back(self) -> None:
        self.start()
        self.assertIs(self.submit("a"), True)
        self.data.rename(self.away)
        # Nobody has submitted anything, and it is known.
        self.wait_for(503, f"log: {self.data} was moved to {self.away}")
        self.assertEqual(self.submit("b"), REFUSED)
        self.away.rename(self.data)
        self.wait_for(200, "")
        self.assertIs(self.submit("b"), True)
        self.assertEqual(self.submit("a")[0], "Duplicate submission")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.data), 2)

    def test_deleted(self) -> None:
        self.start()
        self.assertIs(self.submit(), True)
        shutil.rmtree(self.data)
        self.assertEqual(self.submit(), REFUSED)
        self.wait_for(503, f"log: {self.data} was deleted")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertFalse(self.data.exists())

    def test_replaced_by_a_copy(self) -> None:
        """The copy has what was answered, and takes a new daemon while the old one stops."""
        self.start()
        self.assertIs(self.submit("a"), True)
        self.data.rename(self.away)
        shutil.copytree(self.away, self.data)
        before = sorted(os.listdir(self.data))
        self.assertEqual(self.submit("b"), REFUSED)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(sorted(os.listdir(self.data)), before)
        job, daemon = self.job, self.start()
        answer = self.client.submit(job, "b")
        self.assertIs(answer["result"], True, answer)
        self.assertEqual(self.client.submit(job, "a")["error"], "Duplicate submission")
        self.assertEqual(daemon.stop(), 0)
        self.assertEqual(counted(self.data), 2)

    def test_a_deleted_write_ahead_log(self) -> None:
        """Someone tidies up: what was answered is saved, and nothing is answered after it."""
        self.start()
        accepted = [f"a{n}" for n in range(20) if self.submit(f"a{n}") is True]
        self.assertEqual(len(accepted), 20)
        (self.data / "log.sqlite-wal").unlink()
        self.assertEqual(self.submit("b"), REFUSED)
        self.daemon.kill()
        job = self.job
        self.start()
        for nonce in accepted:
            self.assertEqual(self.client.submit(job, nonce)["error"], "Duplicate submission")
        # Written just before it was noticed, it is in the file that was saved, and a duplicate.
        answer = self.client.submit(job, "b")
        self.assertIn(answer.get("error"), (None, "Duplicate submission"))
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.data), 21)

    def test_the_store_deleted(self) -> None:
        """Submissions are accepted, as the log has them; that nothing is counted is a reason."""
        self.start()
        self.assertIs(self.submit(), True)
        store = self.data / "store.sqlite"
        store.rename(self.away)
        self.wait_for(200, f"{store} was moved away or deleted")
        self.assertIs(self.submit(), True)
        self.away.rename(store)
        self.wait_for(200, "")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.data), 2)

    def test_errors_of_the_disk(self) -> None:
        """Whatever cannot be written is refused, and all works again without a restart."""
        self.start()
        self.assertIs(self.submit("a"), True)
        resource.prlimit(self.daemon.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        self.assertEqual(self.submit("b"), REFUSED)
        self.assertEqual(self.daemon.get("/ready")[0], 503)
        infinity = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self.daemon.pid, resource.RLIMIT_FSIZE, infinity)
        self.wait_for(200, "")
        self.assertIs(self.submit("b"), True)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.data), 2)

    def test_the_log_locked_by_another_program(self) -> None:
        """A reason at first; refused at once when what may be on its way is used up."""
        self.start("--batches-in-flight=3")
        self.assertIs(self.submit("a"), True)
        other = sqlite3.connect(self.data / "log.sqlite", isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.client.send(self.submission(1, "b"))
        self.wait_for(200, "log: it has not answered for")
        seen = []
        for n in range(2, 6):
            self.client.send(self.submission(n, f"c{n}"))
            time.sleep(0.2)  # a batch of its own for each
        seen += [self.client.receive() for _ in range(2)]
        self.assertEqual([(m["id"], m["code"]) for m in seen], [(4, 27), (5, 27)])
        self.wait_for(503, "submissions are refused")
        other.execute("ROLLBACK")
        seen = [self.client.receive() for _ in range(3)]
        self.assertEqual(
            sorted((m["id"], m["result"]) for m in seen), [(n, True) for n in (1, 2, 3)]
        )
        self.wait_for(200, "")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.data), 4)

    def submission(self, number: int, nonce: str) -> dict[str, Any]:
        result = sha256((self.job["server_nonce"] + nonce).encode()).hexdigest()
        params = {"job_id": self.job["job_id"], "client_nonce": nonce, "result": result}
        return {"id": number, "method": "submit", "params": params}


class BeforeItStartsTests(FolderCase):
    """Issue 11, point 4: what is in the folder, and whose."""

    def test_modes(self) -> None:
        """Whatever the umask, and also of what SQLite puts beside its files."""
        self.start(prefix=("/bin/sh", "-c", 'umask 000; exec "$@"', "-"))
        self.assertIs(self.submit(), True)
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.data.iterdir()}
        self.assertEqual(stat.S_IMODE(self.data.stat().st_mode), 0o700)
        self.assertEqual(set(found.values()), {0o600}, found)
        for name in ("lock", "log.sqlite", "log.sqlite-wal", "log.sqlite-shm", "store.sqlite-wal"):
            self.assertIn(name, found)
        self.assertEqual(self.daemon.stop(), 0)
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.data.iterdir()}
        self.assertEqual(set(found.values()), {0o600}, found)
        self.assertIn("clean", found)

    def test_a_link_in_the_place_of_the_lock(self) -> None:
        self.data.mkdir()
        (self.root / "precious").write_text("x")
        (self.data / "lock").symlink_to(self.root / "precious")
        self.assertIn("lock is a symbolic link, and is not followed", self.refused_line())
        self.assertEqual((self.root / "precious").read_text(), "x")

    def test_the_same_process_number(self) -> None:
        """In a container each run has number 1: neither its own lock nor that of its socket
        stops the next.
        """
        unshare = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
        if os.geteuid() != 0 or subprocess.run([*unshare, "true"]).returncode:
            self.skipTest("no namespace of process numbers can be made")
        path = self.root / "sock"
        for _ in range(2):
            daemon = RunningDaemon(data=self.data, addr=f"unix:{path}", prefix=unshare)
            self.addCleanup(daemon.__exit__)
            daemon.start(60)
            self.assertTrue((self.data / "lock").read_text().startswith("pid 1 on "))
            self.assertEqual(os.readlink(f"{path}.lock"), "1")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
            daemon.kill()
            self.assertTrue(os.path.lexists(f"{path}.lock"))

    def test_a_socket_in_use(self) -> None:
        path = self.root / "sock"
        self.start()
        with RunningDaemon(addr=f"unix:{path}") as other:
            line = RunningDaemon(data=self.away, addr=f"unix:{path}")
            self.addCleanup(line.__exit__)
            self.assertRaises(StartFailed, line.start, 60)
            expected = f"cannot listen on {path}: in use by another process (pid {other.pid})"
            self.assertIn(f"kupool: addr: {expected} (from flag --addr)", line.refusals)

    def damage(self, how: str) -> None:
        file = self.data / "log.sqlite"
        size = file.stat().st_size
        with open(file, "r+b") as opened:
            if how == "header":
                opened.write(b"\0" * 100)
            elif how == "short":
                opened.truncate(size // 2 // 4096 * 4096)
            else:
                for page in range(size // 4096 // 3, size // 4096 * 2 // 3):
                    opened.seek(page * 4096)
                    opened.write(os.urandom(4096))

    def test_damaged_files(self) -> None:
        """Also where the last run ended in order: they are not as it left them. The line names
        the file, and what to do; that done, used nonces stay used and counts stay.
        """
        self.start()
        for n in range(200):
            self.assertIs(self.submit(f"a{n}"), True)
        job, log = self.job, self.data / "log.sqlite"
        self.assertEqual(self.daemon.stop(), 0)
        good = log.read_bytes()
        for how in ("pages", "short", "header"):
            log.write_bytes(good)
            self.damage(how)
            line = self.refused_line()
            self.assertIn(f"kupool: data: database {log} is damaged: ", line)
            self.assertIn("move the file and its -wal away and start it again, or use", line)
            for command in ("audit", "stats"):
                self.check_command(command, log)
        log.unlink()
        self.start()
        self.assertIs(self.submit("new"), True)
        for n in range(200):
            self.assertNotEqual(self.client.submit(job, f"a{n}")["result"], True)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(counted(self.data), 201)

    def check_command(self, name: str, log: Path) -> None:
        arguments = [name, "rebuild"] if name == "stats" else [name]
        ended = subprocess.run(
            [*_KUPOOL, *arguments, f"--data={self.data}"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).resolve().parents[2],
        )
        self.assertNotEqual(ended.returncode, 0, ended)
        (line,) = ended.stderr.splitlines()
        self.assertTrue(line.startswith(f"kupool: database {log} is damaged: "), ended)

    def test_killed_and_not_damaged(self) -> None:
        """The look at the files costs nobody anything."""
        self.start()
        self.assertIs(self.submit("a"), True)
        self.daemon.kill()
        self.assertFalse((self.data / "clean").exists())
        job = self.job
        self.start()
        self.assertEqual(self.client.submit(job, "a")["error"], "Duplicate submission")
        self.assertEqual(self.daemon.stop(), 0)
        self.assertTrue((self.data / "clean").exists())
