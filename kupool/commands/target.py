"""The flags that name the pool and the user of a command."""

from __future__ import annotations

import argparse
import os
from typing import NamedTuple

from kupool.kinds import parse_duration
from kupool.settings import refuse_misspelt
from kupool.wire.framing import FRAMINGS

DEFAULT_ADDRESS = "localhost:8080"
DEFAULT_USERNAME = "admin"


class Target(NamedTuple):
    """Servers in the order to try them, and the user of the sessions."""

    servers: list[str]
    username: str
    password: str | None
    framing: str
    numbered: bool

    def name(self, number: int) -> str:
        """Return the username of a session."""
        return f"{self.username}.{number}" if self.numbered else self.username


def add_target_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that :func:`read_target` reads."""
    parser.add_argument(
        "--connect",
        "--addr",
        "-addr",
        action="append",
        metavar="ADDRESS",
        help="a server: HOST:PORT, :PORT for this machine, or a client endpoint such as "
        "tls:HOST:PORT; give several to fail over "
        f"[KUP_ADDR, separated by commas; {DEFAULT_ADDRESS}]",
    )
    parser.add_argument(
        "--username",
        "-username",
        metavar="NAME",
        help=f"who submits, as user or user.worker [KUP_USERNAME; {DEFAULT_USERNAME}]; "
        "the password is read from KUP_PASSWORD",
    )
    parser.add_argument(
        "--framing",
        choices=tuple(FRAMINGS),
        default="frame",
        help="framing of messages [frame]",
    )
    parser.add_argument(
        "--numbered",
        action="store_true",
        help="name the sessions as workers: NAME.1, NAME.2, ... instead of all NAME",
    )


def read_target(arguments: argparse.Namespace) -> Target:
    """Return the target of the flags and the environment; a flag takes precedence.

    Raises :class:`ValueError` for a misspelt variable of the environment.
    """
    refuse_misspelt(os.environ)
    environment = os.environ.get("KUP_ADDR", "")
    servers = arguments.connect or [a.strip() for a in environment.split(",") if a.strip()]
    return Target(
        servers or [DEFAULT_ADDRESS],
        arguments.username or os.environ.get("KUP_USERNAME") or DEFAULT_USERNAME,
        os.environ.get("KUP_PASSWORD") or None,
        arguments.framing,
        arguments.numbered,
    )


def duration(text: str) -> float:
    """Read a duration in Go notation, for :mod:`argparse`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Read a whole number from 1 on, for :mod:`argparse`."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
