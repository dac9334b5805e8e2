"""The tokens of the Centrifuge protocol (W-72)."""

from __future__ import annotations

from typing import Any

from joserfc import jwk, jwt
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial import unittest

from kupool.live.centrifuge.noted_tokens import NotedTokens
from kupool.live.centrifuge.tokens import (
    LONGEST_TOKEN,
    CentrifugeTokens,
    ExpiredTokenError,
    ForeignTokenError,
    InvalidTokenError,
    ServerSubscription,
)
from kupool.net.refusals import Refusals

NOW = 1_800_000_000.0
SECRET = "a secret of more than thirty-two characters"


def signed(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    key = jwk.OctKey.import_key(secret.encode())
    return jwt.encode({"alg": algorithm}, claims, key, algorithms=[algorithm])


class TokenCase(unittest.TestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.tokens = CentrifugeTokens(SECRET, lambda: self.now)


class ConnectionTokenTests(TokenCase):
    """A connection token says who connects."""

    def test_who(self) -> None:
        for algorithm in ("HS256", "HS384", "HS512"):
            token = signed({"sub": "alice", "exp": NOW + 5, "info": {"n": 1}}, algorithm=algorithm)
            found = self.tokens.connection(token)
            self.assertEqual(found, ("alice", NOW + 5, b'{"n":1}', {}))

    def test_anonymous(self) -> None:
        self.assertEqual(self.tokens.connection(signed({"iat": NOW})), ("", 0.0, b"", {}))

    def test_expired(self) -> None:
        token = signed({"exp": NOW + 1})
        self.tokens.connection(token)
        self.now += 1
        self.assertRaises(ExpiredTokenError, self.tokens.connection, token)

    def test_not_valid_yet(self) -> None:
        self.tokens.connection(signed({"nbf": NOW + 60}))
        self.assertRaises(InvalidTokenError, self.tokens.connection, signed({"nbf": NOW + 61}))

    def test_expire_at_is_the_end_instead(self) -> None:
        for end in (0, NOW + 100):
            token = signed({"exp": NOW + 5, "expire_at": end})
            self.assertEqual(self.tokens.connection(token).expires_at, end)

    def test_channels(self) -> None:
        found = self.tokens.connection(signed({"channels": ["a", "b"]})).subscriptions
        self.assertEqual(found, {"a": ServerSubscription(), "b": ServerSubscription()})

    def test_subscriptions(self) -> None:
        override = {"presence": {"value": True}, "force_recovery": {}, "else": 1}
        subs = {"a": {"info": 1, "data": [2], "override": override}, "b": None}
        found = self.tokens.connection(signed({"subs": subs})).subscriptions
        self.assertEqual(
            found,
            {
                "a": (b"1", b"[2]", {"presence": True, "force_recovery": False}),
                "b": ServerSubscription(),
            },
        )

    def test_wrong_claims(self) -> None:
        for claims in (
            {"channel": "a"},
            {"sub": 5},
            {"exp": "tomorrow"},
            {"exp": True},
            {"expire_at": -1},
            {"channels": "a"},
            {"channels": [1]},
            {"subs": ["a"]},
            {"subs": {"a": 1}},
            {"subs": {"a": {"override": 1}}},
            {"subs": {"a": {"override": {"presence": True}}}},
            {"subs": {"a": {"override": {"presence": {"value": 1}}}}},
        ):
            self.assertRaises(InvalidTokenError, self.tokens.connection, signed(claims))

    def test_what_is_no_token(self) -> None:
        unsigned = "eyJhbGciOiJub25lIn0.e30."
        for token in ("", "a.b.c", "....", unsigned, "x" * (LONGEST_TOKEN + 1), "\ud800", "ä.ö.ü"):
            self.assertRaises(InvalidTokenError, self.tokens.connection, token)

    def test_another_secret(self) -> None:
        token = signed({"sub": "alice"}, "another secret of more than thirty-two characters")
        self.assertRaises(InvalidTokenError, self.tokens.connection, token)


class ChannelTokenTests(TokenCase):
    """A channel token permits a user one channel."""

    def test_permitted(self) -> None:
        token = signed({"sub": "alice", "channel": "$a", "info": 1, "expire_at": NOW + 9})
        found = self.tokens.channel(token, "$a", "alice")
        self.assertEqual(found, ("alice", "$a", NOW + 9, (b"1", b"", {})))

    def test_anonymous(self) -> None:
        token = signed({"iat": NOW, "channel": "$a"})
        self.assertEqual(self.tokens.channel(token, "$a", "").expires_at, 0)

    def test_for_another_channel_or_user(self) -> None:
        token = signed({"sub": "alice", "channel": "$a"})
        for channel, user in (("$b", "alice"), ("$a", "bob"), ("$a", "")):
            self.assertRaises(ForeignTokenError, self.tokens.channel, token, channel, user)
        self.assertRaises(ForeignTokenError, self.tokens.channel, signed({}), "$a", "")

    def test_expired(self) -> None:
        token = signed({"channel": "$a", "exp": NOW})
        self.assertRaises(ExpiredTokenError, self.tokens.channel, token, "$a", "")


class NotedTokenTests(TokenCase):
    """W-72: the log says why a token is invalid; the client is not told."""

    def setUp(self) -> None:
        super().setUp()
        self.refusals = Refusals(Clock())
        self.addCleanup(self.refusals.stop)
        self.noted = NotedTokens(self.tokens, self.refusals)

    def test_valid_and_expired(self) -> None:
        """These are usual, and not noted."""
        self.assertEqual(self.noted.connection(signed({"sub": "alice"})).user, "alice")
        self.assertEqual(self.noted.channel(signed({"channel": "$a"}), "$a", "").channel, "$a")
        self.assertRaises(ExpiredTokenError, self.noted.connection, signed({"exp": NOW - 1}))
        self.assertEqual(self.refusals.counts, {})

    def test_invalid(self) -> None:
        with capturedLogs() as events:
            self.assertRaises(InvalidTokenError, self.noted.connection, "rubbish")
            self.assertRaises(InvalidTokenError, self.noted.channel, signed({}), "$a", "")
        said = " ".join(formatEvent(event) for event in events)
        self.assertIn("connection token: the token is not signed with the secret", said)
        self.assertIn("channel token: the token is for another channel or another user", said)

    def test_without_a_secret(self) -> None:
        noted = NotedTokens(None, self.refusals)
        self.assertRaises(InvalidTokenError, noted.connection, signed({"sub": "alice"}))
        self.assertIn("--live-token-secret", "".join(self.refusals.counts))
