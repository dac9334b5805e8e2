"""Submissions from the bytes that come in to the bytes that go out."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.log.memory import ENTRY_BYTES, MemoryLog
from kupool.net.transport.proxied import TrustedProxies
from kupool.pool import judge as judge_module
from kupool.pool import tally
from kupool.pool.acceptance import BatchSettings
from kupool.pool.handlers import AttemptSettings
from kupool.pool.judge import Rules
from kupool.pool.pool import SessionSettings
from kupool.settings.declaration import RateSettings
from kupool.wire.batches import Rejection, decode_batch
from tests.fakes.pool_fixture import FRAME, WALL, HeldLog, Peer, PoolBench, encode_frame

ACCEPTED = {"result": True}
UNKNOWN = {"result": False, "error": "Task does not exist", "code": 21}
DUPLICATE = {"result": False, "error": "Duplicate submission", "code": 22}
INVALID = {"result": False, "error": "Invalid result", "code": 23}
EXPIRED = {"result": False, "error": "Task expired", "code": 25}
FREQUENT = {"result": False, "error": "Submission too frequent", "code": 26}
UNAVAILABLE = {"result": False, "error": "Temporarily unavailable", "code": 27}

NO_WINDOW = Rules(0, 0)
NO_ATTEMPTS = AttemptSettings(rate=0, ban_score=0)


def outcome(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "id"}


class DefaultTests(SynchronousTestCase):
    """Issue 14: without settings it does what the table of settings says."""

    def test_defaults(self) -> None:
        rates = RateSettings()
        declared = AttemptSettings(
            rates.attempts_rate,
            rates.attempts_burst,
            rates.ban_score,
            rates.ban_time,
            rates.attempts_pause,
        )
        self.assertEqual(AttemptSettings(), declared)


class Case(SynchronousTestCase):
    def check(self, answer: dict[str, Any], expected: dict[str, Any]) -> None:
        self.assertEqual(outcome(answer), expected)

    def use(self, **settings: Any) -> Peer:
        self.bench = PoolBench(**settings).start()
        return self.bench.connect().authorize()


class RejectedTrafficTests(Case):
    """Issue 15, build 5: rejected submissions never make others' jobs retire early."""

    def test_only_accepted_submissions_are_remembered(self) -> None:
        """Neither the nonces nor the names of rejected submissions count for max_nonces."""
        alice = self.use(max_nonces=10, rules=NO_WINDOW, attempts=NO_ATTEMPTS)
        self.check(alice.submit("n"), ACCEPTED)
        remembered = self.bench.book.remembered
        for number in range(20):
            peer = self.bench.connect().authorize(f"name{number}")
            self.check(peer.submit("n", result="0" * 64), INVALID)
            self.check(peer.submit("n", job_id=999), UNKNOWN)
            self.check(alice.submit("n"), DUPLICATE)
        self.assertEqual(self.bench.book.remembered, remembered)
        self.assertFalse(self.bench.book.over_limit)
        self.bench.coordinator.relieve()
        self.assertEqual(self.bench.book.retired_early, 0)
        self.check(alice.submit("m"), ACCEPTED)

    def test_a_duplicate_is_one_in_every_session_of_the_name(self) -> None:
        """K-42: also where each of them was rejected for the job before."""
        one = self.use(rules=NO_WINDOW, attempts=NO_ATTEMPTS)
        other = self.bench.connect().authorize("alice.other")
        for peer in (one, other):
            self.check(peer.submit("n", result="0" * 64), INVALID)
        self.check(one.submit("n"), ACCEPTED)
        self.check(other.submit("n"), DUPLICATE)
        self.check(other.submit("m"), ACCEPTED)
        self.check(one.submit("m"), DUPLICATE)


