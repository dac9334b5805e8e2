"""The ``kupool`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from kupool import __version__
from kupool.commands.console import CommandParser, run_to_status

#: The commands: modules of :mod:`kupool.commands`, in the order of the help.
COMMANDS = (
    "work",
    "bench",
    "demo",
    "stats",
    "audit",
    "backup",
    "restore",
    "migrate",
    "user",
    "config",
    "topic",
    "log",
    "live",
    "group",
    "dlq",
)


def make_parser(only: str = "") -> argparse.ArgumentParser:
    """Return the parser of the command line, with a subcommand for each command.

    With ``only``, it has only that command: importing all of them takes longer than most of
    them run.
    """
    parser = CommandParser(
        prog="kupool",
        description="Work for a pool, put load on it, and look after it. "
        "The daemon itself is started with 'twistd kupool'.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kupool {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in (only,) if only else COMMANDS:
        import_module(f"kupool.commands.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    words = sys.argv[1:] if argv is None else list(argv)

    def command() -> int:
        first = words[0] if words else ""
        arguments = make_parser(first if first in COMMANDS else "").parse_args(words)
        status: int = arguments.func(arguments)
        return status

    return run_to_status(command)


if __name__ == "__main__":
    sys.exit(main())
