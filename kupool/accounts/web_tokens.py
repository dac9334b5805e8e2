"""Signed tokens (JWT) for HTTP, WebSocket and push: who somebody is, and until when.

The daemon signs with HS256, by a secret of the settings or by keys that it makes and keeps in a
file. It also accepts tokens that somebody else has signed with RS256 or EdDSA, if it knows the
public key. joserfc does the cryptography.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from joserfc import jwk, jwt
from joserfc.errors import JoseError

from kupool.permissions.roles import ACCOUNT_ROLES, WORKER
from kupool.storage.copies import replace_file

#: The file of the keys, in the data folder.
KEYS_FILE = "token-keys.json"

#: Seconds after which a new key signs, and after which an old one is not accepted any more.
ROTATE = 30 * 86_400.0
FORGET = 60 * 86_400.0

#: Seconds for which a login can be refreshed.
LONGEST = 30 * 86_400.0

#: Seconds that clocks of two machines may differ.
LEEWAY = 60.0

#: The least bytes of a secret for HS256.
MIN_SECRET = 32

#: The largest token that is looked at, in characters.
MAX_TOKEN = 4096

_OURS = ["HS256"]
_THEIRS = ["RS256", "Ed25519", "EdDSA"]


class WebIdentity(NamedTuple):
    """Who asks, and what they may do at most; ``since`` is when they logged in, in seconds."""

    user: str
    role: str
    since: float = 0.0


class BadToken(Exception):
    """A token is none, has expired, or was signed by nobody who is known."""


class SigningKeys:
    """The keys for HS256: the newest signs, each is accepted until it is too old.

    ``wall`` returns seconds since the epoch.
    """

    def __init__(self, keys: Sequence[tuple[str, str, float]], wall: Callable[[], float]) -> None:
        self._wall = wall
        #: By their ids, oldest first, with the time at which each was made.
        self._keys = {
            kid: (jwk.OctKey.import_key(secret, {"kid": kid}), made) for kid, secret, made in keys
        }

    @classmethod
    def of_secret(cls, secret: str, wall: Callable[[], float]) -> SigningKeys:
        """Return the key of a secret that the settings have; raises :class:`ValueError`."""
        if len(secret.encode()) < MIN_SECRET:
            raise ValueError(f"a secret for tokens has at least {MIN_SECRET} bytes")
        return cls([("settings", secret, float("inf"))], wall)

    @classmethod
    def of_file(cls, path: Path, wall: Callable[[], float]) -> SigningKeys:
        """Return the keys in a file, with a new one where the newest is old. Blocking.

        Makes the file, for its owner alone. Raises :class:`OSError`,
        :class:`CopyError`, and :class:`ValueError` for a file that holds something else.
        """
        now = wall()
        keys = [key for key in _read(path) if key[2] > now - FORGET]
        if not keys or keys[-1][2] < now - ROTATE:
            keys.append((secrets.token_hex(8), secrets.token_urlsafe(48), now))
            rows = [{"kid": i, "secret": s, "made": at} for i, s, at in keys]
            replace_file(path, json.dumps({"keys": rows}).encode())
        return cls(keys, wall)

    @property
    def newest(self) -> jwk.OctKey:
        """The key that signs."""
        return next(reversed(self._keys.values()))[0]

    def get(self, kid: object) -> jwk.OctKey | None:
        """Return a key that is accepted, None for any other id."""
        key, made = self._keys.get(str(kid), (None, 0.0))
        return key if made > self._wall() - FORGET else None


def _read(path: Path) -> list[tuple[str, str, float]]:
    try:
        found = json.loads(path.read_bytes())
        return [(str(k["kid"]), str(k["secret"]), float(k["made"])) for k in found["keys"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: this is not a file of token keys; move it away") from None


def public_keys(files: Iterable[str]) -> list[Any]:
    """Return the public keys in PEM files, for tokens that somebody else signs. Blocking.

    Raises :class:`OSError`, and :class:`ValueError` for a file without a key for RS256 or EdDSA.
    """
    keys: list[Any] = []
    for file in files:
        data = Path(file).read_bytes()
        for kind in (jwk.RSAKey, jwk.OKPKey):
            with suppress(ValueError, TypeError, JoseError):
                keys.append(kind.import_key(data))
                break
        else:
            raise ValueError(f"{file}: there is no public key for RS256 or EdDSA in it")
    return keys


class WebTokens:
    """Signs tokens and checks them; times are in seconds since the epoch."""

    def __init__(
        self, keys: SigningKeys, wall: Callable[[], float], others: Sequence[Any] = ()
    ) -> None:
        self._keys = keys
        self._wall = wall
        self._others = tuple(others)

    def sign(self, identity: WebIdentity, seconds: float) -> str:
        """Return a token for somebody, valid for so many seconds."""
        now = self._wall()
        key = self._keys.newest
        claims = {
            "sub": identity.user,
            "role": identity.role,
            "iat": int(now),
            "exp": int(now + seconds),
            "auth_time": int(identity.since or now),
        }
        return jwt.encode({"alg": "HS256", "kid": key.kid}, claims, key, algorithms=_OURS)

    def check(self, token: str) -> WebIdentity:
        """Return whose token it is; raises :class:`BadToken`, which says why."""
        if len(token) > MAX_TOKEN:
            raise BadToken("the token is too long")
        claims = self._verified(token)
        now = self._wall()
        ends, begins = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(ends, int | float) or not isinstance(begins, int | float):
            raise BadToken("the token has no time at which it expires")
        if ends < now:
            raise BadToken("the token has expired")
        if begins > now + LEEWAY:
            raise BadToken("the token is not valid yet")
        user, role = claims.get("sub"), claims.get("role", WORKER)
        if not isinstance(user, str) or not user or role not in ACCOUNT_ROLES:
            raise BadToken("the token names no user, or an unknown role")
        since = claims.get("auth_time", claims.get("iat", 0))
        return WebIdentity(user, role, float(since) if isinstance(since, int | float) else 0.0)

    def _verified(self, token: str) -> dict[str, Any]:
        for key, algorithms in self._candidates(token):
            with suppress(JoseError, ValueError, TypeError):
                return dict(jwt.decode(token, key, algorithms=algorithms).claims)
        raise BadToken("the token is not signed by a known key")

    def _candidates(self, token: str) -> Iterable[tuple[Any, list[str]]]:
        """Yield the keys that may have signed a token; the algorithm is the key's, never the
        token's own choice.
        """
        own = self._keys.get(_kid(token))
        if own is not None:
            yield own, _OURS
        for key in self._others:
            yield key, _THEIRS


def _kid(token: str) -> object:
    from joserfc.util import urlsafe_b64decode

    try:
        header = json.loads(urlsafe_b64decode(token.partition(".")[0].encode()))
    except (ValueError, RecursionError):
        return None
    return header.get("kid") if isinstance(header, dict) else None


__all__ = [
    "KEYS_FILE",
    "LONGEST",
    "MIN_SECRET",
    "BadToken",
    "SigningKeys",
    "WebIdentity",
    "WebTokens",
    "public_keys",
]