class SubmitTests(Case):
    """K-37 to K-43: the five verdicts on the wire."""

    def test_vector(self) -> None:
        """K-37, K-38: the vector of the protocol, byte for byte in `frame`."""
        bench = PoolBench(random_hex=lambda size: "123").start()
        peer = bench.connect(FRAME).authorize("admin")
        job = bench.book.current
        assert job is not None
        peer.send_bytes(
            encode_frame(
                b'{"id":2,"method":"submit","params":{"job_id":%d,"client_nonce":"456",'
                b'"result":"8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92"}}'
                % job.job_id
            )
        )
        bench.settle()
        self.assertEqual(peer.raw(), encode_frame(b'{"id":2,"result":true}'))

    def test_reason_on_the_wire(self) -> None:
        """K-39: text and code in full."""
        peer = self.use()
        peer.send(peer.submission("a", result="0" * 64, message_id=9))
        self.bench.settle()
        self.assertEqual(
            peer.raw(), b'{"id":9,"result":false,"error":"Invalid result","code":23}\n'
        )

    def test_unknown_job(self) -> None:
        """K-41: a job that never was, or has left the history."""
        peer = self.use(window=60.0)
        first = dict(peer.job or {})
        for job_id in (0, -1, 10**30, first["job_id"] + 1):
            self.check(peer.submit("a", job_id=job_id), UNKNOWN)
        for turn in range(1, 5):
            self.bench.at(30.0 * turn)
        self.check(peer.submit("a", **first), UNKNOWN)

    def test_old_job(self) -> None:
        """K-42, K-30: a job in the history is judged by its own nonce and counted; the
        current one is what it was.
        """
        peer = self.use()
        first = dict(peer.job or {})
        self.bench.at(30.0)
        peer.hear()
        self.assertNotEqual(peer.job, first)
        self.check(peer.submit("a", **first), ACCEPTED)
        self.bench.at(40.0)
        self.check(peer.submit("b"), ACCEPTED)
        self.bench.at(50.0)
        self.check(peer.submit("c"), ACCEPTED)
        self.assertEqual(self.bench.acceptance.accepted, 3)

    def test_old_hash_for_the_new_job(self) -> None:
        peer = self.use()
        first = dict(peer.job or {})
        self.bench.at(30.0)
        peer.hear()
        self.check(peer.submit("a", server_nonce=first["server_nonce"]), INVALID)

    def test_expiry(self) -> None:
        """K-43: with an expiry the current job expires too; 0 turns it off."""
        peer = self.use(rules=Rules(0.5, 1.0))
        self.bench.at(0.4)
        self.check(peer.submit("a"), ACCEPTED)
        self.bench.at(2.0)
        self.check(peer.submit("b"), EXPIRED)
        self.bench.handlers.rules = Rules(0, 1.0)
        self.check(peer.submit("b"), ACCEPTED)

    def test_ids_come_back(self) -> None:
        """K-05: the id is echoed exactly, whatever it is."""
        peer = self.use(rules=NO_WINDOW)
        for n, message_id in enumerate((0, -5, 2**70, "x", "名" * 20)):
            for result in (None, "0" * 64):
                nonce = f"{n}{result is None}"
                answer = peer.submit(nonce, message_id=message_id, result=result)
                self.assertEqual(answer["id"], message_id)
                self.assertEqual(answer["result"], result is None)

    def test_notification(self) -> None:
        """K-04: a submission without an id is judged and counted, and not answered."""
        peer = self.use(rules=NO_WINDOW)
        peer.send({**peer.submission("a"), "id": None}, {**peer.submission("b", result="0")})
        peer.send({**peer.submission("a", result="0"), "id": None})
        self.bench.settle()
        self.assertEqual([m["code"] for m in peer.hear()], [23])
        self.assertEqual(self.bench.acceptance.accepted, 1)

    def test_malformed_fields(self) -> None:
        """K-10, K-49: a field of the wrong type is an invalid result; without a job
        there is nothing to judge.
        """
        peer = self.use(attempts=NO_ATTEMPTS, max_errors=0)
        good = peer.submission("a")
        for field, value in (
            ("client_nonce", 5),
            ("client_nonce", None),
            ("result", None),
            ("result", 7),
        ):
            message = {**good, "params": {**good["params"], field: value}}
            peer.send(message)
            self.check(peer.hear()[0], INVALID)
        message = {**good, "params": {**good["params"], "job_id": 10**9, "result": None}}
        peer.send(message)
        self.check(peer.hear()[0], UNKNOWN)
        for params in (None, [], "x", {"job_id": "7", "client_nonce": "a", "result": "b"}, {}):
            peer.send({**good, "params": params})
            self.assertEqual(peer.hear()[0]["code"], 32, params)
        self.check(peer.submit("a"), ACCEPTED)

    def test_a_nonce_of_the_wrong_type_is_no_duplicate(self) -> None:
        """K-10: whatever nonces were used."""
        peer = self.use(rules=NO_WINDOW, attempts=NO_ATTEMPTS)
        for nonce in ("!", "5", "None"):
            self.check(peer.submit(nonce), ACCEPTED)
        for wrong in (5, None, []):
            message = peer.submission("a")
            peer.send({**message, "params": {**message["params"], "client_nonce": wrong}})
            self.check(peer.hear()[0], INVALID)

    def test_a_duplicate_with_a_result_of_the_wrong_type(self) -> None:
        """K-10, K-40: it is judged in the usual order."""
        peer = self.use(rules=NO_WINDOW, attempts=NO_ATTEMPTS)
        self.check(peer.submit("a"), ACCEPTED)
        message = peer.submission("a")
        peer.send({**message, "params": {**message["params"], "result": 7}})
        self.check(peer.hear()[0], DUPLICATE)

    def test_by_the_general_path(self) -> None:
        """A router that stands before this one passes submissions on to its handler."""
        peer = self.use(rules=NO_WINDOW)
        router = self.bench.handlers.router
        self.assertEqual([route.key for route in router.routes], ["submit", "ping", "authorize"])
        peer.connection.router = router
        self.check(peer.submit("a"), ACCEPTED)
        self.check(peer.submit("a"), DUPLICATE)
        self.check(peer.submit("b", result="0" * 64), INVALID)

    def test_other_methods(self) -> None:
        """K-10: an unknown method is answered; ping is too."""
        peer = self.use()
        peer.send({"id": 3, "method": "nonsense"}, {"id": 4, "method": "ping"})
        self.assertEqual(
            peer.hear(),
            [
                {"id": 3, "result": False, "error": "unknown method", "code": 31},
                {"id": 4, "result": True},
            ],
        )

    def test_entry(self) -> None:
        """K-78: what is accepted goes to the log with its user, job and nonce."""
        log = HeldLog()
        peer = self.use(log=log)
        peer.send(peer.submission("a"))
        self.bench.settle()
        batch = decode_batch(log.appended[0][1])
        self.assertEqual(batch.usernames, ["alice"])
        self.assertEqual(batch.job_ids, [peer.job["job_id"] if peer.job else 0])
        self.assertEqual(batch.client_nonces, ["a"])
        self.assertEqual(batch.at // 1000, int(WALL))


class WindowTests(Case):
    """K-44, K-51: one accepted submission a second and session."""

    def test_boundary(self) -> None:
        """K-44: 0.999 s is too soon, 1.000 s is not."""
        peer = self.use()
        self.bench.at(10.0)
        self.check(peer.submit("a"), ACCEPTED)
        self.bench.at(10.999)
        self.check(peer.submit("b"), FREQUENT)
        self.bench.at(20.0)
        self.check(peer.submit("b"), ACCEPTED)
        self.bench.at(21.0)
        self.check(peer.submit("c"), ACCEPTED)

    def test_two_in_one_packet(self) -> None:
        """K-51: judged one after the other; exactly one is accepted."""
        peer = self.use()
        one, two = peer.submission("a", message_id=1), peer.submission("b", message_id=2)
        peer.send(one, two)
        self.bench.settle()
        heard = {m["id"]: outcome(m) for m in peer.hear()}
        self.assertEqual(heard, {1: ACCEPTED, 2: FREQUENT})

    def test_rejection_overtakes(self) -> None:
        """K-11: a rejection does not wait for the acceptance before it."""
        log = HeldLog()
        peer = self.use(log=log)
        peer.send(peer.submission("a", message_id=1), peer.submission("b", message_id=2))
        self.assertEqual([m["id"] for m in peer.hear()], [2])
        self.bench.settle()
        log.decide(True)
        self.assertEqual([m["id"] for m in peer.hear()], [1])

    def test_judged_in_order(self) -> None:
        """K-11: of several right ones in one packet the first is accepted."""
        peer = self.use(attempts=NO_ATTEMPTS)
        peer.send(*[peer.submission(f"n{i}", message_id=i) for i in range(10)])
        self.bench.settle()
        accepted = [m["id"] for m in peer.hear() if m["result"]]
        self.assertEqual(accepted, [0])

    def test_rejections_open_no_window(self) -> None:
        """K-45: a rejected attempt does not delay the next."""
        peer = self.use()
        self.check(peer.submit("a", result="0" * 64), INVALID)
        self.check(peer.submit("a"), ACCEPTED)

    def test_sessions_have_windows_of_their_own(self) -> None:
        """K-44, K-46: by default the rule is per session."""
        peer = self.use()
        other = self.bench.connect().authorize()
        self.check(peer.submit("a"), ACCEPTED)
        self.check(other.submit("b"), ACCEPTED)

    def test_per_user(self) -> None:
        """K-46: with a limit per user, sessions share it, whatever their number."""
        peer = self.use(rules=NO_WINDOW, session=SessionSettings(user_rate=2.0))
        other = self.bench.connect().authorize("alice.rig")
        stranger = self.bench.connect().authorize("bob")
        self.check(peer.submit("a"), ACCEPTED)
        self.check(other.submit("b"), ACCEPTED)
        self.check(peer.submit("c"), FREQUENT)
        self.check(stranger.submit("a"), ACCEPTED)
        other.leave()
        again = self.bench.connect().authorize("alice.new")
        self.check(again.submit("d"), FREQUENT)
        self.bench.clock.advance(0.5)
        self.check(again.submit("d"), ACCEPTED)

    def test_per_address(self) -> None:
        """K-46: with a limit per address, users behind it share it."""
        peer = self.use(rules=NO_WINDOW, session=SessionSettings(ip_rate=1.0))
        near = self.bench.connect().authorize("bob")
        far = self.bench.connect(host="198.51.100.7").authorize("carol")
        self.check(peer.submit("a"), ACCEPTED)
        self.check(near.submit("b"), FREQUENT)
        self.check(far.submit("c"), ACCEPTED)
        for nonce in "de":  # on Unix sockets, which have no address
            self.check(self.bench.connect(host="").authorize("dave").submit(nonce), ACCEPTED)

    def test_limits_off(self) -> None:
        """K-44, K-45: 0 turns each limit off."""
        peer = self.use(rules=NO_WINDOW, attempts=NO_ATTEMPTS)
        for n in range(50):
            self.check(peer.submit(f"n{n}"), ACCEPTED)
            self.check(peer.submit(f"n{n}", result="0"), DUPLICATE)


class AttemptTests(Case):
    """K-45: rejected attempts have a bucket of their own."""

    def test_burst(self) -> None:
        """K-45: five at once are judged, then all is too frequent until one is back."""
        peer = self.use()
        wrong = "0" * 64
        for _ in range(5):
            peer.send(peer.submission("a", result=wrong))
            self.check(peer.hear()[0], INVALID)
        peer.send(peer.submission("a", result=wrong), peer.submission("a"))
        self.assertEqual([outcome(m) for m in peer.hear()], [FREQUENT, FREQUENT])
        self.bench.clock.advance(0.9)
        peer.send(peer.submission("a"))
        self.check(peer.hear()[0], FREQUENT)
        self.bench.clock.advance(0.1)
        self.check(peer.submit("a"), ACCEPTED)

    def test_storm(self) -> None:
        """K-45: 34,000 wrong submissions in a second: five are looked at, then the session is
        slowed down, and others go on.
        """
        peer = self.use()
        other = self.bench.connect(host="198.51.100.7").authorize("bob")
        self.storm([peer], 34_000)
        answers = [m["error"] for m in peer.hear() if "error" in m]
        self.assertEqual(answers[:5], ["Invalid result"] * 5)
        self.assertLessEqual(answers.count("Invalid result"), 7)
        self.assertLess(len(answers), 5100)
        self.assertFalse(peer.closed)
        self.assertGreater(self.bench.handlers.throttled, 0)
        self.check(other.submit("b"), ACCEPTED)
        peer.hear()
        for _ in range(10):
            self.bench.clock.advance(1.0)
        # As many as the score loses in that time.
        self.assertLess(len(peer.hear()), 2000)

    def test_a_throttled_session_is_heard_again(self) -> None:
        """K-45: after the pause, and each pause counts once."""
        peer = self.use(attempts=AttemptSettings(1.0, 1.0, 10.0, 1000.0, pause=2.0))
        peer.send(*[peer.submission("a", result="0") for _ in range(3)])
        self.assertEqual((len(peer.hear()), self.bench.handlers.throttled), (3, 1))
        counts = self.bench.manager.refusals.counts
        self.assertEqual(counts, {"submissions, throttled after too many rejected ones": 1})
        peer.send({"id": 8, "method": "ping"})
        self.bench.clock.advance(1.9)
        self.assertEqual(peer.hear(), [])
        self.bench.clock.advance(0.1)
        self.assertEqual(peer.hear(), [{"id": 8, "result": True}])

    def test_the_last_one_before_the_ban_is_answered(self) -> None:
        """K-45: unless it asks for no answer."""
        for message_id, answers in ((9, [9, None]), (None, [None])):
            peer = self.use(attempts=AttemptSettings(1.0, 1.0, 4.0, 1000.0, pause=0.0))
            peer.send(*[peer.submission("a", result="0") for _ in range(5)])
            peer.hear()
            peer.send({**peer.submission("a", result="0"), "id": message_id})
            self.assertEqual([message["id"] for message in peer.hear()], answers)
            self.assertEqual(peer.closes, ["banned"])

    def storm(self, peers: list[Any], count: int) -> None:
        """Send wrong submissions within a second."""
        peer = peers[0]
        packet = peer.framing.encode(
            b'{"id":7,"method":"submit","params":{"job_id":%d,"client_nonce":"a","result":"x"}}'
            % (peer.job or {})["job_id"]
        )
        for number in range(count // 100):
            peers[number % len(peers)].send_bytes(packet * 100)
            self.bench.clock.advance(100 / count)

    def test_storm_of_many_sessions(self) -> None:
        """Issue 15, build 5: the score belongs to the address, over all of its sessions."""
        other = self.use(attempts=AttemptSettings(ban_score=1000.0, pause=0.1))
        peers = [self.bench.connect(host="192.0.2.9").authorize("eve") for _ in range(30)]
        for _ in range(40):
            self.storm(peers, 3_000)
        closed = next(peer for peer in peers if peer.closed)
        heard = closed.hear()
        self.assertEqual(heard[-1]["params"]["retry_after"], 60.0)
        self.assertEqual(heard[-1]["params"]["code"], 4503)
        refusal = self.bench.manager.refusal("192.0.2.9")
        assert refusal is not None
        self.assertEqual(refusal[0].reason, "banned")
        self.assertIs(self.bench.manager.refusal("192.0.2.1"), None)
        self.assertEqual(list(self.bench.manager.bans), ["192.0.2.9"])
        self.check(other.submit("b"), ACCEPTED)
        self.bench.clock.advance(61.0)
        self.assertIs(self.bench.manager.refusal("192.0.2.9"), None)
        self.assertEqual(self.bench.manager.bans, {})

    def test_the_score_outlives_the_session(self) -> None:
        """Issue 15, build 5: whoever comes back has it still."""
        attempts = AttemptSettings(1.0, 1.0, 10.0, 1000.0, pause=0.0)
        peer = self.use(attempts=attempts)
        for _ in range(5):
            peer.send(*[peer.submission("a", result="0") for _ in range(3)])
            self.assertFalse(peer.closed)
            peer.leave()
            peer = self.bench.connect().authorize()
        peer.send(*[peer.submission("a", result="0") for _ in range(3)])
        peer.hear()
        self.assertEqual(peer.closes, ["banned"])

    def test_behind_a_trusted_proxy_each_session_has_its_own(self) -> None:
        """Issue 15, build 5: a trusted proxy is never banned."""
        attempts = AttemptSettings(1.0, 1.0, 10.0, 1000.0, pause=0.0)
        self.use(attempts=attempts, proxies=TrustedProxies(["10.0.0.0/8"]))
        bad = self.bench.connect(host="10.0.0.1").authorize("eve")
        good = self.bench.connect(host="10.0.0.1").authorize("bob")
        bad.send(*[bad.submission("a", result="0") for _ in range(20)])
        bad.hear()
        self.assertEqual(bad.closes, ["banned"])
        good.send(*[good.submission("a", result="0") for _ in range(5)])
        self.assertFalse(good.closed)
        self.assertIs(self.bench.manager.refusal("10.0.0.1"), None)

    def test_without_a_limit_nothing_is_too_much(self) -> None:
        """K-45: 0 turns it off, for the score of the address too."""
        peer = self.use(attempts=AttemptSettings(0.0, 1.0, 3.0, 1000.0))
        peer.send(*[peer.submission("a", result="0") for _ in range(20)])
        self.assertEqual({message["code"] for message in peer.hear()}, {23})
        self.assertEqual((peer.closed, self.bench.handlers.throttled), (False, 0))

    def test_honest_mistakes_never_ban(self) -> None:
        """K-45: the score goes down with time."""
        peer = self.use(attempts=AttemptSettings(1.0, 5.0, 10.0, 10.0, pause=0.0))
        for _ in range(100):
            peer.send(*[peer.submission("a", result="0") for _ in range(2)])
            self.bench.clock.advance(1.0)
        self.assertFalse(peer.closed)
        peer.send(*[peer.submission("a", result="0") for _ in range(30)])
        peer.hear()
        self.assertEqual(peer.closes, ["banned"])

    def test_other_limits_from_a_reload(self) -> None:
        """K-32: with others of them the scores begin anew."""
        peer = self.use(attempts=AttemptSettings(1.0, 1.0, 10.0, 1000.0, pause=0.0))
        peer.send(*[peer.submission("a", result="0") for _ in range(9)])
        self.bench.handlers.use(AttemptSettings(1.0, 1.0, 20.0, 1000.0, pause=0.0))
        peer.send(*[peer.submission("a", result="0") for _ in range(15)])
        self.assertFalse(peer.closed)


class DuplicateTests(Case):
    """K-47, K-48: what was used, by whom."""

    def test_same_session(self) -> None:
        peer = self.use()
        self.check(peer.submit("a"), ACCEPTED)
        self.bench.clock.advance(2.0)
        self.check(peer.submit("a"), DUPLICATE)

    def test_other_sessions_and_users(self) -> None:
        """K-47: every session of the user, also a new one; not another user's."""
        peer = self.use()
        second = self.bench.connect().authorize("alice.rig2")
        self.check(peer.submit("a"), ACCEPTED)
        self.check(second.submit("a"), DUPLICATE)
        peer.leave()
        self.check(self.bench.connect().authorize().submit("a"), DUPLICATE)
        self.check(self.bench.connect().authorize("bob").submit("a"), ACCEPTED)

    def test_other_job(self) -> None:
        """K-47: the same nonce is new for another job, and used for the old one still."""
        peer = self.use()
        first = dict(peer.job or {})
        self.check(peer.submit("a"), ACCEPTED)
        self.bench.at(30.0)
        peer.hear()
        self.check(peer.submit("a"), ACCEPTED)
        self.bench.at(32.0)
        self.check(peer.submit("a", **first), DUPLICATE)

    def test_scope_session(self) -> None:
        """K-47: in the scope `session` each session has its own."""
        peer = self.use(session=SessionSettings(duplicate_scope="session"))
        other = self.bench.connect().authorize()
        self.check(peer.submit("a"), ACCEPTED)
        self.check(other.submit("a"), ACCEPTED)
        self.bench.clock.advance(2.0)
        self.check(peer.submit("a"), DUPLICATE)

    def test_scope_job(self) -> None:
        """K-47: in the scope `job` a nonce is used for everyone."""
        peer = self.use(session=SessionSettings(duplicate_scope="job"))
        other = self.bench.connect().authorize("bob")
        self.check(peer.submit("a"), ACCEPTED)
        self.check(other.submit("a"), DUPLICATE)

    def test_invalid_is_not_recorded(self) -> None:
        """K-48: an invalid one can be corrected and sent again."""
        peer = self.use()
        self.check(peer.submit("a", result="0" * 64), INVALID)
        self.check(peer.submit("a"), ACCEPTED)

    def test_replayed_on_another_session(self) -> None:
        """K-55: in the nonce scope `session` another's work is invalid."""
        peer = self.use(session=SessionSettings(nonce_scope="session"))
        thief = self.bench.connect().authorize("mallory")
        stolen = peer.submission("a")
        self.check(peer.submit("a"), ACCEPTED)
        thief.send(stolen)
        self.bench.settle()
        self.check(thief.hear()[0], INVALID)
        self.check(thief.submit("a"), ACCEPTED)


class DurableTests(Case):
    """K-52: `true` means durable."""

    def setUp(self) -> None:
        self.held = HeldLog()

    def test_answered_after_it_is_durable(self) -> None:
        peer = self.use(log=self.held)
        peer.send(peer.submission("a", message_id=5))
        self.bench.clock.advance(5.0)
        self.assertEqual(peer.hear(), [])
        self.assertEqual(self.bench.acceptance.accepted, 0)
        self.held.decide(True)
        self.assertEqual(peer.hear(), [{"id": 5, "result": True}])
        self.assertEqual(self.bench.acceptance.accepted, 1)

    def test_not_durable(self) -> None:
        """K-52: the answer says so, the nonce is free, and so is the second."""
        peer = self.use(log=self.held)
        peer.send(peer.submission("a", message_id=5))
        self.bench.settle()
        self.held.decide(False)
        self.assertEqual(peer.hear(), [{"id": 5, **UNAVAILABLE}])
        peer.send(peer.submission("a", message_id=6))
        self.bench.settle()
        self.held.decide(True)
        self.assertEqual(peer.hear(), [{"id": 6, "result": True}])
        self.assertEqual(self.bench.book.remembered, 1)

    def test_duplicate_of_one_on_its_way(self) -> None:
        """K-47, K-53: after a reconnect the same nonce waits for what becomes of it."""
        for keep, expected in ((True, DUPLICATE), (False, UNAVAILABLE)):
            peer = self.use(log=self.held)
            peer.send(peer.submission("a"))
            self.bench.settle()
            again = self.bench.connect().authorize()
            again.send(again.submission("a"))
            self.bench.settle()
            self.assertEqual(again.hear(), [])
            self.held.decide(keep)
            self.check(again.hear()[0], expected)

    def test_gone_before_the_answer(self) -> None:
        """K-53: an answer that nobody takes harms nobody, and the submission counts."""
        peer = self.use(log=self.held)
        peer.send(peer.submission("a"))
        self.bench.settle()
        peer.leave()
        self.held.decide(True)
        self.assertEqual(self.bench.acceptance.accepted, 1)
        again = self.bench.connect().authorize()
        self.check(again.submit("a"), DUPLICATE)

    def test_peer_that_finished(self) -> None:
        """K-52: a client that closes with an answer pending still gets it."""
        bench = PoolBench(log=self.held).start()
        peer = bench.connect(FRAME).authorize()
        peer.send(peer.submission("a", message_id=5))
        peer.send_bytes(encode_frame(b"", 0x8))
        bench.settle()
        self.assertFalse(peer.closed)
        self.held.decide(True)
        self.assertEqual(peer.hear(), [{"id": 5, "result": True}])
        self.assertTrue(peer.closed)

    def test_too_many_batches_on_their_way(self) -> None:
        """K-83: beyond so many batches a submission is refused at once, not queued."""
        peer = self.use(log=self.held, rules=NO_WINDOW, batches=BatchSettings(in_flight=2))
        for n in range(3):
            peer.send(peer.submission(f"n{n}"))
            self.bench.settle()
        self.check(peer.hear()[0], UNAVAILABLE)
        self.held.decide(True)
        self.held.decide(True)
        self.bench.settle()
        peer.hear()
        peer.send(peer.submission("n2"))
        self.bench.settle()
        self.held.decide(True)
        self.check(peer.hear()[0], ACCEPTED)

    def test_memory_log_full(self) -> None:
        """K-83: a full memory log refuses with a retriable error, and recovers."""
        bench = PoolBench(rules=NO_WINDOW)
        bench.acceptance._store = log = MemoryLog(bench.clock, bench.wall, 5 * ENTRY_BYTES)
        bench.start()
        peer = bench.connect().authorize()
        answers = [outcome(peer.submit(f"n{n}")) for n in range(6)]
        self.assertIn(ACCEPTED, answers)
        self.assertEqual(answers[-1], UNAVAILABLE)
        bench.acceptance._store = MemoryLog(bench.clock, bench.wall)
        self.check(peer.submit("n5"), ACCEPTED)
        self.assertLessEqual(log.status().appended, 5)


class TallyTests(Case):
    """K-75: rejections are counted for user, reason and minute."""

    def test_each_reason(self) -> None:
        peer = self.use(attempts=NO_ATTEMPTS, rules=Rules(100.0, 1.0), interval=1000.0)
        job_id = (peer.job or {})["job_id"]
        peer.submit("a", job_id=job_id + 5)
        peer.submit("a", result="0")
        peer.submit("a")
        peer.submit("b")
        self.bench.at(90.0)
        peer.submit("a")
        self.bench.at(130.0)
        peer.submit("c")
        taken = self.bench.acceptance.rejections.take()
        minute = int(WALL)
        self.assertEqual(
            dict(taken),
            {
                Rejection("alice", 21, minute): 1,
                Rejection("alice", 23, minute): 1,
                Rejection("alice", 26, minute): 1,
                Rejection("alice", 22, minute + 60): 1,
                Rejection("alice", 25, minute + 120): 1,
            },
        )
        self.assertEqual(dict(self.bench.acceptance.rejections.take()), {})
        self.assertEqual(self.bench.acceptance.rejections.outcomes["Invalid result"], 1)

    def test_late_reasons(self) -> None:
        """K-75: those decided by the log count as well."""
        held = HeldLog()
        peer = self.use(log=held)
        for keep in (False, True):
            peer.send(peer.submission("a"))
            self.bench.settle()
            again = self.bench.connect().authorize("alice.rig2")
            again.send(again.submission("a"))
            self.bench.settle()
            held.decide(keep)
        taken = self.bench.acceptance.rejections.take()
        minute = int(WALL)
        self.assertEqual(
            dict(taken),
            {
                Rejection("alice", 27, minute): 1,
                Rejection("alice", 27, minute, "rig2"): 1,
                Rejection("alice", 22, minute, "rig2"): 1,
            },
        )

    def test_bounded(self) -> None:
        """K-75: names beyond the bound are counted together."""
        self.patch(tally, "MAX_TALLIES", 100)
        bench = PoolBench(max_connections=0).start()
        for n in range(150):
            peer = bench.connect().authorize(f"user{n}")
            peer.send(peer.submission("a", result="0"))
            peer.leave()
        taken = bench.acceptance.rejections.take()
        self.assertEqual(len(taken), 101)
        self.assertEqual(taken[Rejection("", 23, int(WALL))], 50)


class OnceTests(Case):
    """issue 12: a submission is decoded, judged and hashed once, whatever becomes of it."""

    def setUp(self) -> None:
        self.judged = self.hashed = self.general = 0

        judge = Rules.judge

        def judged(*given: Any) -> Any:
            self.judged += 1
            return judge(*given)

        def hashed(data: bytes) -> Any:
            self.hashed += 1
            return sha256(data)

        self.patch(Rules, "judge", judged)
        self.patch(judge_module, "sha256", hashed)

    def once(self, peer: Peer, expected: dict[str, Any], nonce: str, **more: Any) -> None:
        """Submit one; ``hashes`` says how often it may be hashed."""
        hashes = more.pop("hashes", 1)
        self.judged = self.hashed = self.general = 0
        self.check(peer.submit(nonce, **more), expected)
        self.assertEqual((self.judged, self.hashed, self.general), (1, hashes, 0), expected)

    def watched(self, **settings: Any) -> Peer:
        """Use a pool that counts what takes the general way, where it is decoded again."""
        peer = self.use(**settings)
        dispatch = self.bench.handlers.router.dispatch

        def general(*given: Any) -> bytes | None:
            self.general += 1
            return dispatch(*given)

        self.patch(self.bench.handlers.router, "dispatch", general)
        return peer

    def test_every_outcome(self) -> None:
        """issue 12: whether it is accepted or not, and whatever its id is."""
        for first, second in ((1, 2), ("a", "b"), (2**70, -1)):
            ids = {"message_id": first}
            peer = self.watched(rules=Rules(40, 0), attempts=NO_ATTEMPTS)
            old = dict(peer.job or {})
            self.once(peer, ACCEPTED, "a", **ids)
            self.once(peer, DUPLICATE, "a", message_id=second, hashes=0)
            self.once(peer, INVALID, "b", result="0" * 64, **ids)
            self.once(peer, INVALID, "", hashes=0, **ids)
            self.once(peer, UNKNOWN, "b", job_id=0, hashes=0, **ids)
            self.bench.handlers.rules = Rules(0, 1)
            self.once(peer, FREQUENT, "b", hashes=0, **ids)
            self.bench.handlers.rules = Rules(40, 0)
            self.bench.at(41.0)
            peer.hear()
            self.once(peer, EXPIRED, "b", hashes=0, **old, **ids)

    def test_refused_by_the_log(self) -> None:
        """issue 12: too much is on its way to the log already."""
        peer = self.watched(log=HeldLog(), rules=NO_WINDOW, batches=BatchSettings(size=1))
        for n in range(BatchSettings().in_flight):
            peer.send(peer.submission(f"n{n}"))
        self.once(peer, UNAVAILABLE, "last")
        self.assertEqual(self.bench.acceptance.rejections.outcomes, {"Temporarily unavailable": 1})

    def test_notification(self) -> None:
        """issue 12: one that gets no answer is no exception."""
        peer = self.watched(attempts=NO_ATTEMPTS)
        peer.send({**peer.submission("a", result="0"), "id": None})
        self.assertEqual((peer.hear(), self.judged, self.general), ([], 1, 0))

    def test_an_id_that_is_too_long(self) -> None:
        """K-05, issue 12: it is malformed, and never judged."""
        peer = self.watched()
        for text in ("x" * 65, "\u540d" * 22):
            peer.send(peer.submission("a", message_id=text))
            self.assertEqual([m["code"] for m in peer.hear()], [30])
        self.assertEqual(self.judged, 0)
        self.check(peer.submit("a", message_id="x" * 64), ACCEPTED)


class HistoryBoundTests(Case):
    """K-50: remembered nonces are bounded."""

    def test_retired_early(self) -> None:
        peer = self.use(max_nonces=10, rules=NO_WINDOW, interval=5.0)
        first = dict(peer.job or {})
        for n in range(8):
            self.check(peer.submit(f"n{n}"), ACCEPTED)
        self.bench.at(5.0)
        peer.hear()
        for n in range(8):
            self.check(peer.submit(f"n{n}"), ACCEPTED)
        old = self.bench.book.jobs[first["job_id"]]
        self.bench.coordinator.relieve()
        self.bench.settle()
        self.assertEqual((self.bench.book.retired_early, len(old.nonces)), (1, 0))
        self.check(peer.submit("x", **first), UNKNOWN)
        self.check(peer.submit("n0"), DUPLICATE)

    def test_current_job_over_the_bound(self) -> None:
        """K-50: when the current job alone is too much, the next one comes early."""
        peer = self.use(max_nonces=10, rules=NO_WINDOW)
        first = dict(peer.job or {})
        for n in range(11):
            self.check(peer.submit(f"n{n}"), ACCEPTED)
        self.bench.coordinator.relieve()
        self.bench.settle()
        peer.hear()
        self.assertNotEqual(peer.job, first)
        self.assertLessEqual(self.bench.book.remembered, 10)
        self.check(peer.submit("n0"), ACCEPTED)

    def test_gone_with_their_job(self) -> None:
        """K-50: nonces vanish with their job."""
        peer = self.use(window=20.0, interval=10.0)
        job = self.bench.book.current
        assert job is not None
        self.check(peer.submit("a"), ACCEPTED)
        for turn in range(1, 4):
            self.bench.at(10.0 * turn + 1)
        self.assertNotIn(job.job_id, self.bench.book.jobs)
        self.assertEqual(len(job.nonces), 0)
        self.assertEqual(self.bench.book.remembered, 0)
