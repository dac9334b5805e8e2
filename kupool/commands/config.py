"""``kupool config``: every setting, its value and its source; what a user may do; or a key."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.settings_flags import add_settings_parser, load_settings
from kupool.settings import (
    ENV_PREFIX,
    Loaded,
    Settings,
    declared,
    expected,
    reloadable,
    repeatable,
    secret_files,
    shown,
)


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = add_settings_parser(
        subparsers, "config", "show every setting with its value and its source", run
    )
    parser.add_argument("--show", action="store_true", help="show the settings (default)")
    parser.add_argument(
        "--example", action="store_true", help="print a file with all settings and defaults"
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        help="show what this user may do instead: the role, and every permission with its source",
    )
    parser.add_argument(
        "--api-key",
        action="store_true",
        help="show the key of the server API of live channels instead",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the settings."""
    loaded = load_settings(arguments)
    if loaded is None:
        return 1
    for remark in loaded.remarks:
        complain(remark)
    if arguments.user is not None:
        return _show_user(loaded, arguments.user)
    if arguments.api_key:
        return _show_api_key(loaded)
    if not arguments.example and sys.stdout.isatty():
        rows = ((name, value or "-", source) for name, value, source in _rows(loaded))
        print_table(make_console(), ("setting", "value", "from"), rows)
        return 0
    lines = example() if arguments.example else table(loaded)
    say(*lines)
    return 0


def _show_api_key(loaded: Loaded) -> int:
    # Only here, as it needs the names of the daemon's files.
    from kupool.commands.api_key import api_key

    try:
        say(api_key(loaded.settings))
    except ValueError as error:
        complain(str(error))
        return 1
    return 0


def _show_user(loaded: Loaded, user: str) -> int:
    # Only here, as it needs the account file and the checks of the daemon.
    from kupool.commands.user_permissions import COLUMNS, permission_rows

    try:
        rows = list(permission_rows(loaded, user))
    except (ValueError, OSError) as error:
        complain(str(error))
        return 1
    if sys.stdout.isatty():
        print_table(make_console(), COLUMNS, rows)
        return 0
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    for *cells, source in rows:
        texts = (f"{text:<{width}}" for text, width in zip(cells, widths, strict=True))
        say("  ".join((*texts, source)))
    return 0


def _rows(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """Yield each setting with its value, and where that came from."""
    for name, value in shown(loaded.settings).items():
        yield name, value, loaded.sources[name]


def table(loaded: Loaded) -> Iterator[str]:
    """Yield a line for each setting: its name, its value, and the source of the value."""
    rows = list(_rows(loaded))
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows if len(value) < 40)
    for name, value, source in rows:
        yield f"{name:<{name_width}}  {value or '-':<{value_width}}  {source}".rstrip()


def example() -> Iterator[str]:
    """Yield the lines of a settings file with all defaults."""
    values, now = shown(Settings()), set(reloadable())
    files = {name: file for file, name in secret_files().items()}
    yield "# Settings of KuPool, each with its default. Precedence: a flag overrides an"
    yield "# environment variable, which overrides this file, which overrides the default."
    yield "# A setting marked with * is reloadable: SIGHUP applies it without a restart."
    for name, f in declared().items():
        if name == "config":
            continue
        value: str = values[name]
        default: Any = f.default
        mark = " *" if name in now else ""
        yield ""
        yield f"# {f.metadata['doc']} ({expected(f)}) [{ENV_PREFIX}{name.upper()}]{mark}"
        if repeatable(f):
            listed = ", ".join(f'"{one}"' for one in default)
            yield f"#{name}: [{listed}]"
        else:
            yield f'#{name}: "{value}"'
        if name in files:
            yield f"# Or a file with it (PATH) [{ENV_PREFIX}{files[name].upper()}]{mark}"
            yield f'#{files[name]}: ""'
