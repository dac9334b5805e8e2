"""A client's session over the connections it has, against a scripted server."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.client import (
    AlreadyConnected,
    NotAuthorized,
    PoolClient,
    PoolClientClosed,
    PoolClientSettings,
    PoolNotConnected,
    PoolUnreachable,
    SessionRefused,
    SubmissionAnswer,
    SubmissionOutcome,
    TooManyUnanswered,
)
from kupool.client.pool import MAX_MALFORMED
from kupool.client.submissions import RETRY_FIRST
from kupool.errors import CLOSE_REASONS
from kupool.net.dialling.backoff import SPREAD
from kupool.net.dialling.dialler import ClientState
from kupool.wire.framing import FRAMINGS, OP_CLOSE, OP_PING, OP_PONG, Control
from tests.fakes.client_script import ScriptedEndpoint, ScriptedTransport

NONCE, RESULT = "a" * 24, "0" * 64


class ClientCase(SynchronousTestCase):
    """A client on a fake clock; jitter is the whole of the backoff."""

    framing = "frame"

    def setUp(self) -> None:
        self.clock = Clock()
        self.here, self.there = ScriptedEndpoint(self.framing), ScriptedEndpoint(self.framing)
        self.events: list[Any] = []

    def make(self, *, both: bool = False, password: str | None = None, **settings: Any) -> None:
        servers = [self.here.server("here")] + ([self.there.server("there")] if both else [])
        self.client = PoolClient(
            self.clock,
            servers,
            "admin",
            password,
            framing=self.framing,
            settings=PoolClientSettings(**settings),
            random=lambda: 1.0,
            on_job=lambda job: self.events.append(("job", job.job_id, job.server_nonce)),
            on_connected=lambda name: self.events.append(("connected", name)),
            on_disconnected=lambda why: self.events.append(("disconnected", why)),
        )

    def ready(self, **settings: Any) -> ScriptedTransport:
        """Make a client that is authorized; returns its connection's other side."""
        self.make(**settings)
        connecting = self.client.connect()
        self.here.last.answer()
        self.successResultOf(connecting)
        return self.here.last

    def submit(self, nonce: str = NONCE) -> Deferred[SubmissionAnswer]:
        return self.client.submit(7, nonce, RESULT)

    def end(self) -> None:
        """Close the client, and see that nothing of it is left."""
        self.client.close()
        for endpoint in (self.here, self.there):
            for session in endpoint.sessions:
                session.drop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AuthorizeTests(ClientCase):
    """K-13, K-20, K-23: how a session begins."""

    def test_first_message(self) -> None:
        """K-13: the first frame is authorize, to the byte; ``true`` is the answer."""
        self.make()
        connecting = self.client.connect()
        body = b'{"id":1,"method":"authorize","params":{"username":"admin"}}'
        self.assertEqual(self.here.last.value(), b"\x02\x3b\x00\x00\x00" + body)
        self.here.last.answer()
        self.successResultOf(connecting)
        self.assertTrue(self.client.connected)
        self.assertEqual(self.events, [("connected", "here")])
        self.end()

    def test_password(self) -> None:
        """K-13: a password goes along, if there is one."""
        self.make(password="secret")
        self.client.connect().addErrback(lambda _: None)
        (request,) = self.here.last.heard()
        self.assertEqual(request["params"], {"username": "admin", "password": "secret"})
        self.end()

    def test_success_only_after_the_answer(self) -> None:
        """K-23: nothing is reported before the answer to authorize was read."""
        self.make()
        connecting = self.client.connect()
        self.assertNoResult(connecting)
        self.here.last.say({"id": None, "method": "job", "params": {}})
        self.here.last.say({"id": 99, "result": True})
        self.assertNoResult(connecting)
        self.assertFalse(self.client.connected)
        self.assertEqual(self.events, [])
        self.here.last.answer()
        self.successResultOf(connecting)
        self.end()

    def test_anything_but_true_is_a_failure_that_names_it(self) -> None:
        """K-23: the failure names what the server answered."""
        for reply, named in (
            ({"result": False, "error": "unauthorized", "code": 24}, "unauthorized"),
            (
                {"result": False, "error": "bad params: username", "code": 32},
                "bad params: username",
            ),
            ({"result": False}, "not answered with true"),
            ({"result": "true"}, "not answered with true"),
        ):
            self.make()
            connecting = self.client.connect()
            self.here.last.answer(**reply)  # type: ignore[arg-type]
            error = self.failureResultOf(connecting, NotAuthorized).value
            self.assertIn(named, str(error))
            self.assertIn("admin", str(error))
            self.assertTrue(self.here.last.gone)
            self.clock.advance(1000)
            self.assertEqual(self.here.attempts, 1)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.here.attempts = 0

    def test_a_close_instead_of_an_answer(self) -> None:
        """K-23: a close with ``unauthorized`` alone is a failure too."""
        self.make()
        connecting = self.client.connect()
        self.here.last.say_control(OP_CLOSE, b"unauthorized")
        error = self.failureResultOf(connecting, SessionRefused).value
        self.assertEqual((error.code, error.reason), (4500, "unauthorized"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_cannot_tell_is_tried_again(self) -> None:
        """K-23, K-62: ``Temporarily unavailable`` passes by itself."""
        self.make()
        connecting = self.client.connect()
        self.here.last.answer(False, error="Temporarily unavailable", code=27)
        self.assertNoResult(connecting)
        self.clock.advance(0.5)
        self.here.last.answer()
        self.successResultOf(connecting)
        self.end()

    def test_no_answer_in_time(self) -> None:
        """K-23, K-62: a server that does not answer authorize is left for the next."""
        self.make(both=True)
        connecting = self.client.connect()
        self.clock.advance(10.0)
        self.assertTrue(self.here.last.aborted)
        self.clock.advance(0.5)
        self.there.last.answer()
        self.successResultOf(connecting)
        self.end()

    def test_second_connect(self) -> None:
        """K-20: a second connect is refused, while connecting and while connected."""
        self.make()
        connecting = self.client.connect()
        for state in ("connecting", "connected"):
            error = self.failureResultOf(self.client.connect(), AlreadyConnected).value
            self.assertEqual(str(error), "client has connected", state)
            if state == "connecting":
                self.here.last.answer()
                self.successResultOf(connecting)
        self.assertEqual(self.here.attempts, 1)
        self.end()

    def test_connect_again_after_close(self) -> None:
        """K-20: what was closed may connect again."""
        self.ready()
        self.end()
        connecting = self.client.connect()
        self.here.last.answer()
        self.successResultOf(connecting)
        self.end()

    def test_bad_arguments(self) -> None:
        self.assertRaises(ValueError, PoolClient, self.clock, [], "admin")
        self.assertRaises(
            ValueError, PoolClient, self.clock, [self.here.server()], "a", framing="tlv"
        )
        self.assertRaises(ValueError, PoolClient, self.clock, ["nonsense"], "a")


class ReconnectTests(ClientCase):
    """K-62: coming back, and where to."""

    def test_backoff_until_a_server_is_there(self) -> None:
        """K-62: attempts go on with growing waits, on one server after the other."""
        self.here.mood = self.there.mood = "refuse"
        self.make(both=True)
        connecting = self.client.connect()
        for wait, attempts in ((0.5, (1, 1)), (0.5, (2, 1)), (1.0, (2, 2)), (1.0, (3, 2))):
            self.clock.advance(wait - 0.01)
            self.assertNotEqual((self.here.attempts, self.there.attempts), attempts)
            self.clock.advance(0.01)
            self.assertEqual((self.here.attempts, self.there.attempts), attempts)
        self.there.mood = "accept"
        self.clock.advance(2.0)
        self.there.last.answer()
        self.successResultOf(connecting)
        self.assertEqual(self.events, [("connected", "there")])
        self.end()

    def test_an_endpoint_that_hangs(self) -> None:
        """K-62: an attempt that takes too long is a failed one."""
        self.here.mood = "hang"
        self.make(both=True)
        self.client.connect()
        self.clock.advance(10.0)
        self.assertEqual(self.here.cancelled, 1)
        self.clock.advance(0.5)
        self.there.last.answer()
        self.assertTrue(self.client.connected)
        self.end()

    def test_the_number_of_attempts_may_be_bounded(self) -> None:
        self.here.mood = "refuse"
        self.make(max_attempts=3)
        connecting = self.client.connect()
        self.clock.pump([0.5, 1.0])
        error = self.failureResultOf(connecting, PoolUnreachable).value
        self.assertIn("3 attempts", str(error))
        self.assertIn("refused", str(error))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_lost_connection_is_authorized_again(self) -> None:
        """K-62: after a loss the client connects, authorizes and has the new job."""
        session = self.ready()
        job = {"id": None, "method": "job", "params": {"job_id": 1, "server_nonce": "ab"}}
        session.say(job)
        session.drop()
        self.assertFalse(self.client.connected)
        self.assertIsNone(self.client.job)
        self.clock.advance(0.5)
        request = self.here.last.answer()
        self.assertEqual(request["method"], "authorize")
        job["params"] = {"job_id": 2, "server_nonce": "cd"}
        self.here.last.say(job)
        self.assertEqual(
            self.events,
            [
                ("connected", "here"),
                ("job", 1, "ab"),
                ("disconnected", "the server ended the connection"),
                ("connected", "here"),
                ("job", 2, "cd"),
            ],
        )
        self.assertEqual(self.client.counters["reconnects"], 1)
        self.end()

    def test_every_close_code(self) -> None:
        """K-62: 4000 and 4001 at once, 41xx with backoff, 45xx never by itself."""
        for row in CLOSE_REASONS:
            self.setUp()
            session = self.ready(both=True)
            self.clock.advance(20.0)
            stopped = self.client.when_stopped()
            session.say_control(OP_CLOSE, row.reason.encode())
            if row.immediate:
                self.assertEqual((self.here.attempts, self.there.attempts), (1, 0))
                self.clock.advance(SPREAD)
            attempts = (self.here.attempts, self.there.attempts)
            if row.code == 4000:
                self.assertEqual(attempts, (1, 1))
            elif row.code == 4001:
                self.assertEqual(attempts, (2, 0))
            elif row.reconnect:
                self.assertEqual(attempts, (1, 0))
                self.clock.advance(0.5)
                self.assertEqual(self.here.attempts + self.there.attempts, 2)
            else:
                error = self.failureResultOf(stopped, SessionRefused).value
                self.assertEqual((error.reason, error.code), (row.reason, row.code))
                self.clock.advance(10_000)
                self.assertEqual((self.here.attempts, self.there.attempts), (1, 0))
                self.assertIn(("disconnected", row.reason), self.events)
                self.assertFalse(self.client.connected)
                continue
            self.assertNoResult(stopped)
            self.end()
            self.successResultOf(stopped)

    def test_4001_again_and_again_is_no_hot_loop(self) -> None:
        """K-62: a server that restarts for ever is not met with a storm."""
        self.make()
        self.client.connect().addErrback(lambda _: None)
        for _ in range(200):
            if not self.here.last.gone:
                self.here.last.answer()
                self.here.last.say_control(OP_CLOSE, b"server restarting")
            self.clock.advance(0.1)
        self.assertLess(self.here.attempts, 12)
        self.end()

    def test_a_hook_that_fails_breaks_nothing(self) -> None:
        self.make()
        self.client.on_connected = lambda name: 1 / 0
        connecting = self.client.connect()
        self.here.last.answer()
        self.successResultOf(connecting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.end()

    def test_hooks_that_fail_or_take_time(self) -> None:
        """Issue 12: a hook may be a coroutine; what it raises is its failure alone."""
        errors = (ZeroDivisionError, SystemExit, KeyboardInterrupt, CancelledError)
        job = {"id": None, "method": "job", "params": {"job_id": 1, "server_nonce": "ab"}}
        for error in errors:
            self.setUp()
            ran: list[str] = []

            async def later(what: object, error: Any = error, ran: list[str] = ran) -> None:
                ran.append("later")
                raise error

            def now(what: object, error: Any = error, ran: list[str] = ran) -> None:
                ran.append("now")
                raise error

            session = self.ready()
            for hook in (now, later):
                self.client.on_job = self.client.on_disconnected = hook
                self.client.on_connected = hook
                session.say(job)
                session.drop()
                self.clock.advance(1.0)
                session = self.here.last
                session.answer()
                self.assertTrue(self.client.connected)
            self.assertEqual(ran, ["now"] * 3 + ["later"] * 3)
            self.assertEqual(len(self.flushLoggedErrors(error)), 6)
            self.client.on_disconnected = None
            self.end()

    def test_a_client_that_is_not_wanted_says_so(self) -> None:
        """Issue 12: a state, an event with the code, and the code in later errors."""
        told: list[Exception] = []
        session = self.ready()

        async def gone(why: Exception) -> None:
            told.append(why)

        self.client.on_gone = gone
        session.say_control(OP_CLOSE, b"banned")
        (error,) = told
        assert isinstance(error, SessionRefused)
        self.assertEqual(error.code, 4503)
        self.assertIs(self.client.state, ClientState.GONE)
        self.assertIs(self.client.refusal, error)
        later = self.failureResultOf(self.submit(), SessionRefused).value
        self.assertIn("banned (4503)", str(later))
        connecting = self.client.connect()
        self.here.last.answer()
        self.successResultOf(connecting)
        self.assertIsNone(self.client.refusal)
        self.end()

    def test_too_much_that_is_no_message(self) -> None:
        """K-61: it is counted, and too much ends the connection."""
        session = self.ready()
        for _ in range(MAX_MALFORMED - 1):
            session.say(b"[1]")
        self.assertFalse(session.gone)
        session.say(b"{")
        self.assertTrue(session.aborted)
        self.assertIn("cannot be read", self.client.problem)
        self.end()

    def test_requests_of_the_server(self) -> None:
        """Protocol 2: a method that is not known here is answered so."""
        session = self.ready()
        session.say({"id": "b", "method": "call", "params": {"topic": "x"}})
        self.assertEqual(
            session.heard(), [{"id": "b", "result": False, "error": "unknown method", "code": 31}]
        )
        self.end()


class TextFramingTests(ClientCase):
    """The close notification of ``int32`` and ``line``."""

    framing = "line"

    def test_banned_for_a_time(self) -> None:
        """K-62: 4503 with the time named: the client comes back after it, not before."""
        session = self.ready()
        params = {"reason": "banned", "code": 4503, "reconnect": False, "retry_after": 60}
        session.say({"id": None, "method": "close", "params": params})
        self.clock.advance(59.9)
        self.assertEqual(self.here.attempts, 1)
        self.clock.advance(0.6)
        self.assertEqual(self.here.attempts, 2)
        self.end()

    def test_banned_for_good(self) -> None:
        session = self.ready()
        stopped = self.client.when_stopped()
        params = {"reason": "banned", "code": 4503, "reconnect": False}
        session.say({"id": None, "method": "close", "params": params})
        self.failureResultOf(stopped, SessionRefused)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ping_is_a_method(self) -> None:
        """K-63: without opcodes the heartbeat is the method ping, and its answer is known."""
        session = self.ready()
        self.clock.pump([15.0, 15.0, 15.0, 10.0])
        (ping,) = session.heard()
        self.assertEqual((ping["method"], type(ping["id"])), ("ping", int))
        session.say({"id": ping["id"], "result": True})
        self.assertEqual(self.client.counters["unknown replies"], 0)
        self.end()


class HeartbeatTests(ClientCase):
    """K-63: signs of life."""

    def test_a_ping_every_55_seconds(self) -> None:
        """K-63: pings leave 55 s and 110 s after authorize."""
        session = self.ready()
        self.pump(54.875)
        self.assertEqual(session.heard(), [])
        self.pump(0.125)
        self.assertEqual(session.heard(), [Control(OP_PING, b"")])
        session.say_control(OP_PONG)
        self.pump(55.0)
        self.assertEqual(session.heard(), [Control(OP_PING, b"")])
        self.end()

    def pump(self, seconds: float) -> None:
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)  # which sums up exactly

    def test_180_seconds_of_silence(self) -> None:
        """K-63: silent for 180 s is dead: the client leaves and comes back."""
        session = self.ready()
        self.pump(179.875)
        self.assertFalse(session.gone)
        self.pump(0.125)
        self.assertTrue(session.aborted)
        self.assertIn(("disconnected", "the server was silent for 180 s"), self.events)
        self.pump(0.5)
        self.assertEqual(self.here.attempts, 2)
        self.end()

    def test_anything_heard_counts(self) -> None:
        """K-63: silence begins anew with whatever is heard."""
        session = self.ready()
        for _ in range(5):
            self.pump(170.0)
            session.say_control(OP_PONG)
        self.assertFalse(session.gone)
        self.end()

    def test_an_answer_that_never_comes(self) -> None:
        """A server that pongs but owes an answer is left, and asked again elsewhere."""
        session = self.ready(both=True, answer_timeout=30.0)
        answered = self.submit()
        for _ in range(5):
            self.pump(5.0)
            session.say_control(OP_PONG)
        self.assertFalse(session.gone)
        self.pump(5.0)
        self.assertTrue(session.aborted)
        self.pump(0.5)
        self.there.last.answer()
        request = self.there.last.answer()
        self.assertEqual(request["params"]["client_nonce"], NONCE)
        self.assertTrue(self.successResultOf(answered).accepted)
        self.end()


class SubmissionTests(ClientCase):
    """K-61, K-62: each submission gets its own answer, once."""

    def test_message(self) -> None:
        session = self.ready()
        self.submit().addErrback(lambda _: None)
        (request,) = session.heard()
        self.assertEqual(request["method"], "submit")
        self.assertEqual(request["params"], {"job_id": 7, "client_nonce": NONCE, "result": RESULT})
        self.end()

    @given(st.permutations(range(6)))
    def test_answers_are_matched_by_id(self, order: list[int]) -> None:
        """K-61: in whatever order replies come, each reaches its own submission."""
        texts = [
            None,
            "Task does not exist",
            "Duplicate submission",
            "Invalid result",
            "Task expired",
            "Submission too frequent",
        ]
        self.setUp()
        session = self.ready()
        answers = [self.submit(f"nonce{n}") for n in range(6)]
        ids = [request["id"] for request in session.heard()]
        self.assertEqual(len(set(ids)), 6)
        for n in order:
            text = texts[n]
            if text is None:
                session.say({"id": ids[n], "result": True})
            else:
                session.say({"id": ids[n], "result": False, "error": text})
        found = [self.successResultOf(answer) for answer in answers]
        self.assertEqual([a.text or None for a in found], texts)
        self.assertEqual(
            [a.outcome for a in found],
            [
                SubmissionOutcome.ACCEPTED,
                SubmissionOutcome.STALE,
                SubmissionOutcome.DUPLICATE,
                SubmissionOutcome.INVALID,
                SubmissionOutcome.EXPIRED,
                SubmissionOutcome.TOO_FREQUENT,
            ],
        )
        for outcome in {a.outcome for a in found}:
            self.assertEqual(self.client.counters[outcome.value], 1)
        self.end()

    def test_unknown_ids_are_counted(self) -> None:
        """K-61: a reply to nothing is counted and changes nothing."""
        session = self.ready()
        answered = self.submit()
        (request,) = session.heard()
        session.say({"id": 4242, "result": True}, {"id": str(request["id"]), "result": True})
        self.assertNoResult(answered)
        session.say({"id": request["id"], "result": True}, {"id": request["id"], "result": True})
        self.assertTrue(self.successResultOf(answered).accepted)
        self.assertEqual(self.client.counters["unknown replies"], 3)
        self.assertEqual(self.client.counters["accepted"], 1)
        self.end()

    def test_errors_are_logged_with_their_text(self) -> None:
        """K-61: what the server says of a refused submission is in the log."""
        session = self.ready()
        self.submit()
        with capturedLogs() as events:
            session.answer(False, error="Invalid result", code=23)
        (event,) = [e for e in events if e["log_level"] is LogLevel.warn]
        self.assertEqual((event["text"], event["code"]), ("Invalid result", 23))
        self.end()

    def test_resubmission_after_a_lost_connection(self) -> None:
        """K-62: what was unanswered goes out again with the same nonce, in order."""
        session = self.ready()
        answers = [self.submit(f"nonce{n}") for n in range(3)]
        sent = session.heard()
        session.say({"id": sent[1]["id"], "result": True})
        session.drop()
        self.clock.advance(0.5)
        self.here.last.answer()
        again = self.here.last.heard()
        self.assertEqual([r["params"] for r in again], [sent[0]["params"], sent[2]["params"]])
        self.assertFalse({r["id"] for r in again} & {r["id"] for r in sent})
        for request in again:
            self.here.last.say({"id": request["id"], "result": True})
        found = [self.successResultOf(answer) for answer in answers]
        self.assertEqual([a.resubmitted for a in found], [True, False, True])
        self.assertTrue(all(a.accepted for a in found))
        self.assertEqual(self.client.counters["resubmitted"], 2)
        self.end()

    def test_duplicate_on_a_resubmission_means_counted(self) -> None:
        """K-62: ``Duplicate submission`` to a resubmission is an acceptance."""
        session = self.ready()
        answered = self.submit()
        session.drop()
        self.clock.advance(0.5)
        self.here.last.answer()
        self.here.last.answer(False, error="Duplicate submission", code=22)
        answer = self.successResultOf(answered)
        self.assertTrue(answer.accepted)
        self.assertTrue(answer.resubmitted)
        self.assertEqual(self.client.counters["accepted"], 1)
        self.assertEqual(self.client.counters["duplicate"], 0)
        self.end()

    def test_duplicate_otherwise_is_a_refusal(self) -> None:
        """A retry after an answer is no resubmission: a duplicate then is another's."""
        session = self.ready()
        first, second = self.submit("a"), self.submit("b")
        sent = session.heard()
        session.say({"id": sent[0]["id"], "result": False, "error": "Duplicate submission"})
        self.assertIs(self.successResultOf(first).outcome, SubmissionOutcome.DUPLICATE)
        session.say({"id": sent[1]["id"], "result": False, "error": "Temporarily unavailable"})
        self.clock.advance(RETRY_FIRST + 1.0)
        session.answer(False, error="Duplicate submission")
        self.assertIs(self.successResultOf(second).outcome, SubmissionOutcome.DUPLICATE)
        self.end()

    def test_too_frequent_on_a_resubmission_is_retried(self) -> None:
        """K-62: the second of two resubmissions waits for its turn."""
        session = self.ready()
        answered = self.submit()
        session.drop()
        self.clock.advance(0.5)
        self.here.last.answer()
        self.here.last.answer(False, error="Submission too frequent", code=26)
        self.assertNoResult(answered)
        self.clock.advance(1.0)
        self.assertEqual(self.here.last.heard(), [])
        self.clock.advance(RETRY_FIRST)
        request = self.here.last.answer()
        self.assertEqual(request["params"]["client_nonce"], NONCE)
        self.assertTrue(self.successResultOf(answered).accepted)
        self.assertEqual(self.client.counters["too frequent"], 0)
        self.end()

    def test_too_frequent_at_first_is_told(self) -> None:
        session = self.ready()
        answered = self.submit()
        session.answer(False, error="Submission too frequent", code=26)
        self.assertIs(self.successResultOf(answered).outcome, SubmissionOutcome.TOO_FREQUENT)
        self.end()

    def test_unavailable_is_retried_a_bounded_number_of_times(self) -> None:
        """``Temporarily unavailable`` is retried with growing waits, then told."""
        session = self.ready(retries=3)
        answered = self.submit()
        for wait in (1.0, 2.0, 4.0):
            request = session.answer(False, error="Temporarily unavailable", code=27)
            self.assertEqual(request["params"]["client_nonce"], NONCE)
            self.assertNoResult(answered)
            self.clock.advance(RETRY_FIRST + wait - 0.01)
            self.assertEqual(session.value(), b"")
            self.clock.advance(0.02)
        session.answer(False, error="Temporarily unavailable", code=27)
        self.assertIs(self.successResultOf(answered).outcome, SubmissionOutcome.UNAVAILABLE)
        self.assertEqual(self.client.counters["retried"], 3)
        self.end()

    def test_unavailable_for_hours(self) -> None:
        """K-62: however many tries are allowed, each of them is made."""
        session = self.ready(retries=1100, backoff_most=0.5, ping_interval=0.0, silence_timeout=0.0)
        answered = self.submit()
        for _ in range(1100):
            session.answer(False, error="Temporarily unavailable", code=27)
            self.clock.advance(RETRY_FIRST + 0.5)
        session.answer()
        self.assertTrue(self.successResultOf(answered).accepted)
        self.assertEqual(self.client.counters["retried"], 1100)
        self.end()

    def test_unanswered_submissions_are_bounded(self) -> None:
        """Beyond the bound a submission fails at once, and says why."""
        session = self.ready(max_unanswered=2)
        for nonce in ("a", "b"):
            self.submit(nonce).addErrback(lambda _: None)
        error = self.failureResultOf(self.submit("c"), TooManyUnanswered).value
        self.assertIn("2 submissions are unanswered", str(error))
        session.drop()
        self.failureResultOf(self.submit("c"), TooManyUnanswered)
        self.assertEqual(self.client.unanswered, 2)
        self.end()

    def test_between_two_connections(self) -> None:
        """What is submitted meanwhile goes out on the next connection, as a first one."""
        session = self.ready()
        session.drop()
        answered = self.submit()
        self.clock.advance(0.5)
        self.here.last.answer()
        self.here.last.answer(False, error="Duplicate submission")
        self.assertEqual(
            self.successResultOf(answered),
            SubmissionAnswer(SubmissionOutcome.DUPLICATE, "Duplicate submission", 22),
        )
        self.end()

    def test_a_retry_that_waits_when_the_connection_goes(self) -> None:
        session = self.ready()
        answered = self.submit()
        session.answer(False, error="Temporarily unavailable", code=27)
        session.drop()
        self.clock.advance(0.5)
        self.here.last.answer()
        self.clock.advance(2.0)
        self.here.last.answer()
        self.assertTrue(self.successResultOf(answered).accepted)
        self.end()

    def test_cancelled(self) -> None:
        """A submission that nobody waits for is not sent again."""
        session = self.ready()
        answered = self.submit()
        answered.cancel()
        self.failureResultOf(answered, CancelledError)
        session.drop()
        self.clock.advance(0.5)
        self.here.last.answer()
        self.assertEqual(self.here.last.heard(), [])
        self.assertEqual(self.client.unanswered, 0)
        self.end()

    def test_not_connected(self) -> None:
        self.make()
        self.failureResultOf(self.submit(), PoolNotConnected)


class CloseTests(ClientCase):
    """K-64: the end."""

    def test_close(self) -> None:
        """K-64: OpClose is sent; close() fires when the socket is closed, not before."""
        session = self.ready()
        closed = self.client.close()
        self.assertEqual(session.heard(), [Control(OP_CLOSE, b"")])
        self.assertNoResult(closed)
        session.drop()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.here.attempts, 1)

    def test_a_server_that_does_not_react(self) -> None:
        """K-64: within 2 s it is over all the same."""
        session = self.ready()
        session.deaf = True
        closed = self.client.close()
        for _ in range(15):
            self.clock.advance(0.1)
        self.successResultOf(closed)
        self.assertTrue(session.gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_until_the_end_are_taken(self) -> None:
        """What the server still answers counts; the rest fails with a clear error."""
        session = self.ready()
        first, second = self.submit("a"), self.submit("b")
        sent = session.heard()
        self.client.close()
        session.say({"id": sent[0]["id"], "result": True})
        self.assertTrue(self.successResultOf(first).accepted)
        self.assertNoResult(second)
        session.drop()
        error = self.failureResultOf(second, PoolClientClosed).value
        self.assertEqual(str(error), "client was closed")
        self.failureResultOf(self.submit("c"), PoolNotConnected)

    def test_close_at_any_time(self) -> None:
        """Whatever the client is doing, close ends it and leaves nothing behind."""

        def dialling() -> None:
            self.here.mood = "hang"

        def authorizing() -> None:
            self.here.mood = "accept"

        def waiting() -> None:
            self.here.mood = "refuse"

        for prepare in (dialling, authorizing, waiting):
            self.setUp()
            prepare()
            self.make()
            connecting = self.client.connect()
            submitted = self.submit()
            stopped = self.client.when_stopped()
            first, second = self.client.close(), self.client.close()
            for session in self.here.sessions:
                session.drop()
            for closed in (first, second, stopped):
                self.successResultOf(closed)
            self.failureResultOf(connecting, PoolClientClosed)
            self.failureResultOf(submitted, PoolClientClosed)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_of_what_never_began(self) -> None:
        self.make()
        self.successResultOf(self.client.close())
        self.successResultOf(self.client.when_stopped())

    def test_cancelling_connect_closes(self) -> None:
        self.here.mood = "hang"
        self.make()
        connecting = self.client.connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.here.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_from_a_hook(self) -> None:
        """A client may be closed by what it calls."""
        self.make()
        self.client.on_connected = lambda name: self.client.close()
        self.client.connect().addErrback(lambda _: None)
        self.here.last.answer()
        self.assertIn(Control(OP_CLOSE, b""), self.here.last.heard())
        self.here.last.drop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_error_ends_what_waits(self) -> None:
        """A client that is refused fails what waits for answers with that."""
        session = self.ready()
        answered = self.submit()
        session.say_control(OP_CLOSE, b"too many errors")
        self.failureResultOf(answered, SessionRefused)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AnyServerTests(ClientCase):
    """Whatever a server does, every submission gets exactly one answer."""

    @given(
        st.sampled_from(sorted(FRAMINGS)),
        st.lists(
            st.sampled_from(
                ["submit", "true", "duplicate", "frequent", "unavailable", "drop", "tick", "ping"]
            ),
            max_size=40,
        ),
    )
    def test_any_conversation(self, framing: str, script: list[str]) -> None:
        """K-61, K-62: no answer is lost and none is given twice, in any order of events."""
        self.framing = framing
        self.setUp()
        self.ready()
        results: list[SubmissionAnswer | Failure] = []
        owed: list[int] = []
        submitted = 0
        for step in script:
            if step == "submit":
                submitted += 1
                self.submit(f"nonce{submitted}").addBoth(results.append)
            elif step == "drop":
                self.here.last.drop()
                owed.clear()
            elif step == "tick":
                self.clock.advance(2.0)
            elif step == "ping" and not self.here.last.gone:
                self.here.last.say({"id": "x", "method": "ping"})
            self.listen(owed)
            if step in self.replies and owed:
                self.here.last.say({"id": owed.pop(0), **self.replies[step]})
        self.assertEqual(len(results) + self.client.unanswered, submitted)
        self.end()
        self.assertEqual(len(results), submitted)

    replies: ClassVar[dict[str, dict[str, Any]]] = {
        "true": {"result": True},
        "duplicate": {"result": False, "error": "Duplicate submission"},
        "frequent": {"result": False, "error": "Submission too frequent"},
        "unavailable": {"result": False, "error": "Temporarily unavailable"},
    }

    def listen(self, owed: list[int]) -> None:
        """Let the client in, and note what it submitted."""
        session = self.here.last
        for _ in range(2):
            for request in [] if session.gone else session.heard():
                if not isinstance(request, dict):
                    continue
                if request.get("method") == "authorize":
                    session.say({"id": request["id"], "result": True})
                elif request.get("method") == "submit":
                    owed.append(request["id"])
