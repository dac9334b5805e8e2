"""What a command imports: the daemon takes longer to import than most commands run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.commands.audit import DIFFERENT
from kupool.log import Epoch, Identity
from tests.fakes.data_folder import write_log, write_store
from tests.servers.answering import Answering
from tests.servers.running_daemon import ROOT

#: Runs a command, and leaves in a file which modules it had imported at its end.
COMMAND = """
import json, sys
from kupool.cli import main
status = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump([status, sorted(sys.modules)], file)
"""

#: Makes the daemon, and leaves the same.
DAEMON = """
import json, sys
from kupool.tap import Options, makeService
options = Options()
options.parseOptions(sys.argv[2:])
makeService(options)
with open(sys.argv[1], "w") as file:
    json.dump([0, sorted(sys.modules)], file)
"""

#: What talks to other servers, each with a library of its own.
ENGINES = (
    "kupool.amqp.links",
    "kupool.log.rabbit.log",
    "kupool.log.spool",
    "kupool.migration.rabbit_log",
    "kupool.stats.postgres",
    "kupool.storage.postgres.link",
    "pika",
    "psycopg2",
    "txpostgres",
)

#: What only the daemon and its clients need.
FRAMEWORK = (
    "kupool.bus",
    "kupool.client",
    "kupool.daemon.parts",
    "kupool.daemon.service",
    "kupool.live",
    "kupool.net",
    "kupool.pool",
    "kupool.rooms",
    "kupool.session",
    "kupool.storage.postgres",
    "kupool.tap",
    "kupool.web",
    "twisted.web",
)

#: What clients of the HTTP API do without.
PARTS = ("kupool.bus", "kupool.daemon.parts", "kupool.pool", "kupool.rooms", "kupool.web")

#: What the commands that copy files do without as well.
FILES_ONLY = (*ENGINES, *FRAMEWORK, "asyncio", "kupool.stats", "twisted")

UNUSED = {
    "config": (*FILES_ONLY, "kupool.daemon", "kupool.storage", "kupool.log", "rich", "zope"),
    "backup": FILES_ONLY,
    "restore": FILES_ONLY,
    "stats": (*ENGINES, *FRAMEWORK),
    "audit": (*ENGINES, *FRAMEWORK),
    "migrate": (*ENGINES, *FRAMEWORK, "kupool.stats"),
    "topic": (*ENGINES, *PARTS, "kupool.log", "kupool.stats", "kupool.storage", "rich"),
}


class ImportTests(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-imports-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.data = self.folder / "data"
        self.data.mkdir()
        identity = Identity("p", (Epoch("e", 1),))
        write_log(self.data, identity, 3)
        write_store(self.data, identity, 3)

    def imported(self, script: str, *arguments: str, status: int = 0) -> list[str]:
        """Run a script that has this status; return the modules that it leaves."""
        report = self.folder / "modules.json"
        done = subprocess.run(
            [sys.executable, "-c", script, str(report), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.stderr, "")
        ended, modules = json.loads(report.read_text())
        self.assertEqual(ended, status, done.stdout)
        return modules

    def assert_without(self, unused: tuple[str, ...], imported: list[str]) -> None:
        """None of these modules and packages was imported, nor what is in them."""
        self.assertEqual(
            [n for n in imported if any(n == u or n.startswith(f"{u}.") for u in unused)], []
        )

    def command(self, name: str, *arguments: str, status: int = 0) -> None:
        self.assert_without(UNUSED[name], self.imported(COMMAND, name, *arguments, status=status))

    def test_the_commands_on_the_files_of_a_pool(self) -> None:
        """Each imports only what it uses; without RabbitMQ and PostgreSQL neither of them."""
        data = f"--data={self.data}"
        self.command("config", data)
        self.command("stats", data)
        # The entries of this log are no batches, and counted none the less.
        self.command("audit", data, status=DIFFERENT)
        self.command("backup", data, str(self.folder / "backup"))
        self.command("backup", "--check", str(self.folder / "backup"))
        self.command("restore", f"--data={self.folder / 'restored'}", str(self.folder / "backup"))
        for name in ("old", "new"):
            data = str(self.data if name == "old" else self.folder / "new")
            (self.folder / f"{name}.yaml").write_text(json.dumps({"data": data}))
        old, new = str(self.folder / "old.yaml"), str(self.folder / "new.yaml")
        self.command("migrate", "--from", old, "--to", new)

    def test_a_client_of_the_http_api(self) -> None:
        """Q-83: it imports no part of the daemon."""
        body = b'{"topics":[],"next":null}'
        head = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        with Answering(head + body) as server:
            self.command("topic", "list", "--url", server.url)

    def test_the_daemon_by_default(self) -> None:
        """What is off is not imported: rooms, RabbitMQ, PostgreSQL, and what is in memory."""
        # The bus between nodes is imported, and with it the links to RabbitMQ.
        engines = [name for name in ENGINES if name != "kupool.amqp.links"]
        unused = (*engines, "kupool.rooms", "kupool.commands")
        memory = ("kupool.log.memory", "kupool.stats.memory")
        self.assert_without((*unused, *memory), self.imported(DAEMON, f"--data={self.data}"))
        imported = self.imported(DAEMON, f"--data={self.data}", "--rooms=on", "--store=memory")
        self.assertIn("kupool.rooms.service", imported)
        self.assertIn("kupool.stats.memory", imported)
        # A start without live channels and topics takes no longer for them.
        imported = self.imported(DAEMON, f"--data={self.data}", "--topics=off", "--live=off")
        unused = ("kupool.topics", "kupool.web.topics", "kupool.live.methods", "kupool.daemon.live")
        self.assert_without(unused, imported)
