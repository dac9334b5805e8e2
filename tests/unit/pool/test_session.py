"""Sessions: who they are, and what they remember."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.pool.jobs import Job
from kupool.pool.session import Session, scope_key, valid_username
from kupool.wire.messages import split_username


class NameTests(SynchronousTestCase):
    """K-16, K-18: names, users and workers."""

    def test_length(self) -> None:
        """K-16: 1 to 255 characters."""
        self.assertFalse(valid_username(""))
        self.assertTrue(valid_username("a"))
        self.assertTrue(valid_username("é" * 255))
        self.assertFalse(valid_username("a" * 256))

    @given(st.text(min_size=1, max_size=255))
    def test_control_characters(self, name: str) -> None:
        """K-16: no control character, and nothing that breaks a line, in any place."""
        if any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in name):
            self.assertFalse(valid_username(name))
        else:
            self.assertTrue(valid_username(name))

    def test_each_kind_of_control_character(self) -> None:
        """K-16: a separator of lines or paragraphs, and half a character, are such too."""
        for character in "\0\n\x1f\x7f\x80\x9f\u2028\u2029\ud800\udfff":
            self.assertFalse(valid_username(f"a{character}b"), hex(ord(character)))
        for character in " \xa0\xad\u200d\u3000\ufeff\U0001f600":
            self.assertTrue(valid_username(f"a{character}b"), hex(ord(character)))

    def test_worker(self) -> None:
        """K-18: what follows the last dot is the worker."""
        for name, parts in {
            "alice": ("alice", ""),
            "alice.rig1": ("alice", "rig1"),
            "a.b.c": ("a.b", "c"),
            "alice.": ("alice.", ""),
            ".rig": (".rig", ""),
            ".": (".", ""),
        }.items():
            self.assertEqual(split_username(name), parts)
            self.assertEqual(Session(name, "user").user, parts[0])


class ScopeTests(SynchronousTestCase):
    def test_ids(self) -> None:
        """K-19: 128 bits, never the same."""
        ids = {Session("alice", "user").session_id for _ in range(1000)}
        self.assertEqual(len(ids), 1000)
        self.assertEqual({len(i) for i in ids}, {16})

    def test_keys(self) -> None:
        """K-47: the restored nonces are found under the key that a session has."""
        for scope in ("user", "job"):
            self.assertEqual(Session("al.w", scope).scope, scope_key(scope, "al.other"))
        one, other = Session("alice", "session"), Session("alice", "session")
        self.assertNotEqual(one.scope, other.scope)
        self.assertEqual(one.scope, one.session_id.hex())
        self.assertEqual([scope_key(scope, "al.w") for scope in ("user", "job")], ["al", ""])
        self.assertEqual(scope_key("session", "al.w"), "")  # of a session that has no id

    def test_what_is_not_given(self) -> None:
        session = Session("alice.rig", "user")
        self.assertEqual((session.username, session.user), ("alice.rig", "alice"))
        self.assertEqual((session.suffix, session.role, session.shared), ("", "", ()))

    def test_enter(self) -> None:
        """K-30: turning to another job and back finds the nonces again."""
        session = Session("alice", "user")
        one, two = Job(1, "a", 0.0, 0.0), Job(2, "b", 0.0, 0.0)
        session.begin(one).reserve("n", 1)
        self.assertNotIn("n", session.enter(two).used)
        self.assertIn("n", session.enter(one).used)

    def test_nothing_is_remembered_before_a_nonce_is(self) -> None:
        """Issue 15, build 5: a name that asks about a job takes no memory of it; once a session
        of the name has used a nonce, each of its sessions finds it.
        """
        job = Job(1, "a", 0.0, 0.0)
        one, other = Session("alice.one", "user"), Session("alice.other", "user")
        self.assertEqual(one.enter(job).used, {})
        self.assertEqual(other.enter(job).used, {})
        self.assertEqual(len(job.nonces), 0)
        one.begin(job).reserve("n", 1)
        self.assertIn("n", other.enter(job).used)
        self.assertEqual(len(job.nonces), 1)
