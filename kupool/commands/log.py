"""``kupool log``: look after the log."""

from __future__ import annotations

from typing import Any

from kupool.commands.log_verify import add_verify_parser


def add_parser(subparsers: Any) -> None:
    """Add the command and its subcommands."""
    text = "look after the log"
    parser = subparsers.add_parser(
        "log", help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    commands = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    add_verify_parser(commands)


__all__ = ["add_parser"]
