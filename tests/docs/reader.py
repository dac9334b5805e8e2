"""Does what a page says, block by block, as a reader would in a clone of the project."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import tomllib
from contextlib import ExitStack
from pathlib import Path

import yaml

from kupool.settings import declared, load
from tests.docs.likeness import Likeness
from tests.docs.pages import ROOT, Block, Command, Said, blocks
from tests.docs.set_ups import SET_UPS, Surroundings
from tests.docs.terminal import Program
from tests.servers.own_process import free_port
from tests.servers.sockets import Peer

#: Commands that go on until Ctrl-C, and what they have printed when they are ready.
STAYING = (
    (re.compile(r"\btwistd\b.* (?:-n|--nodaemon)\b"), "Ready: "),
    (re.compile(r"\bpython3? \S+\.py\b.* --port\b"), "listening on "),
)

#: Ports of our own servers on the pages; each stands for a free one.
_PORT = re.compile(r"(?<![\w.])(?:80|90)\d\d(?![\w.]*\d)")
#: Those of a daemon that is not told otherwise.
_DAEMON = (8080, 8081)

#: Folders of the reader's machine that the pages name; here they are empty folders of our own.
_PLACES = ("/var/lib/kupool", "/etc/kupool", "/srv", "/backup")

_CONVERSATION = re.compile(r"^nc \S+ \d+$")
_HEXADECIMAL = re.compile(r"^((?:(?:[0-9a-f]{2}|[0-9a-f]{8})(?: +|$))*)(.*)$")

#: Lets a command begin where the one before it in the same terminal has ended.
_AS_BEFORE = """[ ! -f {state} ] || . {state}
trap '{{ export -p; printf "cd %q\\n" "$PWD"; }} > {state}' EXIT
"""


class Failure(Exception):
    """A block does not do what the page says; names the place."""


class Reader:
    """Works through one page. Use it as a context manager."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.blocks = blocks(page)
        self._stack = ExitStack()
        self._likeness = Likeness()
        #: Programs that go on, by their command, and the ports of those that are servers.
        self._running: dict[str, Program] = {}
        self._servers: dict[str, set[str]] = {}
        #: Those that talk with the reader, by terminal.
        self._talking: dict[str, Program] = {}
        self._peers: dict[str, Peer] = {}
        self._pasted: list[str] = []
        self._files: dict[str, str] = {}
        self._commands: list[str] = []

    def __enter__(self) -> Reader:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-docs-")))
        clone = folder / "kupool"
        clone.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in (".git", ".cache"):
                (clone / entry.name).symlink_to(entry)
        self.around = Surroundings(clone, self._environment(folder))
        for place in _PLACES:
            self.around.words[place] = str(folder / "machine" / place.lstrip("/"))
            Path(self.around.words[place]).mkdir(parents=True)
        for text in (block.text for block in self.blocks):
            for port in _PORT.findall(text):
                self._port(int(port))
        self.around.env["KUP_ADDR"] = f":{self._port(_DAEMON[0])}"
        self.around.env["KUP_HTTP"] = f"tcp:{self._port(_DAEMON[1])}:interface=127.0.0.1"
        try:
            if self.page in SET_UPS:
                SET_UPS[self.page](self.around, self._stack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for peer in self._peers.values():
            peer.close()
        for program in [*self._talking.values(), *self._running.values()]:
            program.kill()
        self._stack.close()

    def failures(self) -> list[str]:
        """Do it all; returns what does not work, the place first."""
        failed = []
        for block in self.blocks:
            if block.why_not is not None:
                continue
            try:
                self._do(block)
            except (AssertionError, Failure, OSError, ValueError, SyntaxError) as error:
                failed.append(f"{block.where}: {error}")
        for program in list(self._running.values()):
            try:
                self._stop(program)
            except AssertionError as error:
                failed.append(f"{self.page}: {error}")
        known = "\n".join([*self._commands, *self._files.values()])
        failed += [
            f"{self.page}: no command or file of the page uses {name}"
            for name in self._files
            if not re.search(rf"\b{re.escape(Path(name).stem)}\b", known.replace(f"# {name}\n", ""))
        ]
        return failed

    def _environment(self, folder: Path) -> dict[str, str]:
        programs = folder / "bin"
        programs.mkdir()
        for name, module in (("nc", "nc"), ("sqlite3", "sqlite3_shell")):
            if shutil.which(name) is None:
                file = Path(__file__).with_name(f"{module}.py")
                (programs / name).write_text(
                    f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(file))} "$@"\n'
                )
                (programs / name).chmod(0o755)
        path = [str(ROOT / ".venv" / "bin"), os.environ["PATH"], str(programs)]
        kept = ("LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE", "SSL_CERT_FILE")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "xterm",
            "COLUMNS": "120",
        }

    def _port(self, shown: int) -> int:
        return self.around.ports.setdefault(shown, free_port())

    def _real(self, text: str) -> str:
        """Return what is on the page as it is here."""
        for shown, real in self.around.words.items():
            text = re.sub(rf"(?<![\w.]){re.escape(shown)}", lambda _, real=real: real, text)
        text = _PORT.sub(lambda port: str(self.around.ports[int(port[0])]), text)
        return self._likeness.as_it_came(text)

    def _shown(self, text: str) -> str:
        """Return what was printed here as it is on the page."""
        for shown, real in self.around.words.items():
            text = text.replace(real, shown)
        for port, here in self.around.ports.items():
            text = re.sub(rf"(?<!\d){here}(?!\d)", str(port), text)
        return text

    def _prepare(self, block: Block) -> None:
        """Do what the comments before a block say, and keep the file that it is."""
        for what, text in block.directives:
            if what == "stops":
                self._stop_all(text)
            elif what == "run":
                self._run(Command("", text, ("...",)), block)
        if block.file_name is not None:
            self._save(block, block.file_name)

    def _do(self, block: Block) -> None:
        self._prepare(block)
        said = block.conversation()
        if said is not None:
            self._converse(said)
        elif block.language == "console":
            self._work(block)
        elif block.language == "python":
            compile(block.text, block.where, "exec")
            if block.file_name is None:
                self._paste(block)
        elif block.language in _CHECKS:
            _CHECKS[block.language](self._real(block.text), self.around.folder)
        elif block.file_name is None:
            raise Failure(f"nothing is known of {block.language or 'a block without language'!r}")

    def _work(self, block: Block) -> None:
        commands = block.commands()
        for command in commands:
            if command.text:
                stays = block.has("stays") and command is commands[-1]
                self._run(command, block, stays=stays)
            else:
                self._go_on(command)

    def _save(self, block: Block, name: str) -> None:
        if block.continues and name not in self._files:
            raise Failure(f"{name} is continued, and was not begun")
        self._files[name] = (self._files[name] if block.continues else "") + block.text
        path = self.around.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._real(self._files[name]), "utf-8")

    def _paste(self, block: Block) -> None:
        self._pasted.append(block.text)
        all_of_them = [b for b in self.blocks if b.language == "python" and not b.file_name]
        if block is [b for b in all_of_them if b.why_not is None][-1]:
            path = self.around.folder / "pasted.py"
            path.write_text(self._real("".join(self._pasted)), "utf-8")
            self._run(Command("", "python pasted.py", ()), block)

    def _run(self, command: Command, block: Block, *, stays: bool = False) -> None:
        self._commands.append(command.text)
        text = self._real(command.text)
        if _CONVERSATION.match(command.text):
            self._talk(command, text)
            return
        ready = [word for form, word in STAYING if form.search(command.text)]
        if stays or ready:
            self._stay(command, text, ready[0] if ready else "")
            return
        program = self._program(command.terminal, text)
        try:
            status = program.end()
            printed = self._shown(program.printed)
        finally:
            program.kill()
        same = self._likeness.same(
            command.shown, printed, numbers_differ=block.has("numbers differ")
        )
        if not same:
            shown = "".join(f"{line}\n" for line in command.shown)
            raise Failure(f"{command.text}\n--- shown\n{shown}--- printed\n{printed}")
        if status and not command.shown:
            raise Failure(f"{command.text}: status {status}")

    def _program(self, terminal: str, text: str) -> Program:
        state = self.around.folder.parent / f"terminal-{terminal}"
        before = _AS_BEFORE.format(state=shlex.quote(str(state)))
        return Program(text, self.around.folder, self.around.env, before)

    def _stay(self, command: Command, text: str, ready: str) -> None:
        """Start a program that goes on; a server takes the place of the one with its ports."""
        if ready:
            for before in [b for b in self._servers if self._servers[b] & _ports(command.text)]:
                self._stop(self._running[before])
            self._servers[command.text] = _ports(command.text)
        program = Program(text, self.around.folder, self.around.env)
        self._running[command.text] = program
        if command.terminal:
            self._talking[command.terminal] = program
        program.wait(lambda printed: ready in printed)
        for line in command.shown:
            while not self._likeness.same([line], self._shown(program.line())):
                pass

    def _stop_all(self, text: str) -> None:
        found = [command for command in self._running if text in command]
        if not found:
            raise Failure(f"nothing with {text!r} runs")
        for command in found:
            self._stop(self._running[command])

    def _stop(self, program: Program) -> None:
        self._running = {c: p for c, p in self._running.items() if p is not program}
        self._servers = {c: p for c, p in self._servers.items() if c in self._running}
        status = program.interrupt()
        printed = program.printed
        program.kill()
        assert status in (0, 130, -2), f"{program.command!r} ends with {status}: {printed}"

    def _talk(self, command: Command, text: str) -> None:
        program = self._program(command.terminal, text)
        if command.terminal in self._talking:
            self._talking.pop(command.terminal).kill()
        self._talking[command.terminal] = program
        self._go_on(command)

    def _go_on(self, command: Command) -> None:
        """Type what is typed, and expect what comes."""
        if command.terminal not in self._talking:
            raise Failure(f"no command, and nothing runs in the terminal {command.terminal!r}")
        program = self._talking[command.terminal]
        for line in command.shown:
            if _is_typed(line):
                program.type(self._real(line))
            else:
                came = self._shown(program.line())
                if not self._likeness.same([line], came):
                    raise Failure(f"in a conversation\n--- shown\n{line}\n--- came\n{came}")

    def _converse(self, said: list[Said]) -> None:
        if self.around.connect is None:
            raise Failure("a conversation, and no set-up connects its peers")
        for one in said:
            peer = self._peers.get(one.peer)
            if peer is None:
                peer = self._peers[one.peer] = self.around.connect(self.around, one.peer)
            head, text = _taken_apart(one.text)
            if one.sends:
                peer.send(head + self._real(text).encode())
                continue
            came = peer.exactly(len(head))
            whole = text.endswith("\n") and not head
            data = peer.line() if whole else peer.exactly(len(text.encode()))
            printed = data.decode(errors="replace")
            if came != head or not self._likeness.same([text.rstrip("\n")], self._shown(printed)):
                raise Failure(f"--- shown\n{one.text}\n--- came\n{came.hex(' ')}  {printed}")


