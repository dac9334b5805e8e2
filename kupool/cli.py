"""The ``kupool`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kupool import __version__
from kupool.commands import audit, backup, bench, config, demo, migrate, restore, stats, work


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with one subcommand for each command."""
    parser = argparse.ArgumentParser(
        prog="kupool",
        description="Work for a pool, put load on it, and look after it. "
        "The daemon itself is started with 'twistd kupool'.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kupool {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (work, bench, demo, stats, audit, backup, restore, migrate, config):
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        status: int = arguments.func(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    return status


if __name__ == "__main__":
    sys.exit(main())
