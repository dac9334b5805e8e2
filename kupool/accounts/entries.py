"""Parse and write the text of an account file. Pure.

There is one secret per line; an account may have several::

    # a comment
    alice:$argon2id$v=19$m=12288,t=3,p=1$...$...:role=operator
    alice:$sha256$9f86d081...:label=rig1
    bob:a password in plain text

The name is the text before the first colon. A hashed secret may be followed by options, of
which ``role`` and ``label`` are used. A secret that is not hashed is a plain-text password;
:attr:`KnownAccounts.plain` names the accounts that have one.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kupool.accounts.hashing import PASSWORD_MARK, TOKEN_MARK
from kupool.permissions.roles import ACCOUNT_ROLES, WORKER

_NAME = re.compile(r"[^:\x00-\x1f\x7f]{1,255}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(re.escape(TOKEN_MARK) + r"[0-9a-f]{64}")
_PASSWORD = re.compile(
    re.escape(PASSWORD_MARK) + r"v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
)

#: The largest file that is read, in bytes: about half a million accounts.
MAX_SIZE = 64 * 1024 * 1024


class BrokenAccounts(ValueError):
    """The text is not an account file; says which line and why, and never contains a secret."""


@dataclass(frozen=True)
class Secret:
    """A line of the file: ``stored`` is the hash, or the password if it is ``plain``."""

    name: str
    stored: str
    role: str = WORKER
    label: str = ""

    @property
    def token(self) -> bool:
        """Whether it is a token."""
        return self.stored.startswith(TOKEN_MARK)

    @property
    def plain(self) -> bool:
        """Whether it is a plain-text password."""
        return not self.stored.startswith((TOKEN_MARK, PASSWORD_MARK))

    def line(self) -> str:
        """Return the line of the file, without the line end."""
        if self.plain:
            return f"{self.name}:{self.stored}"
        options = [f"role={self.role}"] if self.role != WORKER else []
        options += [f"label={self.label}"] if self.label else []
        return ":".join((self.name, self.stored, *options))


@dataclass(frozen=True)
class KnownAccounts:
    """The secrets of a file, indexed for lookup."""

    passwords: Mapping[str, Secret] = field(default_factory=dict)
    #: The secrets by their stored text.
    tokens: Mapping[str, Secret] = field(default_factory=dict)
    #: The problems of the skipped lines.
    problems: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The sorted names of all accounts with a secret."""
        tokens = (secret.name for secret in self.tokens.values())
        return sorted({*self.passwords, *tokens})

    @property
    def plain(self) -> list[str]:
        """The sorted names of accounts with a plain-text password."""
        return sorted(name for name, secret in self.passwords.items() if secret.plain)


def check_name(name: str) -> str:
    """Return a valid account name; raises :class:`ValueError` for an invalid one."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 255 characters, no colon and no control characters")
    if name != name.strip() or name.startswith("#"):
        raise ValueError("a name does not begin with a space or #, and does not end with a space")
    return name


def check_label(label: str) -> str:
    """Return a valid label of a token; raises :class:`ValueError` for an invalid one."""
    if not _LABEL.fullmatch(label):
        raise ValueError("a label has 1 to 64 letters, digits, dots, - and _")
    return label


def parse_line(text: str) -> Secret | None:
    """Return the secret of a line, None for an empty line or a comment.

    Raises :class:`ValueError`, without the text of the line.
    """
    text = text.rstrip()
    if not text or text.startswith("#"):
        return None
    name, colon, rest = text.partition(":")
    if not colon:
        raise ValueError("there is no colon after the name")
    check_name(name)
    if not rest:
        raise ValueError(f"{name} has no password")
    if not rest.startswith(("$argon2", TOKEN_MARK)):
        return Secret(name, rest)
    stored, *options = rest.split(":")
    if not (_TOKEN.fullmatch(stored) or _PASSWORD.fullmatch(stored)):
        raise ValueError(f"the hash of {name} is damaged, or of another kind than argon2id")
    return _with_options(Secret(name, stored), options)


def _with_options(secret: Secret, options: Sequence[str]) -> Secret:
    role, label = secret.role, secret.label
    for option in options:
        key, _, value = option.partition("=")
        if key == "role":
            if value not in ACCOUNT_ROLES:
                raise ValueError(
                    f"the role of {secret.name} is not one of {', '.join(ACCOUNT_ROLES)}"
                )
            role = value
        elif key == "label":
            label = check_label(value)
        else:
            raise ValueError(f"an option of {secret.name} is not role=... or label=...")
    return Secret(secret.name, secret.stored, role, label)


def parse(data: bytes) -> KnownAccounts:
    """Parse a file. Lines that cannot be read are skipped, and reported as problems.

    The first of two passwords of one name is used. Raises :class:`BrokenAccounts` if no
    line can be read.
    """
    if len(data) > MAX_SIZE:
        raise BrokenAccounts(f"it has more than {MAX_SIZE} bytes")
    passwords: dict[str, Secret] = {}
    tokens: dict[str, Secret] = {}
    problems = []
    for number, line in enumerate(data.removeprefix(BOM_UTF8).split(b"\n"), 1):
        try:
            secret = parse_line(_decoded(line))
            if secret is None:
                continue
            if secret.token:
                if tokens.setdefault(secret.stored, secret).name != secret.name:
                    raise ValueError(f"{secret.name} has the token of another account")
            elif passwords.setdefault(secret.name, secret) is not secret:
                raise ValueError(f"{secret.name} already has a password, which is used")
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if not passwords and not tokens:
        raise BrokenAccounts(problems[0] if problems else "it contains no account")
    return KnownAccounts(passwords, tokens, tuple(problems))


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None


__all__ = [
    "MAX_SIZE",
    "BrokenAccounts",
    "KnownAccounts",
    "Secret",
    "check_label",
    "check_name",
    "parse",
    "parse_line",
]
