"""Names with passwords and tokens, checked against a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.trial.unittest import TestCase

from kupool.accounts import checker as module
from kupool.accounts.checker import AccountChecker
from kupool.accounts.entries import Secret
from kupool.accounts.file import AccountFile
from kupool.accounts.hashing import hash_password, hash_token, make_token
from kupool.accounts.watcher import AccountWatcher
from kupool.errors import RequestError


def the_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


class CheckerTests(TestCase):
    """K-17: passwords are argon2id, tokens SHA-256, and plain text still works."""

    def setUp(self) -> None:
        self.token = make_token()
        self.file = AccountFile(Path(self.mktemp()).absolute())
        self.file.replace(
            lambda secret: False,
            (
                Secret("alice", hash_password("right horse")),
                Secret("alice", hash_token(self.token)),
                Secret("bob", "plain text"),
                Secret("carol", "a:b"),
            ),
        )
        self.watcher = AccountWatcher(the_reactor(), self.file)
        self.checker = AccountChecker(the_reactor(), self.watcher)
        self.addCleanup(lambda: ensureDeferred(self.checker.stop()))
        self.hashed: list[str] = []
        matches = module.password_matches

        def watched(stored: str, password: str) -> bool:
            self.hashed.append(stored)
            return matches(stored, password)

        self.patch(module, "password_matches", watched)

    def ask(self, name: str, secret: str) -> Deferred[Any]:
        return self.checker.requestAvatarId(UsernamePassword(name.encode(), secret.encode()))

    async def lets_in(self, name: str, secret: str) -> bool:
        try:
            found = await self.ask(name, secret)
        except UnauthorizedLogin:
            return False
        self.assertEqual(found, name.encode())
        return True

    async def test_passwords(self) -> None:
        self.assertTrue(await self.lets_in("alice", "right horse"))
        for name, secret in (
            ("alice", "wrong horse"),
            ("alice", ""),
            ("Alice", "right horse"),
            ("alice", "right horse" * 1000),
            ("nobody", "right horse"),
            ("bob", "plain"),
            ("carol", "b"),
        ):
            self.assertFalse(await self.lets_in(name, secret), (name, secret))
        self.assertTrue(await self.lets_in("bob", "plain text"))
        for secret in ("a:b", "a"):
            self.assertTrue(await self.lets_in("carol", secret))

    async def test_a_right_password_is_hashed_once(self) -> None:
        """K-17: a bounded cache of successes."""
        for _ in range(3):
            self.assertTrue(await self.lets_in("alice", "right horse"))
        self.assertEqual(len(self.hashed), 1)
        self.assertTrue(self.checker.quick("alice", "right horse"))
        self.assertFalse(self.checker.quick("alice", "wrong horse"))
        self.assertFalse(await self.lets_in("alice", "wrong horse"))
        self.assertFalse(await self.lets_in("alice", "wrong horse"))
        self.assertEqual(len(self.hashed), 3)

    async def test_what_is_remembered_is_bounded(self) -> None:
        self.patch(module, "REMEMBERED", 1)
        self.file.replace(lambda s: False, (Secret("dave", hash_password("other horse")),))
        await self.checker.reload()
        for name, secret in (("alice", "right horse"), ("dave", "other horse")):
            self.assertTrue(await self.lets_in(name, secret))
        self.assertFalse(self.checker.quick("alice", "right horse"))
        self.assertTrue(self.checker.quick("dave", "other horse"))

    async def test_a_changed_password_is_forgotten(self) -> None:
        self.assertTrue(await self.lets_in("alice", "right horse"))
        self.file.replace(
            lambda s: s.name == "alice" and not s.token,
            (Secret("alice", hash_password("new horse")),),
        )
        await self.checker.reload()
        self.assertFalse(self.checker.quick("alice", "right horse"))
        self.assertFalse(await self.lets_in("alice", "right horse"))
        self.assertTrue(await self.lets_in("alice", "new horse"))

    async def test_roles(self) -> None:
        """Issue 15, build 2: the role stands in the file."""
        token = make_token()
        self.file.replace(
            lambda s: False,
            (
                Secret("olga", hash_password("right horse"), "operator"),
                Secret("olga", hash_token(token), "admin"),
            ),
        )
        await self.checker.reload()
        self.assertEqual(self.checker.quick("olga", "right horse"), "")
        self.assertTrue(await self.lets_in("olga", "right horse"))
        self.assertEqual(self.checker.quick("olga", "right horse"), "operator")
        self.assertEqual(self.checker.quick("olga", token), "admin")
        self.assertEqual(self.checker.quick("bob", "plain text"), "worker")

    async def test_tokens_cost_no_hash_of_a_password(self) -> None:
        """K-17: ten thousand workers come back in a minute."""
        self.assertTrue(await self.lets_in("alice", self.token))
        for name, secret in (("bob", self.token), ("alice", make_token())):
            self.assertFalse(await self.lets_in(name, secret))
        self.assertEqual(self.hashed, [])

    async def test_an_unknown_name_costs_as_much(self) -> None:
        """K-17: so does a wrong password that is kept in plain text."""
        for name in ("nobody", "bob", "alice"):
            self.assertFalse(await self.lets_in(name, "wrong horse"))
        self.assertEqual(len(self.hashed), 3)

    async def test_too_many_at_once_are_told_to_come_back(self) -> None:
        """K-17: they are not told that the password is wrong."""
        self.checker = AccountChecker(the_reactor(), self.watcher, queue=4)
        self.addCleanup(lambda: ensureDeferred(self.checker.stop()))
        asked = [self.ask("alice", f"guess {n}") for n in range(module.THREADS + 4 + 5)]
        found = await DeferredList(asked, consumeErrors=True)
        kinds = [failure.type for ok, failure in found if not ok]
        self.assertEqual(kinds.count(RequestError), 5)
        self.assertEqual(len(kinds), len(asked))
