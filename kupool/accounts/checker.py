"""Check names with passwords or tokens against an account file.

A password takes milliseconds of a thread. So only a few are checked at the same time, and
few may wait. A right password is remembered, hashed with a key of this process, as long as
the file does not change it. A token takes microseconds.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from hashlib import blake2b
from secrets import token_bytes
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.accounts.authenticator import IQuickChecker, IRunningChecker
from kupool.accounts.entries import Secret
from kupool.accounts.hashing import (
    MAX_PASSWORD,
    hash_token,
    is_token,
    nobodys_password,
    password_matches,
    same,
)
from kupool.accounts.watcher import AccountWatcher
from kupool.net.workers.threads import Threads

#: Most passwords that are checked at the same time, and most that wait.
THREADS = max(1, min(4, (os.cpu_count() or 2) // 2))
QUEUE = 256

#: Most right passwords that are remembered.
REMEMBERED = 10_000


@implementer(ICredentialsChecker, IQuickChecker, IRunningChecker)
class AccountChecker:
    """A :mod:`twisted.cred` checker of the accounts that a watcher keeps in memory.

    ``requestAvatarId`` fires with the name. It fails with :class:`UnauthorizedLogin` if the
    password or token is wrong, and with :class:`~kupool.errors.RequestError` if ``queue``
    passwords are waiting.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, reactor: Any, watcher: AccountWatcher, *, queue: int = QUEUE) -> None:
        self._watcher = watcher
        self._threads = Threads(reactor, THREADS, queue=queue, background=True)
        self._key = token_bytes(32)
        self._nobody = nobodys_password()
        #: Hashes of a name, a password and its stored text; the most recently used is last.
        self._right: OrderedDict[bytes, None] = OrderedDict()

    @property
    def problem(self) -> str:
        """Why the accounts may be out of date; empty if they are as in the file."""
        return self._watcher.concern

    def start(self) -> None:
        """Start watching the file."""
        self._watcher.start()

    async def stop(self) -> None:
        """Stop watching the file, and refuse the waiting passwords."""
        await self._watcher.stop()
        await self._threads.stop(1.0)

    def reload(self) -> Deferred[None]:
        """Read the file again now; never fails."""
        return self._watcher.reread()

    def owner(self, token: str) -> tuple[str, str] | None:
        """Return the user and the role of a token."""
        if not is_token(token):
            return None
        known = self._watcher.accounts.tokens.get(hash_token(token))
        return None if known is None else (known.name, known.role)

    def role_of(self, username: str) -> str:
        """Return the role of an account with a password; empty where there is none."""
        known = self._watcher.accounts.passwords.get(username)
        return "" if known is None else known.role

    def quick(self, username: str, password: str) -> str:
        """Return the role of a right token, or of a password that was right before."""
        accounts = self._watcher.accounts
        if is_token(password):
            token = accounts.tokens.get(hash_token(password))
            return token.role if token is not None and token.name == username else ""
        known = accounts.passwords.get(username)
        if known is None:
            return ""
        if known.plain:
            return known.role if _plain_matches(known, password) else ""
        remembered = self._hash(known, password)
        if remembered not in self._right:
            return ""
        self._right.move_to_end(remembered)
        return known.role

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Check a name and a password or token; both are UTF-8 bytes."""
        name = credentials.username.decode("utf-8", "replace")
        secret = credentials.password.decode("utf-8", "replace")
        if self.quick(name, secret):
            return succeed(credentials.username)
        if is_token(secret):
            return fail(UnauthorizedLogin("no such token"))
        if len(credentials.password) > MAX_PASSWORD:
            return fail(UnauthorizedLogin("the password is too long"))
        known = self._watcher.accounts.passwords.get(name)
        if known is None or known.plain:
            # Take as long as for a hashed password, so that timing does not reveal accounts.
            checked = self._threads.run(password_matches, self._nobody, secret)
            return checked.addCallback(_refuse)
        checked = self._threads.run(password_matches, known.stored, secret)
        return checked.addCallback(self._checked, credentials.username, self._hash(known, secret))

    def _checked(self, matches: bool, username: bytes, remembered: bytes) -> bytes:
        if not matches:
            raise UnauthorizedLogin("wrong password")
        self._right[remembered] = None
        if len(self._right) > REMEMBERED:
            self._right.popitem(last=False)
        return username

    def _hash(self, known: Secret, password: str) -> bytes:
        text = "\0".join((known.name, known.stored, password))
        return blake2b(text.encode("utf-8", "replace"), key=self._key, digest_size=16).digest()


def _plain_matches(known: Secret, password: str) -> bool:
    """Compare a plain-text password with the whole line, or up to its next colon.

    Twisted's checker, which read these files before, compares up to the next colon.
    """
    first, _, _ = known.stored.partition(":")
    return same(known.stored, password) | same(first, password)


def _refuse(_: object) -> Failure:
    return Failure(UnauthorizedLogin("no such account, or a wrong password"))


__all__ = ["QUEUE", "REMEMBERED", "THREADS", "AccountChecker"]
