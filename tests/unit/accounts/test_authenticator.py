"""Checkers of passwords."""

from __future__ import annotations

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    FilePasswordDB,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.authenticator import Authenticator, CannotTell, NoUsableChecker


class Checker:
    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
        return fail(self._error)


class AuthenticatorTests(SynchronousTestCase):
    """K-17: whatever twisted.cred checks."""

    def allowed(self, *checkers: object, user: str = "alice", password: str | None = "p") -> str:
        asked = Authenticator(Clock(), checkers).allowed(user, password)  # type: ignore[arg-type]
        return self.successResultOf(Deferred.fromCoroutine(asked))

    def test_memory(self) -> None:
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"p")
        self.assertTrue(self.allowed(checker))
        self.assertFalse(self.allowed(checker, password="q"))
        self.assertFalse(self.allowed(checker, password=None))
        self.assertFalse(self.allowed(checker, user="bob"))

    def test_text(self) -> None:
        """K-17: names and passwords are UTF-8."""
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser("名前".encode(), "пароль".encode())
        self.assertTrue(self.allowed(checker, user="名前", password="пароль"))

    def test_file(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("alice:p\n")
        self.assertTrue(self.allowed(FilePasswordDB(path)))
        self.assertFalse(self.allowed(FilePasswordDB(path), password=""))

    def test_in_turn(self) -> None:
        """K-17: whom one lets in is in; whom none does is not."""
        no, yes = Checker(UnauthorizedLogin()), InMemoryUsernamePasswordDatabaseDontUse(alice=b"p")
        self.assertTrue(self.allowed(no, yes))
        self.assertFalse(self.allowed(no, no))

    def test_cannot_tell(self) -> None:
        """K-17: an error is passed on, and lets nobody in."""
        broken = Checker(OSError("away"))
        asked = Authenticator(Clock(), [broken]).allowed("alice", "p")  # type: ignore[list-item]
        self.failureResultOf(Deferred.fromCoroutine(asked), CannotTell)

    def test_no_passwords(self) -> None:
        """K-17: a checker that takes no passwords is of no use, and said to be."""
        self.assertEqual(tuple(AllowAnonymousAccess.credentialInterfaces), (IAnonymous,))
        self.assertRaises(NoUsableChecker, Authenticator, Clock(), [AllowAnonymousAccess()])
        self.assertRaises(NoUsableChecker, Authenticator, Clock(), [])
        checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"p")
        self.assertTrue(self.allowed(AllowAnonymousAccess(), checker))
