"""Standard output and standard error of a command, and the parser of its command line."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from kupool.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

#: The width in characters for files and pipes: large enough that nothing is cut.
WIDE = 100_000

#: The exit status of a command whose reader has gone away, as a shell gives it for SIGPIPE.
NO_READER = 141


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints all text unchanged, even if it looks like markup."""
    from rich.console import Console  # which takes time that most commands need not spend

    class PlainConsole(Console):
        """Leaves a broken pipe to :func:`run_to_status`."""

        def on_broken_pipe(self) -> None:
            """Called while a :class:`BrokenPipeError` is handled."""
            raise  # the one that is being handled

    stream: TextIO = sys.stderr if stderr else sys.stdout
    return PlainConsole(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if stream.isatty() else WIDE,
    )


def print_table(
    console: Console,
    columns: Iterable[str],
    rows: Iterable[Iterable[object]],
    *,
    title: str = "",
    numbers: int = 0,
) -> None:
    """Print a table that fits the terminal; the last ``numbers`` columns hold numbers."""
    from rich.table import Table

    table = Table(title=printable(title) or None, title_justify="left")
    names = list(columns)
    for number, name in enumerate(names):
        is_number = number >= len(names) - numbers
        justify: Any = "right" if is_number else "left"
        table.add_column(name, justify=justify, no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else printable(str(v)) for v in row))
    console.print(table)


def say(*lines: str) -> None:
    """Print lines on standard output; what a peer may have chosen in them is not interpreted."""
    for line in lines:
        print(printable(line))
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print one line on standard error, where somebody still reads that."""
    with suppress(OSError):
        print(f"kupool: {printable(text)}", file=sys.stderr)


class CommandParser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, and names the option that was meant."""

    #: The list of positional arguments that may go on after an option; argparse ends it there.
    gathers = ""

    _words: list[str]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse; a subcommand refuses words that are left over."""
        self._words = sys.argv[1:] if args is None else list(args)
        found, rest = super().parse_known_args(self._words, namespace)
        if self.gathers:
            rest = self._gather(rest, getattr(found, self.gathers))
        if rest and not self._has_commands():
            self.error(f"unexpected argument {printable(rest[0])!r}")
        return found, rest

    def _gather(self, rest: list[str], words: list[str]) -> list[str]:
        """Add the words that argparse left over to a list; returns those that are options."""
        for number, word in enumerate(rest):
            if word == "--":
                words += rest[number + 1 :]
                return []
            if word.startswith("-") and word != "-":
                return rest[number:]
            words.append(word)
        return []

    def error(self, message: str) -> NoReturn:
        """End with status 2; an unknown option is named first, as the most likely cause."""
        unknown = self._unknown_option()
        if unknown:
            near = self._near(unknown)
            hint = f"; did you mean {near}?" if near else ""
            message = f"there is no option {unknown}{hint}"
        self.exit(2, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")

    def _has_commands(self) -> bool:
        return self._subparsers is not None

    def _unknown_option(self) -> str:
        for word in self._words:
            if word == "--" or (self._has_commands() and not word.startswith("-")):
                return ""
            name = word.partition("=")[0]
            if re.match(r"--?[A-Za-z]", name) and name not in self._option_string_actions:
                return name
        return ""

    def _near(self, word: str) -> str:
        names = [name for name in self._option_string_actions if name.startswith("--")]
        begun = f"--{word.strip('-')}"
        longer = sorted((name for name in names if name.startswith(begun)), key=len)
        if longer:
            return longer[0]
        near = difflib.get_close_matches(begun[2:], [name[2:] for name in names], 1)
        return f"--{near[0]}" if near else ""


def run_to_status(command: Callable[[], int]) -> int:
    """Run a command with usable streams; returns its exit status.

    An interruption, a broken pipe and a full disk show no traceback.
    """
    try:
        return _status_of(command)
    finally:
        forget_errors()


def _status_of(command: Callable[[], int]) -> int:
    if sys.stderr is None:  # the parent process closed it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        complain("standard output is closed; send it to a file or a pipe")
        return 1
    try:
        status = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        forget_output()
        return NO_READER
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        forget_output()
        complain(f"{where}{error.strerror or error}")
        return 1
    return status


def forget_output() -> None:
    """Drop buffered output, which would otherwise fail again when Python ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def forget_errors() -> None:
    """Drop what cannot be written to standard error: Python 3.13 would end with status 120."""
    try:
        sys.stderr.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


__all__ = [
    "NO_READER",
    "CommandParser",
    "complain",
    "forget_errors",
    "forget_output",
    "make_console",
    "print_table",
    "run_to_status",
    "say",
]