def _ports(command: str) -> set[str]:
    """Return the ports that a server has, as the page shows them."""
    found = set(_PORT.findall(command))
    return found | {str(port) for port in _DAEMON} if "twistd" in command else found


def _is_typed(line: str) -> bool:
    """Whether a line of a conversation is a request, which the reader types."""
    try:
        message = json.loads(line)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("id") is not None and "method" in message


def _taken_apart(text: str) -> tuple[bytes, str]:
    """Return the bytes in hexadecimal that a line begins with, and the text after them."""
    found = _HEXADECIMAL.match(text)
    assert found is not None
    return bytes.fromhex(found[1]), found[2].replace("␊", "\n").replace("␍", "\r")


def _check_settings(text: str, folder: Path) -> None:
    found = yaml.safe_load(text)
    if isinstance(found, dict) and set(found) & set(declared()):
        path = folder / "checked-settings.yaml"
        path.write_text(text, "utf-8")
        load({"config": str(path)}, {})


def _check_json(text: str, folder: Path) -> None:
    json.loads(text)
    _check_settings(text, folder)


def _check_ini(text: str, _: Path) -> None:
    configparser.ConfigParser(strict=False, interpolation=None).read_string(text)


def _check_toml(text: str, _: Path) -> None:
    tomllib.loads(text)


_CHECKS = {
    "yaml": _check_settings,
    "json": _check_json,
    "ini": _check_ini,
    "desktop": _check_ini,
    "systemd": _check_ini,
    "toml": _check_toml,
}
