"""What a server is set up with from a file."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

import kupool
from kupool.errors import FRAME_TOO_LARGE
from kupool.net.configuration import DEFAULT_PATH, ConfigError, ServerConfig
from kupool.net.failures import MESSAGE_TOO_LARGE
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.wire.packets import UNLIMITED
from tests.fakes.peers import Observer

#: As the demo of the Go framework has it.
PAGUMA = {
    "Name": "Paguma Server",
    "Host": "127.0.0.1",
    "TcpPort": 7777,
    "MaxConn": 3,
    "WorkerPoolSize": 5,
    "MaxPacketSize": 512,
    "MaxWorkerTaskLen": 99,
    "Version": "V0.9",
}


class _FileCase(SynchronousTestCase):
    def file(self, name: str, text: str) -> str:
        path = Path(tempfile.mkdtemp()) / name
        path.write_text(text, "utf-8")
        return str(path)


class FileTests(_FileCase):
    """P-29, P-30: the keys of ``application.json`` load as they are, in YAML too."""

    def check(self, config: ServerConfig) -> None:
        self.assertEqual(
            config,
            ServerConfig(
                name="Paguma Server",
                host="127.0.0.1",
                tcp_port=7777,
                max_conn=3,
                worker_pool_size=5,
                max_packet_size=512,
                max_worker_task_len=99,
                version="V0.9",
            ),
        )

    def test_json(self) -> None:
        """P-29: every key."""
        self.check(ServerConfig.load(self.file("application.json", json.dumps(PAGUMA))))

    def test_yaml(self) -> None:
        """P-30: the same keys in YAML."""
        text = "".join(f"{key}: {value}\n" for key, value in PAGUMA.items())
        for name in ("application.yaml", "application.yml"):
            self.check(ServerConfig.load(self.file(name, "# settings\n" + text)))

    def test_where_it_is_looked_for(self) -> None:
        """P-29: ``config/application.json`` in the folder of the process."""
        self.assertEqual(DEFAULT_PATH, "config/application.json")
        path = Path(self.file("application.json", json.dumps(PAGUMA)))
        folder = path.parent / "config"
        folder.mkdir()
        path.rename(folder / path.name)
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(path.parent)
        self.check(ServerConfig.load())


class DefaultTests(_FileCase):
    """P-31, P-32: what is not said has its default, a file that is not there says nothing."""

    def test_defaults(self) -> None:
        """P-31: the documented ones."""
        config = ServerConfig()
        self.assertEqual((config.host, config.tcp_port), ("0.0.0.0", 8999))
        self.assertEqual((config.max_packet_size, config.max_conn), (4096, 1000))
        self.assertEqual((config.worker_pool_size, config.max_worker_task_len), (10, 1024))
        self.assertEqual((config.ip_version, config.version), ("tcp4", kupool.__version__))

    def test_a_part_of_the_keys(self) -> None:
        config = ServerConfig.load(self.file("a.json", '{"TcpPort": 1}'))
        self.assertEqual(config, ServerConfig(tcp_port=1))
        self.assertEqual(ServerConfig.load(self.file("a.yaml", "")), ServerConfig())

    def test_a_missing_file(self) -> None:
        """P-32: means defaults."""
        self.assertEqual(ServerConfig.load("/nowhere/application.json"), ServerConfig())

    def test_a_broken_file(self) -> None:
        """P-32: is one clear error that names the file and the place."""
        for name, text, where in (
            ("a.json", '{"Name": "x",\n "TcpPort": }', "line 2"),
            ("a.yaml", "Name: x\nTcpPort: [1", "line 2"),
            ("b.json", "[1, 2]", "expected a mapping of setting names to values"),
            ("c.json", "", "Expecting value"),
        ):
            path = self.file(name, text)
            with self.assertRaises(ConfigError) as caught:
                ServerConfig.load(path)
            self.assertIn(path, str(caught.exception))
            self.assertIn(where, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_a_folder_in_its_place(self) -> None:
        with self.assertRaises(ConfigError):
            ServerConfig.load(tempfile.mkdtemp())


class MistakeTests(_FileCase):
    """P-33: keys and values that mean nothing are reported, all at once."""

    def problems(self, **found: Any) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            ServerConfig.from_mapping(found, "the file")
        self.assertTrue(str(caught.exception).startswith("the file: "))
        return caught.exception.problems

    def test_unknown_keys(self) -> None:
        (problem,) = self.problems(MaxCon=3)
        self.assertEqual(problem, "unknown key 'MaxCon', did you mean 'MaxConn'?")
        (problem,) = self.problems(tcpport=3)
        self.assertEqual(problem, "unknown key 'tcpport', did you mean 'TcpPort'?")
        (problem,) = self.problems(Colour="red")
        self.assertEqual(problem, "unknown key 'Colour'")

    def test_mistyped_values(self) -> None:
        for key, value in (
            ("TcpPort", "8999"),
            ("TcpPort", 65536),
            ("TcpPort", -1),
            ("TcpPort", True),
            ("TcpPort", 1.5),
            ("Name", 3),
            ("Host", None),
            ("MaxConn", -1),
            ("MaxPacketSize", "4K"),
            ("MaxWorkerTaskLen", 0),
            ("WorkerPoolSize", [10]),
            ("IPVersion", "udp"),
        ):
            (problem,) = self.problems(**{key: value})
            self.assertTrue(problem.startswith(f"{key}: expected "), problem)
            self.assertIn(repr(value), problem)

    def test_all_at_once(self) -> None:
        problems = self.problems(TcpPort="x", MaxConn=-1, Nonsense=1, Host="::1")
        self.assertEqual(len(problems), 4)
        self.assertEqual(problems[-1], "Host: ::1 is not an address of IPVersion tcp4")


class AddressTests(SynchronousTestCase):
    def test_where_to_listen(self) -> None:
        for config, address in (
            (ServerConfig(), "0.0.0.0:8999"),
            (ServerConfig(ip_version="tcp6"), "[::]:8999"),
            (ServerConfig(ip_version="tcp6", host="::1", tcp_port=1), "[::1]:1"),
            (ServerConfig(host="localhost", tcp_port=0), "tcp:0:interface=localhost"),
            (ServerConfig(ip_version="tcp6", host="localhost"), "tcp6:8999:interface=localhost"),
        ):
            self.assertEqual(config.address, address)

    def test_one_address_instead_of_a_list(self) -> None:
        """A text would be taken for a list of its letters."""
        server = Server(MemoryReactorClock(), Observer())
        listening = Deferred.fromCoroutine(server.listen("tcp:0"))
        failure = self.failureResultOf(listening, ValueError)
        self.assertIn("'tcp:0' is one address", str(failure.value))


class ServerTests(SynchronousTestCase):
    """P-01, P-34: every value of the file is that of the server; none is left in the code."""

    def test_from_config(self) -> None:
        config = ServerConfig.from_mapping(PAGUMA)
        server = Server.from_config(MemoryReactorClock(), Observer(), config)
        self.assertEqual((server.name, server.host, server.port), ("Paguma Server", *HOST_PORT))
        self.assertEqual(server.ip_version, "tcp4")
        settings = server.manager.settings
        self.assertEqual((settings.max_frame, settings.max_connections), (512, 3))
        self.assertEqual(server.manager.settings.too_large, MESSAGE_TOO_LARGE)
        self.assertIs(server.config, config)
        assert server.config is not None
        self.assertEqual((server.config.worker_pool_size, server.config.version), (5, "V0.9"))
        self.assertEqual(server.config.max_worker_task_len, 99)

    def test_what_the_file_does_not_say(self) -> None:
        given = ServerSettings(idle_timeout=7.0, max_frame=1, max_connections=1)
        config = ServerConfig(ip_version="tcp6", host="::1")
        server = Server.from_config(MemoryReactorClock(), Observer(), config, settings=given)
        self.assertEqual(server.manager.settings.idle_timeout, 7.0)
        self.assertEqual(server.manager.settings.max_frame, 4096)
        self.assertEqual((server.host, server.ip_version), ("::1", "tcp6"))

    def test_unlimited_is_warned_about(self) -> None:
        """P-38: 0 is no limit, and the log says so."""
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        config = ServerConfig(max_packet_size=0, name="Big")
        server = Server.from_config(MemoryReactorClock(), Observer(), config)
        self.assertEqual(server.manager.settings.max_frame, UNLIMITED)
        warnings = [e for e in events if "unlimited" in (e.get("log_format") or "")]
        self.assertEqual([e["name"] for e in warnings], ["Big"])
        self.assertEqual(warnings[0]["log_level"].name, "warn")
        Server(MemoryReactorClock(), Observer())
        self.assertEqual(len([e for e in events if "unlimited" in (e.get("log_format") or "")]), 1)

    def test_several_in_one_process(self) -> None:
        """P-05: each has settings of its own."""
        reactor = MemoryReactorClock()
        one = Server.from_config(reactor, Observer(), ServerConfig(max_conn=1, name="one"))
        two = Server(reactor, Observer(), ServerSettings(max_connections=2), name="two")
        self.assertEqual([s.manager.settings.max_connections for s in (one, two)], [1, 2])
        self.assertEqual(
            [s.manager.settings.too_large for s in (one, two)], [MESSAGE_TOO_LARGE, FRAME_TOO_LARGE]
        )
        self.assertEqual((two.host, two.port, two.ip_version), ("", 0, ""))


HOST_PORT = ("127.0.0.1", 7777)
