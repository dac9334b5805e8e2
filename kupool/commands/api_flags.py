"""The flags with which a command finds the daemon's HTTP API and logs in."""

from __future__ import annotations

import argparse
import json
import os
from base64 import b64encode
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel

from kupool.commands.api import ApiClient, ApiTarget
from kupool.commands.console import complain, say
from kupool.commands.running import Ending, run
from kupool.daemon.files import SECRET_FILE
from kupool.printable import printable_json
from kupool.settings import Settings, refuse_misspelt
from kupool.settings_file import read_secret
from kupool.timing.waiting import and_then

#: Where the API is by default.
DEFAULT_URL = "http://127.0.0.1:8081"

#: The work of a command: it gets the API, and returns the exit status.
ApiWork = Callable[[argparse.Namespace, ApiClient], Coroutine[Any, Any, int]]


def add_api_parser(actions: Any, name: str, text: str, work: ApiWork) -> Any:
    """Add an action that uses the HTTP API; returns its parser."""
    parser = actions.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(func=lambda arguments: run_with_api(arguments, work), work=work)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    group = parser.add_argument_group(
        "the daemon",
        "On the daemon's machine the command reads the secret of an admin from the data folder. "
        "Elsewhere it logs in with a name and the password in KUP_PASSWORD, or with the token in "
        "KUP_TOKEN.",
    )
    group.add_argument(
        "--url", metavar="URL", help=f"its HTTP API [KUP_URL; {DEFAULT_URL}]", default=None
    )
    group.add_argument(
        "--data-dir",
        "--data",
        dest="data_dir",
        metavar="FOLDER",
        help=f"its data folder, for the secret [KUP_DATA; {Settings().storage.data}]",
    )
    group.add_argument("--username", metavar="NAME", help="who logs in [KUP_USERNAME]")
    group.add_argument("--token-file", metavar="FILE", help="a file with a token [KUP_TOKEN]")
    return parser


def add_actions(subparsers: Any, name: str, text: str) -> Any:
    """Add a command that has actions; returns what takes their parsers."""
    parser = subparsers.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    return parser.add_subparsers(metavar="ACTION", required=True)


def run_with_api(arguments: argparse.Namespace, work: ApiWork) -> int:
    """Do the work of a command; a signal cancels it. Returns the exit status."""
    try:
        target = read_api_target(arguments)
    except ValueError as error:
        complain(str(error))
        return 1

    async def command(reactor: Any, ending: Ending) -> int:
        client = ApiClient(reactor, target)
        return await and_then(_until_asked(work(arguments, client), ending), client.close)

    return run(command, LogLevel.critical)


async def _until_asked(work: Coroutine[Any, Any, int], ending: Ending) -> int:
    working = Deferred.fromCoroutine(work)
    asked = Deferred.fromCoroutine(ending.wait())
    asked.addCallback(lambda _: working.cancel())
    asked.addErrback(lambda _: None)  # the end of the command
    try:
        return await working
    except CancelledError:
        if not ending.asked:
            raise
        return 130
    finally:
        asked.cancel()


def read_api_target(arguments: argparse.Namespace) -> ApiTarget:
    """Return the URL and the login of the flags and the environment; a flag takes precedence.

    The secret of the data folder is sent only to this machine, unless a flag names the folder.
    Raises :class:`ValueError`.
    """
    refuse_misspelt(os.environ)
    url = (arguments.url or os.environ.get("KUP_URL") or DEFAULT_URL).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
        raise ValueError(f"--url: {url!r} is no URL such as {DEFAULT_URL}")
    return ApiTarget(url, _authorization(arguments, parts.hostname))


def _authorization(arguments: argparse.Namespace, host: str) -> str:
    if arguments.token_file:
        return f"Bearer {_secret(arguments.token_file)}"
    if arguments.username:
        return _basic(arguments.username)
    if not arguments.data_dir:
        if os.environ.get("KUP_TOKEN"):
            return f"Bearer {os.environ['KUP_TOKEN']}"
        if os.environ.get("KUP_USERNAME") and os.environ.get("KUP_PASSWORD"):
            return _basic(os.environ["KUP_USERNAME"])
        if not _this_machine(host):
            return ""
    folder = arguments.data_dir or os.environ.get("KUP_DATA") or Settings().storage.data
    path = Path(folder) / SECRET_FILE
    if not arguments.data_dir and not os.access(path, os.R_OK):
        return ""  # what everybody on this machine may do needs no login
    return f"Bearer {_secret(str(path))}"


def _secret(path: str) -> str:
    try:
        found = read_secret(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not (found.isascii() and found.isprintable()):
        raise ValueError(f"{path}: a character in it cannot be in a header")
    return found


def _basic(username: str) -> str:
    password = os.environ.get("KUP_PASSWORD")
    if password is None:
        raise ValueError(f"the password of {username} is missing: set KUP_PASSWORD")
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def _this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def say_json(value: object) -> None:
    """Print a value as JSON in one line."""
    say(printable_json(json.dumps(value, ensure_ascii=False)))


__all__ = [
    "DEFAULT_URL",
    "ApiWork",
    "add_actions",
    "add_api_parser",
    "read_api_target",
    "run_with_api",
    "say_json",
]
