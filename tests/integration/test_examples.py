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

import pika
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import CloseReason
from kupool.net.manager import ServerSettings
from kupool.net.transport.proxied import ProxySettings
from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.compression import CODECS
from kupool.topics.records import NewRecord
from tests.docs import pages
from tests.servers.own_process import free_port
from tests.servers.programs import EXAMPLES, Program, python
from tests.servers.running_daemon import ROOT, RunningDaemon
from tests.servers.services import rabbit
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


class HttpConsumerTests(SynchronousTestCase):
    """Issue 16, acceptance 8: a member of a group with nothing but HTTP."""

    def setUp(self) -> None:
        self.daemon = RunningDaemon(http_address=f"tcp:{free_port()}:interface=127.0.0.1")
        self.daemon.start()
        self.addCleanup(self.daemon.__exit__)
        self.call("topic/create", topic="t", settings={"partitions": 2})

    def call(self, operation: str, **params: object) -> Any:
        status, found = self.daemon.post(f"/api/{operation}", params)
        self.assertEqual(status, 200, found)
        return found

    def write(self, partition: int, *values: str) -> None:
        records = [{"value": value} for value in values]
        self.call("log/produce", topic="t", partition=partition, records=records)

    def member(self) -> Program:
        env = {"KUP_URL": self.daemon.url(""), "KUP_TOKEN": self.daemon.secret}
        program = Program(sys.executable, str(EXAMPLES / "http_consumer.py"), "t", "g", env=env)
        program.line("^joined as m-")
        return program

    def committed(self) -> list[int | None]:
        """Return where the group is in each partition."""
        found = self.call("group/describe", group="g")
        return [each["committed"] for each in found["positions"]]

    def test_it_reads_and_goes_on_after_a_restart(self) -> None:
        """Q-66, Q-40, Q-44, Q-45: of the daemon, and of its own; nothing is printed again."""
        self.write(0, "a", "b")
        with self.member() as program:
            program.line("^0/0 a$")
            program.line("^0/1 b$")
            self.write(1, "c")
            program.line("^1/0 c$")
            self.daemon.kill()
            program.line("^no answer: ")
            self.daemon.start()
            program.line("^joined as m-")
            self.write(0, "d")
            program.line("^0/2 d$")
            # It is committed before the next record is read.
            self.write(0, "e")
            program.line("^0/3 e$")
            program.interrupt()
            status, output = program.end()
            self.assertEqual(status, 0)
            self.assertNotIn("Traceback", output)
        self.assertEqual(self.committed()[1], 1)
        self.write(0, "f")
        with self.member() as program:
            # It has left, so this one has the partitions at once. "e" may not be committed.
            printed = program.line("^0/[0-9]+ ([a-f])$")
            self.assertIn(printed[1], "ef")

    def test_two_members_share(self) -> None:
        """Q-42, Q-43: each partition has one of them."""
        with self.member() as first, self.member():
            end = time.monotonic() + PATIENCE
            owners: set[str] = set()
            while len(owners) < 2 and time.monotonic() < end:
                found = self.call("group/describe", group="g")
                owners = {each["owner"] for each in found["positions"]}
            self.assertEqual(len(owners), 2)
            self.write(0, "x")
            self.write(1, "y")
            found = first.line("^[01]/0 [xy]$")
            self.assertIsNotNone(found)

    def test_refused(self) -> None:
        """Q-79: it ends with what the daemon says."""
        env = {"KUP_URL": self.daemon.url(""), "KUP_TOKEN": "x" * 40}
        path = str(EXAMPLES / "http_consumer.py")
        with Program(sys.executable, path, "t", "g", env=env) as program:
            program.line("^refused: unauthorized")
            self.assertEqual(program.end()[0], 1)


class AmqpConsumerTests(SynchronousTestCase):
    """Issue 16, acceptance 8: a reader of a partition with nothing but a plain AMQP client."""

    def test_it_reads_a_partition(self) -> None:
        """Q-38: every compression, once however often it was sent; what is no batch is named."""
        url, stream = rabbit().new_vhost(), "kupool.topic.t.0"
        codec = RecordCodec()
        record = NewRecord(b"value", b"key", {"h": "1"}, 7)
        plain = codec.encode([record, NewRecord(b"\xff" * 9)], "batch 0", 1_000, Compression())
        bodies = [plain, b"junk", plain]
        for number, name in enumerate(CODECS[1:], 1):
            records = [NewRecord(name.encode() * 100)]
            compression = Compression(name, 1)
            bodies.append(codec.encode(records, f"batch {number}", 1_000, compression))
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
        for body in bodies:
            channel.basic_publish("", stream, body)
        connection.close()
        with python("amqp_consumer.py", url, stream) as program:
            program.line("^position 1: this is no batch$")
            status, output = program.end()
        self.assertEqual(status, 0)
        lines = output.splitlines()
        for number, name in enumerate(CODECS[1:], 3):
            self.assertIn(f"{number * 65536} 1000 - {name * 100}", lines)
        self.assertEqual(lines[-1], f"next: {6 * 65536 + 1}")
        with python("amqp_consumer.py", url, stream, "1") as program:
            program.line("^1 1000 - ")
            program.line("^position 1: ")
            program.line(f"^{3 * 65536} ")
            self.assertEqual(program.end()[0], 0)
        with python("amqp_consumer.py", url, stream) as program:
            program.line(r"^0 7 key value \('h', '1'\)$")


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
