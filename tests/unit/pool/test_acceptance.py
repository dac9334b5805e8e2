"""Batches: when they close, what they are answered, and what a failure gives back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import fail
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import DUPLICATE, UNAVAILABLE
from kupool.log import LogUnavailable
from kupool.pool.acceptance import SAMPLE, BatchSettings
from kupool.settings.declaration import SubmissionSettings
from kupool.timing.buckets import Bucket
from kupool.wire.batches import Batch, decode_batch
from tests.fakes.acceptance import WALL, AcceptanceCase, Peer


class DefaultTests(SynchronousTestCase):
    """Issue 14: without settings it does what the table of settings says."""

    def test_defaults(self) -> None:
        settings = SubmissionSettings()
        delay, size = settings.batch_delay, settings.batch_size
        self.assertEqual(BatchSettings(), BatchSettings(delay, size, settings.batches_in_flight))


class PeerTests(AcceptanceCase):
    """Issue 16, build 3: a batch has sessions and peers if that is set, and else does not."""

    def logged(self) -> Batch:
        peers = [Peer(self.clock, name) for name in ("alice", "bob")]
        for number, peer in enumerate(peers):
            peer.context.peer = f"192.0.2.1:{number}"
            self.add(number, f"n{number}", peer)
        self.sessions = [peer.context.session_id.hex() for peer in peers]
        self.turn()
        self.turn()
        return decode_batch(self.log.appended[0][1])

    def test_they_are_left_out(self) -> None:
        batch = self.logged()
        self.assertEqual((batch.sessions, batch.peers), ([], []))

    def test_they_are_in_the_log(self) -> None:
        self.acceptance = self.make(peers=True)
        batch = self.logged()
        self.assertEqual(batch.usernames, ["alice", "bob"])
        self.assertEqual(batch.sessions, self.sessions)
        self.assertEqual(batch.peers, ["192.0.2.1:0", "192.0.2.1:1"])


class ClosingTests(AcceptanceCase):
    """K-71: what arrives together goes to the log as one batch."""

    def test_lone_submission_does_not_wait_for_the_delay(self) -> None:
        self.add(1, "a")
        self.assertEqual(self.log.appended, [])
        self.turn()
        self.turn()
        self.assertEqual(len(self.log.appended), 1)
        self.assertEqual(self.clock.seconds(), 0.0)

    def test_stays_open_while_each_turn_brings_more(self) -> None:
        for number in range(10):
            self.add(number, f"n{number}")
            self.turn()
            self.assertEqual(self.log.appended, [])
        self.turn()
        self.assertEqual(len(decode_batch(self.log.appended[0][1]).client_nonces), 10)

    def test_as_many_as_last_time_do_not_wait(self) -> None:
        for nonces in ("ab", "cd"):
            for number, nonce in enumerate(nonces):
                self.add(number, nonce)
            began = self.clock.seconds()
            self.turn()
            self.turn()
            self.assertEqual(len(self.log.appended), 1)
            self.assertEqual(self.clock.seconds(), began)
            self.clock.advance(0.002)
            self.log.decide()

    def write_ten(self, took: float) -> None:
        """Have a batch of ten written, for which the log takes some seconds."""
        for number in range(10):
            self.add(number, f"n{number}")
        self.turn()
        self.turn()
        self.clock.advance(took)
        self.log.decide()

    def test_waits_for_as_many_as_last_time_no_longer_than_the_log_takes(self) -> None:
        """Otherwise a single larger batch would delay all that follow."""
        self.write_ten(took=0.002)
        self.add(11, "later")
        self.turn()
        self.turn()
        self.turn()
        self.assertEqual(len(self.clock.getDelayedCalls()), 2, "nothing is done in each turn")
        self.clock.advance(0.0019)
        self.assertEqual(self.log.appended, [])
        self.clock.advance(0.0002)
        self.assertEqual(len(self.log.appended), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits_exactly_as_long_as_the_log_takes(self) -> None:
        self.acceptance = self.make(delay=1.0)
        self.write_ten(took=0.25)
        self.add(11, "later")
        self.turn()
        self.turn()
        self.clock.advance(0.125)
        self.assertEqual(self.log.appended, [])
        self.clock.advance(0.125)
        self.assertEqual(len(self.log.appended), 1)

    def test_a_batch_that_failed_tells_no_time_to_wait(self) -> None:
        for number in range(10):
            self.add(number, f"n{number}")
        self.acceptance.flush()
        self.log.decide(LogUnavailable("no"))
        self.add(11, "later")
        self.turn()
        self.turn()
        self.turn()
        self.assertEqual(len(self.log.appended), 1)

    def test_waits_anew_when_another_one_arrives(self) -> None:
        """Clients that were answered together submit one after the other."""
        self.write_ten(took=0.002)
        for number in range(3):
            self.add(number, f"m{number}")
            self.turn()
            self.clock.advance(0.0015)
        self.assertEqual(self.log.appended, [])
        self.turn()
        self.clock.advance(0.0021)
        self.assertEqual(len(decode_batch(self.log.appended[0][1]).client_nonces), 3)

    def test_waits_for_as_many_as_last_time_no_longer_than_the_delay(self) -> None:
        self.write_ten(took=1.0)
        self.add(11, "later")
        self.turn()
        self.turn()
        self.clock.advance(0.0049)
        self.assertEqual(self.log.appended, [])
        self.clock.advance(0.0001)
        self.assertEqual(len(self.log.appended), 1)

    def test_the_next_batch_does_not_wait_for_the_one_before(self) -> None:
        self.acceptance = self.make(size=3)
        for number in range(2):
            self.add(number, f"n{number}")
        self.turn()
        self.turn()
        self.clock.advance(0.004)
        self.log.decide()
        self.add(3, "a")  # waits for another one
        self.turn()
        self.turn()
        self.add(4, "b")
        self.add(5, "c")  # full
        self.log.decide()
        self.add(6, "d")
        self.turn()
        self.turn()
        self.assertEqual(decode_batch(self.log.appended[0][1]).client_nonces, ["d"])

    def test_gathers_while_the_log_is_busy(self) -> None:
        self.add(1, "a")
        self.turn()
        self.turn()
        self.add(2, "b")
        self.turn()
        self.turn()
        self.assertEqual(len(self.log.appended), 1)
        self.log.decide()
        self.turn()
        self.turn()
        self.assertEqual(decode_batch(self.log.appended[0][1]).client_nonces, ["b"])

    def test_delay_is_the_longest_even_when_the_log_is_busy(self) -> None:
        self.add(1, "a")
        self.turn()
        self.turn()
        self.add(2, "b")
        self.clock.advance(0.005)
        self.assertEqual(len(self.log.appended), 2)

    def test_gathers_while_the_log_is_slow(self) -> None:
        """Small batches do not use up what may be on its way: the next one grows."""
        self.acceptance = self.make(pipeline=2, in_flight=4, size=3)
        for number in range(2):
            self.add(number, f"n{number}")
            self.clock.advance(0.005)
        self.assertEqual(len(self.log.appended), 2)
        self.add(2, "c")
        self.clock.advance(0.5)
        self.add(3, "d")
        self.clock.advance(0.5)
        self.assertEqual(len(self.log.appended), 2)
        self.log.decide()  # there is room again: what has waited long enough goes at once
        self.assertEqual(decode_batch(self.log.appended[1][1]).client_nonces, ["c", "d"])
        for number in range(4, 10):
            self.assertTrue(self.add(number, f"n{number}"))
        self.assertEqual(len(self.log.appended), 4)  # a full one does not wait
        self.assertFalse(self.add(10, "k"))
        self.log.decide(LogUnavailable("no"))
        self.add(11, "l")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        while self.log.appended:
            self.log.decide()
        self.clock.advance(0.005)
        self.assertEqual(decode_batch(self.log.appended[0][1]).client_nonces, ["l"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sixteen_may_wait_for_a_slow_log(self) -> None:
        """The next one stays open after its delay."""
        for number in range(17):
            self.add(number, f"n{number}")
            self.clock.advance(0.005)
        self.assertEqual(len(self.log.appended), 16)

    def test_what_was_held_back_waits_for_a_place(self) -> None:
        self.acceptance = self.make(pipeline=1, in_flight=4)
        for number in range(2):
            self.add(number, f"n{number}")
            self.acceptance.flush()
        self.add(2, "held")
        self.clock.advance(0.005)
        self.log.decide()
        self.assertEqual(len(self.log.appended), 1)  # one is on its way still
        self.log.decide()
        self.assertEqual(decode_batch(self.log.appended[0][1]).client_nonces, ["held"])

    def test_full_batch_closes_at_once(self) -> None:
        self.acceptance = self.make(size=3)
        for number in range(7):
            self.add(number, f"n{number}")
        self.assertEqual(
            [len(decode_batch(body).job_ids) for _, body, _ in self.log.appended], [3, 3]
        )

    def test_instant_log_gets_a_batch_each_turn(self) -> None:
        self.log.instant = True
        self.acceptance = self.make()
        self.add(1, "a")
        self.add(2, "b")
        self.turn()
        self.assertEqual(decode_batch(self.log.appended[0][1]).client_nonces, ["a", "b"])

    def test_instant_log_and_a_full_batch(self) -> None:
        self.log.instant = True
        self.acceptance = self.make(size=2)
        self.add(1, "a")
        self.add(2, "b")
        self.turn()
        self.assertEqual(len(self.log.appended), 1)

    def test_batch_ends_with_its_minute(self) -> None:
        """K-69: every submission counts for the UTC minute of its acceptance."""
        for minute in (WALL // 60, WALL // 60 + 1):
            self.acceptance = self.make(delay=30.0)
            self.log.appended.clear()
            self.clock.rightNow = (minute + 1) * 60 - WALL - 0.5
            self.add(1, "a")
            self.clock.rightNow += 0.4
            self.add(2, "b")
            self.clock.rightNow = (minute + 1) * 60 - WALL  # the batch is still open
            self.add(3, "c")
            self.assertTrue(self.acceptance.settle())
            batches = [decode_batch(body) for _, body, _ in self.log.appended]
            self.assertEqual([b.client_nonces for b in batches], [["a", "b"], ["c"]])
            self.assertEqual([b.at // 60000 for b in batches], [minute, minute + 1])

    def test_batch_ids_are_unique(self) -> None:
        for number in range(5):
            self.add(number, f"n{number}")
            self.acceptance.flush()
        self.assertEqual(len({entry_id for entry_id, _, _ in self.log.appended}), 5)
        self.assertEqual(
            [decode_batch(body).batch for _, body, _ in self.log.appended],
            [entry_id for entry_id, _, _ in self.log.appended],
        )

    def test_leaves_no_timer_behind(self) -> None:
        self.add(1, "a")
        self.acceptance.flush()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log.decide()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AnsweringTests(AcceptanceCase):
    """K-52: true means durable, and what cannot be made durable is refused."""

    def test_true_only_when_the_log_has_it(self) -> None:
        self.add(7, "a")
        self.acceptance.flush()
        self.assertEqual(self.peer.sent, [])
        self.log.decide()
        self.assertEqual(self.peer.sent, [{"id": 7, "result": True}])
        self.assertEqual(self.acceptance.accepted, 1)

    def test_answers_of_one_connection_leave_together(self) -> None:
        other = Peer(self.clock, "bob")
        for number, peer in enumerate([self.peer, self.peer, self.peer, other]):
            self.add(number, f"n{number}", peer)
        self.acceptance.flush()
        self.log.decide()
        self.assertEqual([m["id"] for m in self.peer.sent], [0, 1, 2])
        self.assertEqual((self.peer.writes, other.writes), (1, 1))

    def test_each_connection_gets_its_own_answers(self) -> None:
        """In whatever order the connections submit; what follows directly leaves together."""
        one, other = self.peer, Peer(self.clock, "bob")
        for number, peer in enumerate([one, other, one, one, other]):
            self.add(number, f"n{number}", peer)
        self.acceptance.flush()
        self.log.decide()
        self.assertEqual([m["id"] for m in one.sent], [0, 2, 3])
        self.assertEqual([m["id"] for m in other.sent], [1, 4])
        self.assertEqual((one.writes, other.writes), (2, 2))

    def test_failure_refuses_and_frees_the_nonce(self) -> None:
        self.add(7, "a")
        self.assertIn("a", self.peer.context.nonces.used)
        self.acceptance.flush()
        self.log.decide(LogUnavailable("disk full"))
        self.assertEqual(
            self.peer.sent,
            [{"id": 7, "result": False, "error": UNAVAILABLE.text, "code": UNAVAILABLE.code}],
        )
        self.assertNotIn("a", self.peer.context.nonces.used)
        self.assertEqual(self.job.remembered, 0)
        self.assertEqual(self.peer.context.last_accepted, float("-inf"))

    def test_refusals_are_logged_once(self) -> None:
        """K-91: the first says why, and the end says how many there were."""
        lines: list[str | None] = []

        def see(event: Any) -> None:
            if event["log_namespace"].startswith("kupool.pool.acceptance"):
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(see)
        self.addCleanup(globalLogPublisher.removeObserver, see)
        refused = "Submissions are refused, because the log cannot store them: disk full"
        accepted = "The log accepts submissions again; 4 were refused meanwhile"
        full = LogUnavailable("disk full")
        for turn in range(2):
            for error, expected in ((full, [refused]), (full, []), (None, [accepted]), (None, [])):
                lines.clear()
                self.add(1, f"a{turn}")
                self.add(2, f"b{turn}")
                self.acceptance.flush()
                self.log.decide(error)
                self.assertEqual(lines, expected)

    def test_failure_gives_back_what_was_spent(self) -> None:
        """K-46, K-52: a refused one counts for no limit that sessions share."""
        bucket = Bucket(0.1, 2.0, 0.0)
        self.peer.context.shared = (bucket,)
        self.add(7, "a")
        self.assertEqual(bucket.level(0.0), 1.0)
        self.acceptance.flush()
        self.log.decide(LogUnavailable("disk full"))
        self.assertEqual(bucket.level(0.0), 2.0)

    def test_a_log_that_raises_is_a_failure(self) -> None:
        self.log.append = lambda entry_id, body: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        self.add(7, "a")
        self.acceptance.flush()
        self.assertEqual(self.peer.sent[0]["code"], UNAVAILABLE.code)
        self.assertEqual(self.acceptance.batches_in_flight, 0)

    def test_a_log_that_fails_at_once(self) -> None:
        self.log.append = lambda entry_id, body: fail(LogUnavailable("full"))  # type: ignore[method-assign]
        self.add(7, "a")
        self.acceptance.flush()
        self.assertEqual(self.peer.sent[0]["error"], UNAVAILABLE.text)

    def test_duplicate_of_one_in_flight_waits_for_its_fate(self) -> None:
        """K-47: a nonce is neither used nor free while its batch is on its way."""
        other = Peer(self.clock)
        self.add(1, "a")
        serial = self.peer.context.nonces.used["a"]
        self.assertTrue(self.acceptance.await_verdict(other, 9, serial))  # type: ignore[arg-type]
        self.acceptance.flush()
        self.assertTrue(self.acceptance.await_verdict(other, 10, serial))  # type: ignore[arg-type]
        self.assertEqual(other.sent, [])
        self.log.decide()
        self.assertEqual([(m["id"], m["error"]) for m in other.sent], [
            (9, DUPLICATE.text), (10, DUPLICATE.text),
        ])  # fmt: skip
        self.assertFalse(self.acceptance.await_verdict(other, 11, serial))  # type: ignore[arg-type]

    def test_duplicate_of_one_that_failed_may_be_sent_again(self) -> None:
        other = Peer(self.clock)
        self.add(1, "a")
        serial = self.peer.context.nonces.used["a"]
        self.acceptance.await_verdict(other, 9, serial)  # type: ignore[arg-type]
        self.acceptance.flush()
        self.log.decide(LogUnavailable("disk full"))
        self.assertEqual(other.sent[0]["error"], UNAVAILABLE.text)

    def test_a_notification_is_counted_and_not_answered(self) -> None:
        self.acceptance.add(self.peer, None, self.job, "a")  # type: ignore[arg-type]
        self.acceptance.flush()
        self.log.decide()
        self.assertEqual((self.peer.sent, self.acceptance.accepted), ([], 1))

    def test_a_refused_notification_is_not_answered(self) -> None:
        """K-04: nor is a duplicate of it."""
        other = Peer(self.clock)
        self.acceptance.add(self.peer, None, self.job, "a")  # type: ignore[arg-type]
        self.acceptance.await_verdict(other, None, self.peer.context.nonces.used["a"])  # type: ignore[arg-type]
        self.acceptance.flush()
        self.log.decide(LogUnavailable("disk full"))
        self.assertEqual((self.peer.sent, other.sent), ([], []))
        self.assertEqual(self.acceptance.rejections.outcomes, {UNAVAILABLE.text: 2})


class BoundTests(AcceptanceCase):
    """K-83: what the log does not take is refused, not gathered without end."""

    def test_refuses_beyond_the_batches_in_flight(self) -> None:
        self.acceptance = self.make(in_flight=2, size=1)
        self.assertTrue(self.add(1, "a"))
        self.assertTrue(self.add(2, "b"))
        self.assertFalse(self.add(3, "c"))
        self.assertNotIn("c", self.peer.context.nonces.used)
        self.log.decide()
        self.assertTrue(self.add(4, "c"))


class UnansweredTests(AcceptanceCase):
    """Issue 11, point 4: a log that answers nothing for 2 s lets nobody wait for ever."""

    def fill(self, count: int) -> None:
        for number in range(count):
            self.add(number, f"n{number}")
            self.clock.advance(0.005)
        self.assertEqual(len(self.log.appended), count)

    def test_held_back_for_two_seconds_at_the_most(self) -> None:
        """A batch that waits for the log to become faster goes when the log is not slow but
        silent, and so do those after it, until no more may be on their way.
        """
        self.acceptance = self.make(pipeline=2, in_flight=4)
        self.fill(2)
        self.add(2, "c")
        self.clock.advance(1.9)
        self.assertEqual(len(self.log.appended), 2)
        self.clock.advance(0.1)
        self.assertEqual(len(self.log.appended), 3)
        self.assertTrue(self.add(3, "d"))
        self.clock.advance(0.005)
        self.assertEqual(len(self.log.appended), 4)
        self.assertTrue(self.acceptance.used_up)
        self.assertFalse(self.add(4, "e"))
        self.assertNotIn("e", self.peer.context.nonces.used)
        self.log.decide()
        self.assertFalse(self.acceptance.used_up)
        self.assertTrue(self.add(5, "e"))

    def test_two_seconds_exactly(self) -> None:
        self.acceptance = self.make(pipeline=1, in_flight=4, delay=0.25)
        self.add(1, "a")
        self.clock.advance(0.25)
        self.add(2, "b")
        self.clock.advance(0.25)
        for now, batches in ((2.125, 1), (2.25, 2)):
            self.clock.rightNow = now
            self.turn()
            self.assertEqual(len(self.log.appended), batches)

    def test_slow_again(self) -> None:
        """Once the silence is over, batches gather as before."""
        self.acceptance = self.make(pipeline=2, in_flight=9)
        self.fill(2)
        self.add(2, "c")
        self.clock.advance(1.9)
        self.log.decide()  # "c" goes now: that it waited does not make the log silent
        self.add(3, "d")
        self.clock.advance(0.05)
        self.log.decide()
        self.add(4, "e")
        self.acceptance.flush()
        self.add(5, "f")
        self.clock.advance(1.9)
        self.assertEqual(len(self.log.appended), 3)
        self.clock.advance(0.1)
        self.assertEqual(len(self.log.appended), 4)

    def test_the_age_of_the_oldest(self) -> None:
        self.assertEqual(self.acceptance.unanswered, 0.0)
        self.add(1, "a")
        self.clock.advance(0.005)
        self.assertEqual(self.acceptance.unanswered, 0.0)
        self.clock.advance(2.0)
        self.add(2, "b")
        self.acceptance.flush()
        self.assertAlmostEqual(self.acceptance.unanswered, 2.0)
        self.log.decide()
        self.clock.advance(1.0)
        self.assertAlmostEqual(self.acceptance.unanswered, 1.0)
        self.log.decide(LogUnavailable("no"))
        self.assertEqual(self.acceptance.unanswered, 0.0)

    def test_leaves_no_timer_behind(self) -> None:
        self.acceptance = self.make(pipeline=1, in_flight=3)
        self.fill(1)
        self.add(1, "b")
        self.clock.advance(0.005)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.log.decide()
        self.log.decide()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SettlingTests(AcceptanceCase):
    """K-85: what was heard becomes durable and is answered before the end."""

    def test_settle_waits_for_every_batch(self) -> None:
        self.add(1, "a")
        self.acceptance.flush()
        self.add(2, "b")
        settled = self.acceptance.settle()
        assert settled is not None
        self.assertEqual(len(self.log.appended), 2)
        self.log.decide()
        self.assertNoResult(settled)
        self.log.decide(LogUnavailable("no"))
        self.assertIsNone(self.successResultOf(settled))

    def test_nothing_to_settle(self) -> None:
        self.assertIsNone(self.acceptance.settle())


class AnswerTimeTests(AcceptanceCase):
    """Issue 18, build 2: the time until the answer is measured now and then, not each time."""

    def setUp(self) -> None:
        super().setUp()
        self.times: list[float] = []
        self.acceptance.answered = self.times.append

    def batch(self, nonce: str, seconds: float, error: Exception | None = None) -> None:
        """Submit, and let the log take its time."""
        self.add(1, nonce)
        self.acceptance.flush()
        self.clock.advance(seconds)
        self.log.decide(error)

    def test_one_batch_of_a_moment(self) -> None:
        for number in range(5):
            self.batch(f"a{number}", SAMPLE / 4)
        self.assertEqual(len(self.times), 2)

    def test_slow_batches_are_not_missed(self) -> None:
        """Issue 18, build 2: while the log is slow, others begin and are measured as well."""
        for number in range(3):
            self.add(1, f"a{number}")
            self.acceptance.flush()
            self.clock.advance(SAMPLE)
        for _ in range(3):
            self.log.decide()
        for found, expected in zip(self.times, (3, 2, 1), strict=True):
            self.assertApproximates(found, expected * SAMPLE, 1e-9)

    def test_failed_batches_are_not_answers(self) -> None:
        self.batch("a", 1.0, LogUnavailable("no disk"))
        self.assertEqual(self.times, [])

    def test_counts_of_the_session(self) -> None:
        """A-53: what was not stored was rejected."""
        self.batch("a", 1.0)
        self.batch("b", 1.0, LogUnavailable("no disk"))
        session = self.peer.context
        self.assertEqual((session.accepted, session.rejected), (1, 1))
        self.assertIs(self.acceptance.undecided, False)
        self.add(1, "c")
        self.assertIs(self.acceptance.undecided, True)
