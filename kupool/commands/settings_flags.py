"""The settings of the daemon, for the commands that work on what it keeps."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from twisted.python.usage import UsageError

from kupool.options import SettingOptions
from kupool.settings import Loaded, SettingError, load

EPILOG = (
    "All flags of the daemon, its KUP_ environment variables and its --config file "
    "are understood here as well, so that the command finds what the daemon keeps."
)


def add_settings_parser(subparsers: Any, name: str, text: str, func: Any) -> Any:
    """Add a subcommand that takes the daemon's flags besides its own; returns it."""
    parser = subparsers.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.set_defaults(func=func, takes_settings=True)
    return parser


def load_settings(arguments: argparse.Namespace) -> Loaded | None:
    """Return the settings; prints what is wrong with them and returns None."""
    options = SettingOptions()
    try:
        options.parseOptions(arguments.flags)
        return load(options.flags, os.environ)
    except (UsageError, SettingError) as error:
        print(f"kupool: {error}", file=sys.stderr)
        return None
