"""The judge: what is accepted, and which check answers first."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import (
    DUPLICATE,
    INVALID_RESULT,
    TASK_EXPIRED,
    TASK_UNKNOWN,
    TOO_FREQUENT,
    ErrorText,
)
from kupool.pool.jobs import Job
from kupool.pool.judge import Rules
from kupool.pool.session import Session
from kupool.timing.buckets import Bucket
from kupool.wire.messages import SubmitParams
from tests.fakes.pool_fixture import hash_of

VECTOR = "8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92"

#: The five errors, in the order of the checks.
ORDER = (TASK_UNKNOWN, TASK_EXPIRED, TOO_FREQUENT, DUPLICATE, INVALID_RESULT)


def a_job(created: float = 0.0, server_nonce: str = "123") -> Job:
    return Job(7, server_nonce, created, 0.0)


def submission(client_nonce: str = "456", result: str | None = None) -> SubmitParams:
    return SubmitParams(7, client_nonce, result or hash_of("123", client_nonce))


def verdict_with(faults: frozenset[ErrorText] | set[ErrorText]) -> ErrorText | None:
    """Judge a submission that has these faults and no others."""
    job, session, now = a_job(), Session("alice", "user"), 100.0
    if DUPLICATE in faults:
        session.begin(job).reserve("456", 1)
    if TOO_FREQUENT in faults:
        session.last_accepted = now - 0.5
    result = "0" * 64 if INVALID_RESULT in faults else VECTOR
    expire = 50.0 if TASK_EXPIRED in faults else 0.0
    found = None if TASK_UNKNOWN in faults else job
    return Rules(expire, 1.0).judge(found, session, SubmitParams(7, "456", result), now)


class OrderTests(SynchronousTestCase):
    """K-40: exists, expired, too frequent, duplicate, invalid."""

    def test_right(self) -> None:
        """K-37, K-38: the vector of the protocol is accepted."""
        self.assertIs(verdict_with(set()), None)
        self.assertEqual(hash_of("123", "456"), VECTOR)

    def test_each_fault_alone(self) -> None:
        """K-39: each fault has its own error."""
        for fault in ORDER:
            self.assertIs(verdict_with({fault}), fault)

    def test_every_pair(self) -> None:
        """K-40: of any two faults the earlier check answers."""
        for first, second in combinations(ORDER, 2):
            self.assertIs(verdict_with({first, second}), first)

    @given(st.frozensets(st.sampled_from(ORDER)))
    def test_any_faults(self, faults: frozenset[ErrorText]) -> None:
        """K-40: of any set of faults the earliest check answers."""
        expected = next((error for error in ORDER if error in faults), None)
        self.assertIs(verdict_with(faults), expected)

    def test_texts_and_codes(self) -> None:
        """K-39: the exact texts, each with its code."""
        self.assertEqual(
            [(error.text, error.code) for error in ORDER],
            [
                ("Task does not exist", 21),
                ("Task expired", 25),
                ("Submission too frequent", 26),
                ("Duplicate submission", 22),
                ("Invalid result", 23),
            ],
        )


class HashTests(SynchronousTestCase):
    """K-38: SHA-256 over server nonce and client nonce, as hex."""

    def judged(self, client_nonce: str, result: str) -> ErrorText | None:
        params = SubmitParams(7, client_nonce, result)
        return Rules().judge(a_job(), Session("alice", "user"), params, 0.0)

    def test_any_case(self) -> None:
        self.assertIs(self.judged("456", VECTOR.upper()), None)
        self.assertIs(self.judged("456", VECTOR[:30].upper() + VECTOR[30:]), None)

    def test_wrong(self) -> None:
        for result in (
            "",
            "0" * 64,
            VECTOR[:-1],
            VECTOR + "0",
            " " + VECTOR,
            VECTOR[:-1] + "\u0662",
            "\u212a" * 64,
            "é" * 64,
            hash_of("456", "123"),
        ):
            self.assertIs(self.judged("456", result), INVALID_RESULT, result)

    def test_nonces(self) -> None:
        """K-49: 1 to 64 printable ASCII characters."""
        for nonce in ("a", " ", "~", "a b", '"\\', "x" * 64):
            self.assertIs(self.judged(nonce, hash_of("123", nonce)), None, nonce)
        for nonce in ("", "x" * 65, "a\n", "\x00", "\x7f", "é", "\u2028", "名"):
            self.assertIs(self.judged(nonce, hash_of("123", nonce)), INVALID_RESULT, nonce)

    @given(st.text(max_size=80))
    def test_any_nonce(self, nonce: str) -> None:
        """K-49: no text is judged otherwise, and none raises."""
        good = 1 <= len(nonce) <= 64 and all(" " <= c <= "~" for c in nonce)
        result = hash_of("123", nonce) if nonce.isascii() else "0" * 64
        self.assertIs(self.judged(nonce, result), None if good else INVALID_RESULT)

    @given(st.text())
    def test_any_result(self, result: str) -> None:
        expected = None if result.lower() == VECTOR else INVALID_RESULT
        self.assertIs(self.judged("456", result), expected)

    def test_session_suffix(self) -> None:
        """K-55: in the nonce scope `session` the suffix is part of what is hashed, so
        that the work of one session is worth nothing on another.
        """
        job, one, other = a_job(), Session("alice", "user", "aa"), Session("alice", "user", "bb")
        work = SubmitParams(7, "456", hash_of("123aa", "456"))
        self.assertIs(Rules().judge(job, one, work, 0.0), None)
        self.assertIs(Rules().judge(job, other, work, 0.0), INVALID_RESULT)
        self.assertIs(Rules().judge(job, one, submission(), 0.0), INVALID_RESULT)


class ExpiryTests(SynchronousTestCase):
    """K-43: a job older than the expiry is expired."""

    def judged(self, age: float, expire: float) -> ErrorText | None:
        job = a_job(created=1000.0)
        return Rules(expire, 1.0).judge(job, Session("a", "user"), submission(), 1000.0 + age)

    def test_boundary(self) -> None:
        self.assertIs(self.judged(0.5, 0.5), None)
        self.assertIs(self.judged(0.501, 0.5), TASK_EXPIRED)

    def test_zero_turns_it_off(self) -> None:
        self.assertIs(self.judged(1e9, 0), None)


class WindowTests(SynchronousTestCase):
    """K-44: one accepted submission a second."""

    def judged(self, last: float, now: float, interval: float = 1.0) -> ErrorText | None:
        session = Session("alice", "user")
        session.last_accepted = last
        return Rules(0, interval).judge(a_job(), session, submission(), now)

    def test_window(self) -> None:
        """K-44: the window opens at 1.000 s."""
        self.assertIs(self.judged(50.0, 50.0), TOO_FREQUENT)
        self.assertIs(self.judged(50.0, 50.999), TOO_FREQUENT)
        self.assertIs(self.judged(50.0, 51.0), None)

    @given(st.floats(min_value=0, max_value=1e9))
    def test_window_anywhere(self, last: float) -> None:
        """K-44: rounding does not move it, however long the process has run."""
        self.assertIs(self.judged(last, last + 1.0), None)
        self.assertIs(self.judged(last, last + 0.999), TOO_FREQUENT)

    def test_interval_of_zero(self) -> None:
        self.assertIs(self.judged(50.0, 50.0, 0.0), None)

    def test_empty_bucket_of_attempts(self) -> None:
        """K-45: without an attempt left, even a right submission is too frequent."""
        session = Session("alice", "user")
        session.attempts = Bucket(1.0, 5.0, 0.0)
        for _ in range(5):
            session.attempts.spend(0.0)
        self.assertIs(Rules().judge(a_job(), session, submission(), 0.5), TOO_FREQUENT)
        self.assertIs(Rules().judge(a_job(), session, submission(), 1.0), None)

    def test_shared_bucket(self) -> None:
        """K-46: the limit of a user or an address holds for each of their sessions."""
        session, bucket = Session("alice", "user"), Bucket(2.0, 2.0, 0.0)
        session.shared = (Bucket(9.0, 9.0, 0.0), bucket)
        bucket.spend(0.0)
        self.assertIs(Rules().judge(a_job(), session, submission(), 0.0), None)
        bucket.spend(0.0)
        self.assertIs(Rules().judge(a_job(), session, submission(), 0.0), TOO_FREQUENT)


class JobTests(SynchronousTestCase):
    """K-30, K-47: which nonces are looked at."""

    def test_judging_one_job_changes_no_other(self) -> None:
        """K-30: judging an old job leaves what is known of the current one."""
        session, rules = Session("alice", "user"), Rules(0, 0)
        old, new = Job(1, "old", 0.0, 0.0), Job(2, "new", 0.0, 0.0)
        session.begin(new).reserve("n", 1)
        work = SubmitParams(1, "n", hash_of("old", "n"))
        self.assertIs(rules.judge(old, session, work, 0.0), None)
        again = SubmitParams(2, "n", hash_of("new", "n"))
        self.assertIs(rules.judge(new, session, again, 0.0), DUPLICATE)
        fresh = SubmitParams(2, "m", hash_of("new", "m"))
        self.assertIs(rules.judge(new, session, fresh, 0.0), None)

    def test_scopes(self) -> None:
        """K-47: `user` is the default way: a user's sessions share nonces, workers too;
        `session` and `job` are as they say.
        """
        for scope, same_user, other_user in (
            ("user", DUPLICATE, None),
            ("session", None, None),
            ("job", DUPLICATE, DUPLICATE),
        ):
            job = a_job()
            Session("alice.one", scope).begin(job).reserve("456", 1)
            for name, expected in (("alice.two", same_user), ("bob", other_user)):
                found = Rules().judge(job, Session(name, scope), submission(), 0.0)
                self.assertIs(found, expected, (scope, name))

    def test_judging_records_nothing(self) -> None:
        """K-48: what is judged is not remembered; only what is accepted is."""
        job, session = a_job(), Session("alice", "user")
        for _ in range(3):
            self.assertIs(Rules().judge(job, session, submission(), 0.0), None)
        wrong = submission(result="0" * 64)
        self.assertIs(Rules().judge(job, session, wrong, 0.0), INVALID_RESULT)
        self.assertIs(Rules().judge(job, session, submission(), 0.0), None)
