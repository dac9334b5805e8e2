"""Signed tokens."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk, jwt
from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.web_tokens import (
    BadToken,
    SigningKeys,
    WebIdentity,
    WebTokens,
    public_keys,
)

NOW = 1_800_000_000.0
SECRET = "x" * 32
ALICE = WebIdentity("alice", "operator", NOW)


class TokenTests(SynchronousTestCase):
    """W-23: HS256, with an expiry."""

    def setUp(self) -> None:
        self.now = NOW
        self.keys = SigningKeys.of_secret(SECRET, lambda: self.now)
        self.tokens = WebTokens(self.keys, lambda: self.now)

    def refused(self, token: str) -> str:
        return str(self.assertRaises(BadToken, self.tokens.check, token))

    def signed(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        given = {"sub": "alice", "role": "admin", "exp": NOW + 60, **claims}
        given = {name: value for name, value in given.items() if value is not None}
        header = {"alg": "HS256", "kid": "settings", **(header or {})}
        return jwt.encode(header, given, jwk.OctKey.import_key(SECRET))

    def test_round_trip(self) -> None:
        self.assertEqual(self.tokens.check(self.tokens.sign(ALICE, 3600)), ALICE)

    def test_expiry(self) -> None:
        token = self.tokens.sign(ALICE, 3600)
        self.now += 3599
        self.assertEqual(self.tokens.check(token).user, "alice")
        self.now += 2
        self.assertIn("expired", self.refused(token))

    def test_claims_that_cannot_be(self) -> None:
        self.assertEqual(self.tokens.check(self.signed()).role, "admin")
        self.assertEqual(self.tokens.check(self.signed(role=None)).role, "worker")
        self.assertIn("no time", self.refused(self.signed(exp=None)))
        self.assertIn("no time", self.refused(self.signed(exp="never")))
        self.assertIn("not valid yet", self.refused(self.signed(nbf=NOW + 600)))
        for claims in (
            {"sub": None},
            {"sub": ""},
            {"sub": 7},
            {"role": "king"},
            {"role": ["admin"]},
        ):
            self.assertIn("no user", self.refused(self.signed(**claims)))

    def test_signatures_that_cannot_be(self) -> None:
        """W-23: the algorithm is the key's; a token does not choose it."""
        good = self.tokens.sign(ALICE, 60)
        head, body, signature = good.split(".")
        other = WebTokens(SigningKeys.of_secret("y" * 32, lambda: NOW), lambda: NOW)
        none = jwk.OctKey.import_key(SECRET)
        for token in (
            f"{head}.{body}.",
            f"{head}.{body}.{signature[::-1]}",
            f"{head}.{body[::-1]}.{signature}",
            other.sign(ALICE, 60),
            jwt.encode(
                {"alg": "HS512", "kid": "settings"}, {"sub": "a"}, none, algorithms=["HS512"]
            ),
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.",
            "",
            "a.b.c",
            "x" * 5000,
        ):
            self.refused(token)

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """K-92"""
        self.assertRaises(BadToken, WebTokens(self.keys, lambda: NOW).check, text)

    def test_a_secret_that_is_too_short(self) -> None:
        self.assertRaises(ValueError, SigningKeys.of_secret, "short", lambda: NOW)


class OtherKeyTests(SynchronousTestCase):
    """W-23: RS256 and EdDSA, signed by somebody else."""

    def public(self, private: Any) -> str:
        path = self.mktemp()
        Path(path).write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return path

    def signed(self, private: Any, kind: Any, algorithm: str) -> str:
        data = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        claims = {"sub": "carol", "exp": NOW + 60}
        return jwt.encode({"alg": algorithm}, claims, kind.import_key(data), algorithms=[algorithm])

    def test_keys(self) -> None:
        rs = rsa.generate_private_key(65537, 2048)
        ed = ed25519.Ed25519PrivateKey.generate()
        keys = public_keys([self.public(rs), self.public(ed)])
        tokens = WebTokens(SigningKeys.of_secret(SECRET, lambda: NOW), lambda: NOW, keys)
        for private, kind, algorithm in (
            (rs, jwk.RSAKey, "RS256"),
            (ed, jwk.OKPKey, "Ed25519"),
        ):
            self.assertEqual(tokens.check(self.signed(private, kind, algorithm)).user, "carol")
        stranger = rsa.generate_private_key(65537, 2048)
        self.assertRaises(BadToken, tokens.check, self.signed(stranger, jwk.RSAKey, "RS256"))

    def test_files_that_hold_none(self) -> None:
        path = self.mktemp()
        Path(path).write_text("nothing")
        self.assertIn("no public key", str(self.assertRaises(ValueError, public_keys, [path])))
        self.assertRaises(FileNotFoundError, public_keys, ["/none"])


class KeyFileTests(SynchronousTestCase):
    """Issue 15, build 3: keys are made, kept and rotated."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "token-keys.json"
        self.now = NOW

    def tokens(self) -> WebTokens:
        return WebTokens(SigningKeys.of_file(self.path, lambda: self.now), lambda: self.now)

    def test_they_outlive_a_restart(self) -> None:
        token = self.tokens().sign(ALICE, 3600)
        self.assertEqual(self.tokens().check(token), ALICE)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_rotation(self) -> None:
        first = self.tokens()
        day = 86_400.0
        old = first.sign(ALICE, 100 * day)
        self.now += 31 * day
        second = self.tokens()
        self.assertEqual(second.check(old), ALICE)
        self.assertEqual(len(json.loads(self.path.read_text())["keys"]), 2)
        new = second.sign(ALICE, 100 * day)
        self.now += 30 * day
        third = self.tokens()
        self.assertEqual(third.check(new), ALICE)
        self.assertRaises(BadToken, third.check, old)
        self.assertRaises(BadToken, second.check, old)

    def test_a_file_that_is_none(self) -> None:
        for text in ("", "[]", '{"keys":[{}]}', "\x00"):
            self.path.write_text(text)
            self.assertRaises(ValueError, self.tokens)
