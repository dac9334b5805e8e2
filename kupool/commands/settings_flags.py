"""The settings of the daemon as flags of the commands that work on its data."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any

from kupool.commands.console import complain
from kupool.settings import (
    GONE,
    Loaded,
    SettingError,
    declared,
    flag_name,
    load,
    repeatable,
    secret_files,
)

_PREFIX = "setting_"

#: The largest number of rows or minutes that a command accepts.
MOST = 1_000_000


def add_settings_parser(
    subparsers: Any, name: str, text: str, func: Callable[[argparse.Namespace], int]
) -> Any:
    """Add a subcommand that takes the daemon's flags besides its own; returns it."""
    parser = subparsers.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(func=func)
    group = parser.add_argument_group(
        "settings of the daemon",
        "the command uses the settings of the daemon, from these flags, its KUP_ environment "
        "variables and its --config file",
    )
    for setting, f in declared().items():
        group.add_argument(
            *_spellings(setting),
            dest=_PREFIX + setting,
            metavar=f.metadata["kind"].hint,
            action="append" if repeatable(f) else "store",
            help=argparse.SUPPRESS if setting not in ("data", "config") else f.metadata["doc"],
        )
    # Loading the settings refuses those that are gone, and says what to do.
    for setting in (*secret_files(), *GONE):
        group.add_argument(*_spellings(setting), dest=_PREFIX + setting, help=argparse.SUPPRESS)
    return parser


def _spellings(setting: str) -> Iterable[str]:
    flag = flag_name(setting)
    return dict.fromkeys((f"--{flag}", f"-{flag}", f"--{setting}", f"-{setting}"))


def load_settings(arguments: argparse.Namespace) -> Loaded | None:
    """Return the settings; if they are wrong, prints why and returns None."""
    names = (*declared(), *secret_files(), *GONE)
    given = {name: getattr(arguments, _PREFIX + name) for name in names}
    try:
        return load({k: v for k, v in given.items() if v is not None}, os.environ)
    except SettingError as error:
        complain(str(error))
        return None


def at_least_one(text: str) -> int:
    """Return a number of 1 or more; raises :class:`argparse.ArgumentTypeError`."""
    if not text.isdecimal() or not 1 <= int(text[:12]) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST}")
    return int(text)


def given_flags(arguments: argparse.Namespace) -> list[str]:
    """Return the daemon's flags on this command line, to pass them to it."""
    flags = []
    for name, f in declared().items():
        value = getattr(arguments, _PREFIX + name)
        if value is not None:
            values = value if repeatable(f) else [value]
            flags += [f"--{flag_name(name)}={one}" for one in values]
    for name in secret_files():
        path = getattr(arguments, _PREFIX + name)
        if path is not None:
            flags.append(f"--{flag_name(name)}={path}")
    return flags
