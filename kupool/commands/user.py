"""``kupool user``: manage the accounts in the file of ``--auth file:PATH``."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kupool.accounts.entries import (
    BrokenAccounts,
    KnownAccounts,
    Secret,
    check_label,
    check_name,
)
from kupool.accounts.file import AccountFile, CopyError
from kupool.accounts.hashing import MAX_PASSWORD, hash_password, hash_token, make_token
from kupool.commands.console import complain, make_console, print_table, say
from kupool.commands.settings_flags import add_settings_parser, load_settings
from kupool.permissions.roles import ACCOUNT_ROLES, WORKER

#: The shortest password of a new account, in characters.
SHORTEST = 8

#: An action on the file; returns the exit status.
Action = Callable[[argparse.Namespace, AccountFile], int]


class _Refused(Exception):
    """The action cannot be done; says why, and what to do."""


def add_parser(subparsers: Any) -> None:
    """Add the command, with a subcommand for each action."""
    text = "manage who may log in: accounts, their passwords and tokens"
    parser = subparsers.add_parser(
        "user",
        help=text,
        description=f"{text[0].upper()}{text[1:]}, in the file of --auth file:PATH. "
        "A running daemon reads the file again within two seconds.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = _action(actions, "add", "add an account with a password", _add)
    add.add_argument("name")
    _add_role(add)
    _add_stdin(add)
    passwd = _action(actions, "passwd", "change the password of an account", _passwd)
    passwd.add_argument("name")
    _add_stdin(passwd)
    token = _action(actions, "token", "make a token, with which workers log in", _token)
    token.add_argument("name")
    token.add_argument("--label", default="", help="what the token is for, as rig1")
    token.add_argument("--revoke", action="store_true", help="remove the tokens of that label")
    _add_role(token)
    remove = _action(actions, "remove", "remove an account, with its tokens", _remove)
    remove.add_argument("name")
    shown = _action(actions, "list", "show the accounts", _list)
    shown.add_argument("--json", action="store_true", help="as JSON")
    _action(actions, "hash", "hash the passwords that the file has in plain text", _hash)


def _add_role(parser: Any) -> None:
    parser.add_argument(
        "--role", choices=ACCOUNT_ROLES, default=None, help="what it may do at most"
    )


def _add_stdin(parser: Any) -> None:
    parser.add_argument(
        "--stdin", action="store_true", help="read the password from the standard input"
    )


def _action(actions: Any, name: str, text: str, action: Action) -> Any:
    def run(arguments: argparse.Namespace) -> int:
        return _run(arguments, action)

    parser = add_settings_parser(actions, name, text, run)
    parser.add_argument(
        "--file", type=Path, help="the account file; by default that of --auth file:PATH"
    )
    return parser


def _run(arguments: argparse.Namespace, action: Action) -> int:
    path = arguments.file
    if path is None:
        loaded = load_settings(arguments)
        if loaded is None:
            return 1
        files = [text[5:] for text in loaded.settings.listen.auth if text.startswith("file:")]
        if len(files) != 1 or not files[0]:
            complain(
                "which account file? Name it with --file PATH, or give the settings of "
                "the daemon, as --auth file:PATH or --config FILE"
            )
            return 1
        path = Path(files[0])
    try:
        return action(arguments, AccountFile(path))
    except (_Refused, ValueError) as error:
        about = f"{path}: " if isinstance(error, BrokenAccounts) else ""
        complain(f"{about}{error}")
    except OSError as error:
        complain(f"{error.filename or path}: {error.strerror or error}")
    except CopyError as error:
        complain(str(error))
    return 1


def _add(arguments: argparse.Namespace, file: AccountFile) -> int:
    name = check_name(arguments.name)
    if name in file.read_if_any().passwords:
        raise _Refused(f"{name} has an account already; change it with: kupool user passwd {name}")
    password = _new_password(arguments)
    file.replace(
        lambda secret: False, (Secret(name, hash_password(password), arguments.role or WORKER),)
    )
    say(f"Added {name} to {file.path}.")
    return 0


def _passwd(arguments: argparse.Namespace, file: AccountFile) -> int:
    name = arguments.name
    old = file.read().passwords.get(name)
    if old is None:
        raise _Refused(f"there is no account {name} in {file.path}; add it with: kupool user add")
    password = _new_password(arguments)
    file.replace(
        lambda secret: secret.name == name and not secret.token,
        (Secret(name, hash_password(password), old.role),),
    )
    say(f"Changed the password of {name}.")
    return 0


def _token(arguments: argparse.Namespace, file: AccountFile) -> int:
    name, label = check_name(arguments.name), arguments.label
    if label:
        check_label(label)

    def of_label(secret: Secret) -> bool:
        return secret.token and (secret.name, secret.label) == (name, label)

    present = file.read_if_any()
    if arguments.revoke:
        if not file.replace(of_label):
            raise _Refused(f"{name} has no token with the label {label!r}")
        say(f"Revoked the token {label!r} of {name}.")
        return 0
    if label and any(map(of_label, present.tokens.values())):
        raise _Refused(f"{name} has a token with the label {label!r} already; revoke it first")
    token = make_token()
    known = present.passwords.get(name)
    role = arguments.role or (known.role if known else WORKER)
    file.replace(lambda secret: False, (Secret(name, hash_token(token), role, label),))
    # Only on standard output, so that a program can read it. It is stored nowhere.
    say(token)
    sys.stderr.write("This token is shown once. Use it as the password.\n")
    return 0


def _remove(arguments: argparse.Namespace, file: AccountFile) -> int:
    if not file.replace(lambda secret: secret.name == arguments.name):
        raise _Refused(f"there is no account {arguments.name} in {file.path}")
    say(f"Removed {arguments.name} from {file.path}.")
    return 0


def _list(arguments: argparse.Namespace, file: AccountFile) -> int:
    accounts = file.read()
    rows = [_row(accounts, name) for name in accounts.names]
    if arguments.json:
        say(json.dumps(rows))
        return 0
    print_table(make_console(), ("account", "role", "password", "tokens"), map(_cells, rows))
    for problem in accounts.problems:
        complain(f"{file.path}: {problem}")
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    labels = ", ".join(label or "(no label)" for label in row["tokens"])
    return row["name"], row["role"], row["password"], labels


def _row(accounts: KnownAccounts, name: str) -> dict[str, Any]:
    password = accounts.passwords.get(name)
    tokens = [secret for secret in accounts.tokens.values() if secret.name == name]
    kept = "none" if password is None else "plain text" if password.plain else "hashed"
    return {
        "name": name,
        "role": (password or tokens[0]).role,
        "password": kept,
        "tokens": [secret.label for secret in tokens],
    }


def _hash(arguments: argparse.Namespace, file: AccountFile) -> int:
    plain = {name: s for name, s in file.read().passwords.items() if s.plain}
    for secret in plain.values():
        file.replace(
            lambda other, secret=secret: other == secret,  # type: ignore[misc]
            (Secret(secret.name, hash_password(secret.stored)),),
        )
    count = "1 password" if len(plain) == 1 else f"{len(plain)} passwords"
    say(f"Hashed {count} in {file.path}.")
    return 0


def _new_password(arguments: argparse.Namespace) -> str:
    """Ask for a password, twice on a terminal; raises :class:`_Refused`."""
    if arguments.stdin or not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = getpass.getpass(f"Password for {arguments.name}: ")
        if getpass.getpass("Once more: ") != password:
            raise _Refused("the two passwords differ; nothing was changed")
    if len(password) < SHORTEST:
        raise _Refused(f"a password has {SHORTEST} characters or more")
    if len(password.encode("utf-8", "replace")) > MAX_PASSWORD:
        raise _Refused(f"a password has {MAX_PASSWORD} bytes at most")
    return password


__all__ = ["SHORTEST", "add_parser"]
