"""Every example as a process of its own, and the code of docs/framework.md."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import CloseReason
from kupool.net.manager import ServerSettings
from kupool.net.transport.proxied import ProxySettings
from tests.docs import pages
from tests.servers.programs import EXAMPLES, Program, python
from tests.servers.running_daemon import ROOT, RunningDaemon
from tests.servers.sockets import PATIENCE, Peer

#: The files of the section that tests.integration.test_rooms_docs runs.
CHAT_FILES = ("chat.py", "test_chat.py")


class EchoTests(SynchronousTestCase):
    def test_it_echoes_in_every_framing_and_ends_in_order(self) -> None:
        with python("echo.py", "--port", "0") as program:
            port = program.port()
            with Peer(port) as line, Peer(port) as frame, Peer(port) as int32:
                request = b'{"id":1,"method":"echo","params":{"x":[1,"a"]}}'
                answer = {"id": 1, "result": {"x": [1, "a"]}}
                line.send(request + b"\n")
                self.assertEqual(json.loads(line.line()), answer)
                frame.send(b"\x02" + len(request).to_bytes(4, "little") + request)
                opcode, payload = frame.frame()
                self.assertEqual((opcode, json.loads(payload)), (2, answer))
                int32.send(len(request).to_bytes(4, "big") + request)
                self.assertEqual(json.loads(int32.int32()), answer)
                line.send(b'{"id":2,"method":"shout","params":1}\n')
                self.assertEqual(json.loads(line.line())["error"], "unknown method")
                program.interrupt()
                self.assertEqual(json.loads(line.line())["params"]["reason"], "server going down")
                self.assertEqual(frame.frame(), (8, b"server going down"))
            self.assertEqual(program.end(), (0, ""))

    def test_it_is_short(self) -> None:
        """P-62: an echo server is at most 15 lines."""
        self.assertLessEqual(len((EXAMPLES / "echo.py").read_text("utf-8").splitlines()), 15)


def tlv(message_id: int, data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + message_id.to_bytes(4, "little") + data


def received(peer: Peer) -> tuple[int, bytes]:
    head = peer.exactly(8)
    return int.from_bytes(head[4:], "little"), peer.exactly(int.from_bytes(head[:4], "little"))


class TlvServerTests(SynchronousTestCase):
    def test_a_conversation(self) -> None:
        with python("tlv_server.py", "--port", "0") as program, Peer(program.port()) as peer:
            self.assertEqual(received(peer), (301, b"welcome"))
            peer.send(tlv(0, b"") + tlv(1, b"peer"))
            self.assertEqual(received(peer), (201, b"ping...ping...ping"))
            self.assertEqual(received(peer), (200, b"hello peer"))
            for unknown in range(20, 40):
                peer.send(tlv(unknown, b"what?"))
                answer = b"no handler for message %d" % unknown
                self.assertEqual(received(peer), (400, answer))
            peer.send(tlv(1, b"again"))
            self.assertEqual(received(peer), (200, b"hello again"))
            program.interrupt()
            self.assertEqual(received(peer), (302, b"farewell"))
            number, close = received(peer)
            self.assertEqual((number, json.loads(close)["params"]["code"]), (0, 4000))
            self.assertEqual(peer.rest(), b"")
            peer.close()
            self.assertEqual(program.end(), (0, ""))

    def test_one_over_the_limit_is_told(self) -> None:
        with (
            python("tlv_server.py", "--port", "0", "--max-connections", "1") as program,
            Peer(port := program.port()) as first,
        ):
            self.assertEqual(received(first)[0], 301)
            with Peer(port) as second:
                number, refusal = received(second)
                self.assertEqual((number, json.loads(refusal)["params"]["code"]), (0, 4102))
                self.assertEqual(second.rest(), b"")


class WorkerTests(SynchronousTestCase):
    """The workers that authors of others read work on the real pool."""

    def assert_counted(self, daemon: RunningDaemon, user: str, worker: str, least: int) -> None:
        """What the worker was told is accepted is counted, and nothing was refused."""
        stats: dict[str, Any] = {}
        end = time.monotonic() + PATIENCE
        while stats.get("accepted", 0) < least and time.monotonic() < end:
            _, stats = daemon.get(f"/stats?username={user}")
        self.assertGreaterEqual(stats["accepted"], least)
        self.assertEqual([row["worker"] for row in stats["workers"]], [worker])
        self.assertEqual(stats["rejections"], {})

    def assert_unwanted(self, program: Program) -> None:
        with program:
            program.line("^not authorized: .*unauthorized")
            self.assertEqual(program.end()[0], 1)

    def test_in_python(self) -> None:
        with RunningDaemon() as daemon:
            where = f"127.0.0.1:{daemon.port}"
            with python("worker.py", "--connect", where, "--username", "alice.py") as program:
                for _ in range(3):
                    program.line("^accepted ")
                self.assert_counted(daemon, "alice", "py", 3)
                program.interrupt()
                status, output = program.end()
            self.assertEqual(status, 0)
            self.assertNotIn("Traceback", output)

    def test_in_python_comes_back(self) -> None:
        with RunningDaemon() as daemon:
            where = f"127.0.0.1:{daemon.port}"
            with python("worker.py", "--connect", where, "--username", "alice.py") as program:
                program.line("^accepted ")
                daemon.kill()
                daemon.start()
                program.line("^accepted ")
                self.assertEqual(daemon.stop(), 0)
                program.line("^closed: server going down$")
                daemon.start()
                program.line("^accepted ")

    def test_in_bash(self) -> None:
        with RunningDaemon() as daemon:
            command = (str(EXAMPLES / "worker.sh"), "127.0.0.1", str(daemon.port), "bob.sh")
            with Program(*command) as program:
                for _ in range(3):
                    self.assertEqual(program.line(r"^\{(.*)\}$")[1], '"id":2,"result":true')
                self.assert_counted(daemon, "bob", "sh", 3)
                program.interrupt()
                self.assertEqual(program.end()[0], 0)

    def test_not_authorized(self) -> None:
        """Who is not wanted goes, with a status that says so."""
        with RunningDaemon() as daemon:
            name = "x" * 256
            where = f"127.0.0.1:{daemon.port}"
            self.assert_unwanted(python("worker.py", "--connect", where, "--username", name))
            bash = str(EXAMPLES / "worker.sh")
            self.assert_unwanted(Program(bash, "127.0.0.1", str(daemon.port), name))


def blocks(language: str) -> Iterator[str]:
    """Yield the text of the blocks of docs/framework.md in a language."""
    found = pages.blocks("docs/framework.md")
    return (block.text for block in found if block.language == language)


class FrameworkDocumentTests(SynchronousTestCase):
    """What the code of docs/framework.md does beyond what the page shows."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        for block in pages.blocks("docs/framework.md"):
            if block.file_name is not None:
                (self.folder / block.file_name).write_text(block.text, "utf-8")

    def run_python(self, *arguments: str) -> Program:
        return Program(sys.executable, *arguments, cwd=self.folder)

    def test_the_channels_reach_everybody(self) -> None:
        """Issue 13: the same for all, and something of its own for each."""
        with self.run_python("game.py", "--port", "0") as program:
            port = program.port()
            with Peer(port) as ann, Peer(port) as bob:
                for peer in (ann, bob):
                    peer.send(b'{"id":1,"method":"ping"}\n')
                    self.assertEqual(peer.line(), b'{"id":1,"result":true}')
                ann.send(b'{"id":2,"method":"say","params":{"text":"hi"}}\n')
                ann.send(b'{"id":3,"method":"score"}\n')
                said = b'{"id":null,"method":"said","params":{"text":"hi"}}'
                score = b'{"id":null,"method":"score","params":{"mine":%b}}'
                answers = [b'{"id":%d,"result":true}' % n for n in (2, 3)]
                heard = [said, answers[0], score % b"true", answers[1]]
                self.assertEqual([ann.line() for _ in heard], heard)
                self.assertEqual([bob.line(), bob.line()], [said, score % b"false"])
            program.interrupt()
            self.assertEqual(program.end()[0], 0)

    def test_the_client_submits(self) -> None:
        with RunningDaemon() as daemon:
            where = f"127.0.0.1:{daemon.port}"
            for printed in ("accepted\n", "Duplicate submission\n"):
                with self.run_python("submit_once.py", where, "alice") as program:
                    self.assertEqual(program.end(), (0, printed))

    def test_every_setting_is_listed_with_its_default(self) -> None:
        text = (ROOT / "docs" / "framework.md").read_text("utf-8")
        for field in fields(ServerSettings):
            row = re.search(rf"(?m)^\| `{field.name}` \| ([^|]+) \|", text)
            assert row is not None, field.name
            default = getattr(ServerSettings(), field.name)
            if isinstance(default, CloseReason):
                self.assertEqual(row[1], f"`{default.reason}`")
            elif isinstance(default, ProxySettings):
                self.assertEqual(row[1], ", ".join(default.trusted))
            elif field.name == "shared_hosts":
                self.assertEqual(row[1], "none")
                self.assertNotIn("127.0.0.1", default)
            elif field.name == "unix_mode":
                self.assertEqual(int(row[1], 8), default)
            else:
                self.assertEqual(float(row[1]), default, field.name)
