"""Takes a page of the documentation apart, into its code blocks and what they say.

A block's language says what it is for a reader:

``python``, ``yaml``, ``sh``, ``ini`` and others whose first line is ``# NAME.EXTENSION``
    A file, which the reader saves under that name. ``# NAME.EXTENSION (continued)`` is added to
    the file.
``python`` without a name
    What the reader pastes into Python, all such blocks of a page one after the other.
``console``
    What a terminal shows. A line that begins with ``$`` is a command, with ``ann$`` a command in
    a terminal of Ann's. A command goes on in the next line after a backslash, or where the shell
    needs more. What follows is the output, or, with ``nc``, what is typed and what comes.
a block without a language whose lines begin with ``NAME>`` and ``NAME<``
    A conversation: what a peer sends and receives, as text or as bytes in hexadecimal.
``yaml``, ``json``, ``toml``, ``ini``, ``desktop``, ``systemd``
    Has to be well formed; settings have to be settings.

A comment in the lines before a block tells the test what a reader does not need to be told::

    <!-- test: not run: needs root -->    leave the block out, for this reason
    <!-- test: run: touch a.txt -->       run this command first, whatever it prints
    <!-- test: stops: twistd -->          press Ctrl-C first, where a command with this text runs
    <!-- test: stays -->                  the last command does not end by itself
    <!-- test: terminal: ann -->          the block goes on in the terminal of that name
    <!-- test: numbers differ -->         every number in the output may be another one
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: What a comment for the test may say; see the module's text.
DIRECTIVES = ("not run", "run", "stops", "stays", "terminal", "numbers differ")

_FENCE = re.compile(r"^( *)```(\S*) *$")
_COMMENT = re.compile(r"^ *<!-- test: (?P<what>[a-z ]+?)(?:: (?P<text>.*?))? -->$")
_NAME = re.compile(r"# (?P<name>[\w./-]+\.\w+)(?P<more> \(continued\))?$")
_PROMPT = re.compile(r"^(?P<terminal>\w*)\$ (?P<command>.*)$")
_SAID = re.compile(r"^(?P<peer>\w*)(?P<way>[<>]) (?P<text>.*)$")


@dataclass(frozen=True)
class Command:
    """One command of a console block, and the lines that are shown after it."""

    terminal: str
    text: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """One line of a conversation: a peer sends it or receives it."""

    peer: str
    sends: bool
    text: str


@dataclass(frozen=True)
class Block:
    """One code block. ``line`` is that of its first line in the page, from 1 on."""

    page: str
    line: int
    language: str
    text: str
    directives: tuple[tuple[str, str], ...]

    @property
    def where(self) -> str:
        """The page and the line, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def why_not(self) -> str | None:
        """The reason why it is not run; None where it is."""
        return dict(self.directives).get("not run")

    def has(self, directive: str) -> bool:
        """Whether a comment before the block says this."""
        return directive in dict(self.directives)

    @property
    def file_name(self) -> str | None:
        """The name of the file that it is, or is a part of; None for all others."""
        found = _NAME.match(self.text.partition("\n")[0])
        return found["name"] if found and self.language != "console" else None

    @property
    def continues(self) -> bool:
        """Whether it is added to a file that an earlier block began."""
        found = _NAME.match(self.text.partition("\n")[0])
        return bool(found and found["more"])

    def commands(self) -> list[Command]:
        """The commands of a console block; a first one without text goes on with what runs."""
        found: list[Command] = []
        lines = iter(self.text.splitlines())
        terminal, text = dict(self.directives).get("terminal", ""), ""
        shown: list[str] = []
        for line in lines:
            prompt = _PROMPT.match(line)
            if prompt is None:
                shown.append(line)
                continue
            if text or shown:
                found.append(Command(terminal, text, tuple(shown)))
            terminal, text = prompt["terminal"], _whole(prompt["command"], lines)
            shown = []
        return [*found, Command(terminal, text, tuple(shown))]

    def conversation(self) -> list[Said] | None:
        """The lines of a conversation; None for a block that is none."""
        said = [_SAID.match(line) for line in self.text.splitlines()]
        if self.language or not all(said):
            return None
        return [Said(s["peer"], s["way"] == ">", s["text"]) for s in said if s]


def _whole(command: str, lines: Iterator[str]) -> str:
    """Return the command with the lines that belong to it, which are taken from ``lines``."""
    while command.endswith("\\") or _unfinished(command):
        command += "\n" + next(lines)
    return command


def _unfinished(command: str) -> bool:
    checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    return "unexpected end of file" in checked.stderr or (
        "unexpected EOF" in checked.stderr or "delimited by end-of-file" in checked.stderr
    )


def names() -> list[str]:
    """Return every page, as a path within the tree."""
    docs = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
    return ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", *docs]


def blocks(page: str) -> list[Block]:
    """Return the code blocks of a page; raises ValueError for a comment that means nothing."""
    found, fence, inside = [], None, []
    directives: list[tuple[str, str]] = []
    for number, line in enumerate((ROOT / page).read_text("utf-8").splitlines(), 1):
        mark = _FENCE.match(line)
        if fence is not None:
            indent, language, begin = fence
            if mark and not mark[2]:
                text = "".join(f"{part.removeprefix(indent)}\n" for part in inside)
                found.append(Block(page, begin + 1, language, text, tuple(directives)))
                fence, inside, directives = None, [], []
            else:
                inside.append(line)
        elif mark:
            fence = mark[1], mark[2], number
        elif comment := _COMMENT.match(line):
            if comment["what"] not in DIRECTIVES:
                raise ValueError(f"{page}:{number}: the test knows no {comment['what']!r}")
            directives.append((comment["what"], comment["text"] or ""))
        elif line.strip() and directives:
            raise ValueError(f"{page}:{number}: a block has to follow a comment for the test")
    if fence is not None:
        raise ValueError(f"{page}: the block in line {fence[2]} has no end")
    return found
