"""Passwords and tokens, hashed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.hashing import (
    hash_password,
    hash_token,
    is_token,
    make_token,
    nobodys_password,
    password_matches,
)


class PasswordTests(SynchronousTestCase):
    """W-30: argon2id, each with a salt of its own."""

    def test_it_matches_itself_alone(self) -> None:
        stored = hash_password("пароль 1")
        self.assertTrue(stored.startswith("$argon2id$v=19$m=12288,t=3,p=1$"))
        self.assertTrue(password_matches(stored, "пароль 1"))
        for other in ("пароль 2", "", "пароль 1 "):
            self.assertFalse(password_matches(stored, other))
        self.assertNotEqual(hash_password("пароль 1"), stored)
        self.assertFalse(password_matches(nobodys_password(), ""))

    def test_md5_is_no_hash(self) -> None:
        """W-30: MD5 is refused."""
        self.assertRaises(ValueError, password_matches, "$1$salt$hash", "a")


class TokenTests(SynchronousTestCase):
    """K-17: tokens are random, and told from passwords."""

    def test_tokens(self) -> None:
        one, other = make_token(), make_token()
        self.assertNotEqual(one, other)
        self.assertEqual(len(one), 47)
        self.assertTrue(is_token(one))
        self.assertFalse(is_token("kpt_short"))
        self.assertFalse(is_token("x" + one[1:]))
        self.assertEqual(
            hash_token("abc"),
            "$sha256$ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        )
