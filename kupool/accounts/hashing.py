"""Hash passwords with argon2id, and tokens with SHA-256. Blocking: a password takes milliseconds.

People choose passwords, so guessing must be slow. A token has 256 random bits that nobody
can guess, so checking it may be fast: ten thousand workers log in within a minute.
"""

from __future__ import annotations

import secrets
from functools import cache
from hashlib import sha256
from hmac import compare_digest

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from argon2.low_level import Type

#: Parameters of argon2id: the row of the OWASP password storage cheat sheet (2025) that takes
#: the least memory of those that take less than 25 ms on the machines this was made on.
MEMORY_KIB, PASSES, LANES = 12_288, 3, 1

#: The prefixes of a stored password and a stored token.
PASSWORD_MARK, TOKEN_MARK = "$argon2id$", "$sha256$"

#: The prefix of every token, which tells it from a password, and helps to find leaked tokens.
TOKEN_PREFIX = "kpt_"  # noqa: S105 - no secret

#: Characters of a token after its prefix: 32 random bytes.
_TOKEN_LENGTH = 43

#: The largest password that is hashed, in bytes. The wire allows less than a frame.
MAX_PASSWORD = 1024


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, type=Type.ID)


def hash_password(password: str) -> str:
    """Return the hash of a password in the PHC string format."""
    return _hasher().hash(password)


def password_matches(stored: str, password: str) -> bool:
    """Return whether a password matches a stored hash. Always takes milliseconds.

    Raises :class:`ValueError` for a stored value that is not an argon2 hash.
    """
    try:
        return _hasher().verify(stored, password)
    except VerificationError:
        return False


def nobodys_password() -> str:
    """Return the hash of an unknown password, to check if there is no account.

    So an unknown name takes as long as a wrong password.
    """
    return hash_password(secrets.token_urlsafe(32))


def make_token() -> str:
    """Return a new token, 47 characters of letters, digits, ``-`` and ``_``."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def is_token(secret: str) -> bool:
    """Return whether a secret has the form of a token."""
    return len(secret) == len(TOKEN_PREFIX) + _TOKEN_LENGTH and secret.startswith(TOKEN_PREFIX)


def hash_token(token: str) -> str:
    """Return the hash of a token."""
    return TOKEN_MARK + sha256(token.encode()).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two texts in constant time."""
    return compare_digest(one.encode(), other.encode())


__all__ = [
    "MAX_PASSWORD",
    "PASSWORD_MARK",
    "TOKEN_MARK",
    "TOKEN_PREFIX",
    "hash_password",
    "hash_token",
    "is_token",
    "make_token",
    "nobodys_password",
    "password_matches",
    "same",
]
