"""The first message of a connection."""

from __future__ import annotations

import json

from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.accounts.authenticator import (
    Authenticator,
    CannotTell,
    IQuickChecker,
    NoUsableChecker,
)
from kupool.accounts.login_guard import LoginSettings
from kupool.errors import UNAVAILABLE, RequestError
from kupool.permissions.grants import parse_grant
from kupool.permissions.table import PermissionTable
from kupool.pool.pool import SessionSettings
from tests.fakes.pool_fixture import FRAME, LINE, PoolBench, encode_frame


class AuthorizeTests(SynchronousTestCase):
    """K-13, K-14, K-16, K-19: who is let in."""

    def setUp(self) -> None:
        self.bench = PoolBench().start()

    def test_reference_exchange(self) -> None:
        """K-13: the reference's request is answered with its bytes, and the job follows."""
        peer = self.bench.connect(FRAME)
        request = b'{"id":1,"method":"authorize","params":{"username":"admin"}}'
        peer.send_bytes(encode_frame(request))
        raw = peer.raw()
        answer = b'{"id":1,"result":true}'
        self.assertTrue(raw.startswith(encode_frame(answer)), raw)
        job = json.loads(raw[len(encode_frame(answer)) + 5 :])
        self.assertEqual(job["method"], "job")
        self.assertEqual(self.bench.pool.sessions, 1)

    def refused(self, data: bytes, answered: object = None) -> None:
        peer = self.bench.connect(FRAME)
        peer.send_bytes(data)
        messages = peer.hear()
        if answered is None:
            self.assertEqual(messages, [])
        else:
            error = {"id": answered, "result": False, "error": "unauthorized", "code": 24}
            self.assertEqual(messages, [error])
        self.assertEqual(peer.closes, ["unauthorized"])
        self.assertTrue(peer.closed)
        self.assertEqual(self.bench.pool.sessions, 0)
        self.assertEqual(len(self.bench.channel), 0)
        # Whatever comes after it is not heard.
        peer.send_bytes(encode_frame(b'{"id":5,"method":"ping"}'))
        self.assertEqual(peer.hear(), [])
        peer.leave()

    def message(self, **changes: object) -> bytes:
        message = {"id": 1, "method": "authorize", "params": {"username": "admin"}, **changes}
        return encode_frame(json.dumps(message, ensure_ascii=False).encode())

    def test_other_first_messages(self) -> None:
        """K-14: anything but authorize ends the connection with `unauthorized`."""
        self.refused(self.message(method="submit", params={}), 1)
        self.refused(self.message(method="ping", id="a"), "a")
        self.refused(encode_frame(b"not json"))
        self.refused(encode_frame(b"[1,2]"))
        self.refused(encode_frame(b"\xff\xfe"))
        self.refused(encode_frame(b"[" * 1000))

    def test_empty_messages(self) -> None:
        """K-14: an empty message is none: it is passed over, before the first one too."""
        peer = self.bench.connect(FRAME)
        peer.send_bytes(encode_frame(b"") * 3 + self.message())
        self.assertEqual(peer.hear()[0], {"id": 1, "result": True})

    def test_other_opcodes(self) -> None:
        """K-14: so does any opcode that carries no message, but the peer's own close."""
        for opcode in (0x0, 0x9, 0xA, 0x7):
            self.refused(encode_frame(b"x", opcode))
        peer = self.bench.connect(FRAME)
        peer.send_bytes(encode_frame(b"bye", 0x8))
        self.assertEqual(peer.hear(), [])
        self.assertEqual(peer.closes, [])
        self.assertTrue(peer.closed)

    def test_text_opcode_is_a_message(self) -> None:
        peer = self.bench.connect(FRAME)
        peer.send_bytes(encode_frame(b'{"id":1,"method":"authorize","params":{"username":"a"}}', 1))
        self.assertEqual(peer.hear()[0], {"id": 1, "result": True})

    def test_ids(self) -> None:
        """K-14: a null, missing or unreadable id is refused; a string is welcome."""
        self.refused(self.message(id=None))
        self.refused(encode_frame(b'{"method":"authorize","params":{"username":"a"}}'))
        self.refused(self.message(id=1.5))
        self.refused(self.message(id=True))
        self.refused(self.message(id="x" * 65))
        peer = self.bench.connect(FRAME)
        peer.send_bytes(self.message(id="x" * 64))
        self.assertEqual(peer.hear()[0], {"id": "x" * 64, "result": True})

    def test_usernames(self) -> None:
        """K-16: 1 to 255 characters, of which none is a control character."""
        bad = ["", "a" * 256, "a\nb", "a\x00b", "\x7f", "a\x85b", "a\u2028b", "\t", "é" * 256]
        for name in bad:
            self.refused(self.message(params={"username": name}), 1)
        for params in ({}, {"username": None}, {"username": 5}, None, []):
            self.refused(self.message(params=params), 1)
        for name in ("a", "a" * 255, "é" * 255, "名前.rig 1", "a\u200db", "."):
            peer = self.bench.connect(LINE).authorize(name)
            self.assertEqual(peer.messages[0], {"id": 1, "result": True}, name)
            self.assertEqual(peer.connection.context.username, name)
            peer.leave()

    def test_lone_surrogate(self) -> None:
        """K-16: half a character is none."""
        self.refused(encode_frame(b'{"id":1,"method":"authorize","params":{"username":"\\ud800"}}'))

    def test_sessions(self) -> None:
        """K-19: each connection is a session of its own, with an unguessable id."""
        peers = [self.bench.connect().authorize(f"alice.rig{i}") for i in range(50)]
        ids = {peer.connection.context.session_id for peer in peers}
        self.assertEqual(len(ids), 50)
        self.assertEqual({len(i) for i in ids}, {16})
        self.assertEqual(self.bench.pool.users, {"alice": 50})
        for peer in peers:
            peer.leave()
        self.assertEqual(self.bench.pool.users, {})
        self.assertEqual(self.bench.pool.sessions, 0)

    def test_authorize_again(self) -> None:
        peer = self.bench.connect().authorize()
        peer.send({"id": 2, "method": "authorize", "params": {"username": "bob"}})
        answer = peer.hear()[0]
        self.assertEqual((answer["id"], answer["code"]), (2, 36))
        self.assertEqual(answer["error"], "already exists: this connection is authorized")
        self.assertEqual(peer.connection.context.username, "alice")


class DetailTests(SynchronousTestCase):
    """K-14, K-15: the close says what was wrong, where ``unauthorized`` does not."""

    def details(self, data: bytes) -> list[str]:
        peer = PoolBench().start().connect(LINE)
        peer.send_bytes(data + b"\n")
        peer.hear()
        self.assertEqual(peer.closes, ["unauthorized"])
        return peer.details

    def test_what_is_no_request(self) -> None:
        """K-14"""
        for data in (b"{bad", b"[1,2]", b'{"id":1,"method":"authorize"'):
            self.assertEqual(self.details(data), ["the first message is not a JSON request"])

    def test_an_opcode_that_carries_no_message(self) -> None:
        """K-14"""
        peer = PoolBench().start().connect(FRAME)
        peer.send_bytes(encode_frame(b"x", 0x9))
        peer.hear()
        self.assertEqual(peer.details, ["the first message must be authorize"])

    def test_an_authorize_that_is_not_permitted(self) -> None:
        """Issue 15, build 2: the rule is about the user, whatever the worker is."""
        grants = map(parse_grant, ("@operator call authorize", "alice call authorize"))
        table = PermissionTable(grants)
        bench = PoolBench(permissions=table).start()
        self.assertEqual(bench.connect().authorize("alice.rig").closes, [])
        peer = bench.connect().authorize("bob.alice")
        self.assertEqual(peer.closes, ["unauthorized"])
        self.assertEqual(peer.details, ["authorize is not permitted to the role anonymous"])

    def test_an_authorize_that_does_not_fit(self) -> None:
        """K-14, K-16"""
        begun = b'{"id":1,"method":"authorize"'
        named = 'authorize needs params with a username, as in {"username":"alice"}'
        for rest in (b"}", b',"params":{"user":"a"}}', b',"params":{"username":7}}'):
            self.assertEqual(self.details(begun + rest), [named])
        wrong = b',"params":{"username":"a","password":5}}'
        self.assertEqual(
            self.details(begun + wrong), ["authorize: password: expected str | null, got int"]
        )
        self.assertEqual(
            self.details(begun + b',"params":{"username":""}}'),
            ["username: expected 1 to 255 characters, none of them a control character"],
        )
        self.assertEqual(
            self.details(b'{"method":"authorize","params":{"username":"a"}}'),
            ["authorize needs an id: an integer, or a string of at most 64 bytes"],
        )

    def test_no_detail_where_the_word_says_it(self) -> None:
        """K-14: another request before authorize, and a wrong password."""
        self.assertEqual(self.details(b'{"id":1,"method":"ping"}'), [])

    def test_no_authorize_in_time(self) -> None:
        """K-15"""
        for framing in (LINE, FRAME):
            bench = PoolBench().start()
            peer = bench.connect(framing)
            bench.at(10.0)
            peer.hear()
            self.assertEqual(peer.closes, ["unauthorized"])
            self.assertEqual(peer.details, ["no authorize within 10 s"])


class TimeTests(SynchronousTestCase):
    """K-15: ten seconds to authorize, whatever trickles in."""

    def test_silence(self) -> None:
        bench = PoolBench().start()
        peer = bench.connect(FRAME)
        bench.at(9.9)
        self.assertFalse(peer.closed)
        bench.at(11.1)
        peer.hear()
        self.assertEqual(peer.closes, ["unauthorized"])
        self.assertTrue(peer.closed)

    def test_one_byte_a_second(self) -> None:
        """K-15: bytes that are no message do not extend it."""
        bench = PoolBench().start()
        peer = bench.connect(FRAME)
        data = encode_frame(b'{"id":1,"method":"authorize","params":{"username":"admin"}}')
        for byte in data[:9]:
            peer.send_bytes(bytes([byte]))
            bench.clock.advance(1.0)
        self.assertFalse(peer.closed)
        for byte in data[9:11]:
            peer.send_bytes(bytes([byte]))
            bench.clock.advance(1.0)
        self.assertTrue(peer.closed)

    def test_authorized_in_time(self) -> None:
        """K-15: once authorized, the ten seconds are over."""
        bench = PoolBench().start()
        peer = bench.connect().authorize()
        bench.at(60.0)
        self.assertFalse(peer.closed)

    def test_large_first_frame(self) -> None:
        """K-07: 1 KiB before authorize, 64 KiB after it."""
        bench = PoolBench().start()
        peer = bench.connect(FRAME)
        peer.send_bytes(encode_frame(b" " * 1025)[:5])
        peer.hear()
        self.assertEqual(peer.closes, ["frame too large"])
        peer = bench.connect(FRAME).authorize()
        peer.send_bytes(encode_frame(b'{"id":2,"method":"ping"}'.ljust(65536)))
        self.assertEqual(peer.hear(), [{"id": 2, "result": True}])


class JobAtOnceTests(SynchronousTestCase):
    """K-21, K-22: a session hears of jobs from the moment it is one."""

    def test_current_job_follows_the_answer(self) -> None:
        """K-22: the current job comes right after the answer, in the same turn."""
        bench = PoolBench().start()
        peer = bench.connect().authorize()
        job = bench.book.current
        assert job is not None
        self.assertEqual(
            peer.messages,
            [
                {"id": 1, "result": True},
                {
                    "id": None,
                    "method": "job",
                    "params": {"job_id": job.job_id, "server_nonce": job.server_nonce},
                },
            ],
        )

    def test_visible_only_while_it_lives(self) -> None:
        """K-21: no broadcast reaches who has not authorized, nor who has gone."""
        bench = PoolBench(interval=5.0).start()
        waiting, gone = bench.connect(), bench.connect().authorize("bob")
        gone.leave()
        gone.raw()
        self.assertEqual(len(bench.channel), 0)
        bench.at(5.0)
        self.assertEqual(len(bench.published), 2)
        self.assertEqual(waiting.raw() + gone.raw(), b"")

    def test_every_broadcast_from_then_on(self) -> None:
        """K-21, K-26: who has authorized misses no rotation."""
        bench = PoolBench().start()
        peer = bench.connect().authorize()
        for turn in range(1, 6):
            bench.at(30.0 * turn)
            (message,) = peer.hear()
            self.assertEqual(message["params"]["job_id"], bench.published[-1].job_id)

    def test_session_scope(self) -> None:
        """K-55: in the nonce scope `session`, every session's job is its own."""
        bench = PoolBench(session=SessionSettings(nonce_scope="session")).start()
        peers = [bench.connect().authorize("alice") for _ in range(3)]
        nonces = {p.job["server_nonce"] for p in peers if p.job}
        self.assertEqual(len(nonces), 3)
        bench.at(30.0)
        for peer in peers:
            before = peer.job
            (message,) = peer.hear()
            assert before is not None
            self.assertEqual(message["params"]["server_nonce"][-16:], before["server_nonce"][-16:])
            self.assertNotEqual(message["params"]["server_nonce"], before["server_nonce"])


class SlowChecker:
    """A checker that answers when it is told to."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, Deferred[bytes]]] = []

    def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred()
        self.asked.append((credentials.username, credentials.password, answer))  # type: ignore[attr-defined]
        return answer


class PasswordTests(SynchronousTestCase):
    """K-17: a pluggable checker in front of authorize."""

    def bench_with(self, *checkers: object) -> PoolBench:
        return PoolBench(checkers=checkers).start()

    def assert_in(self, bench: PoolBench, name: str, **password: str) -> None:
        peer = bench.connect().authorize(name, **password)
        self.assertEqual(peer.messages[0], {"id": 1, "result": True})
        self.assertEqual(peer.messages[1]["method"], "job")

    def assert_out(self, bench: PoolBench, name: str, **password: str) -> None:
        peer = bench.connect().authorize(name, **password)
        error = {"id": 1, "result": False, "error": "unauthorized", "code": 24}
        self.assertEqual(peer.messages[0], error)
        self.assertEqual(peer.closes, ["unauthorized"])
        self.assertTrue(peer.closed)

    def test_memory_checker(self) -> None:
        bench = self.bench_with(InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret"))
        self.assert_in(bench, "alice", password="secret")
        self.assert_in(bench, "alice.rig1", password="secret")
        self.assert_out(bench, "alice", password="wrong")
        self.assert_out(bench, "alice")
        self.assert_out(bench, "bob", password="secret")

    def test_file_checker(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("alice:secret\nbob:other\n")
        bench = self.bench_with(FilePasswordDB(path))
        self.assert_in(bench, "bob", password="other")
        self.assert_out(bench, "bob", password="secret")
        self.assert_out(bench, "carol", password="secret")

    def test_several_checkers(self) -> None:
        """K-17: each is asked in turn."""
        bench = self.bench_with(
            InMemoryUsernamePasswordDatabaseDontUse(alice=b"a"),
            InMemoryUsernamePasswordDatabaseDontUse(bob=b"b"),
        )
        self.assert_in(bench, "bob", password="b")
        self.assert_out(bench, "bob", password="a")

    def test_checker_that_fails(self) -> None:
        """K-17: where a checker cannot tell, nobody gets in, and may come back."""

        class Broken:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: object) -> object:
                raise OSError("the directory is away")

        bench = self.bench_with(Broken())
        peer = bench.connect().authorize("alice", password="secret")
        error = {"id": 1, "result": False, "error": "Temporarily unavailable", "code": 27}
        self.assertEqual(peer.messages[0], error)
        self.assertEqual(peer.messages[1]["params"]["code"], 4103)
        self.assertTrue(peer.messages[1]["params"]["reconnect"])
        self.assertNotIn("retry_after", peer.messages[1]["params"])  # nobody knows when
        self.assertTrue(peer.closed)
        self.assertEqual(bench.pool.sessions, 0)
        self.assertEqual(len(self.flushLoggedErrors(CannotTell)), 1)

    def turned_away(self, bench: PoolBench) -> bool:
        """Whether the address of the peers has had its one refusal, in ten seconds."""
        unwanted = bench.manager.unwanted("192.0.2.1")
        bench.clock.advance(10.0)
        return unwanted

    def test_refusals_are_counted_for_the_address(self) -> None:
        """Issue 15, acceptance 2: a wrong password, a login too many, and any other first message;
        a checker that cannot tell is no fault of the peer.
        """
        bench = PoolBench(
            checkers=[InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret")],
            login=LoginSettings(delay=0.0, address_failures=1, user_failures=0),
            refusals_per_ip=0.1,
        ).start()
        self.assert_in(bench, "alice", password="secret")
        self.assertFalse(self.turned_away(bench))
        self.assert_out(bench, "alice", password="wrong")
        self.assertTrue(self.turned_away(bench))
        peer = bench.connect().authorize("alice", password="secret")
        self.assertEqual(peer.messages[1]["params"]["code"], 4103)
        self.assertEqual(peer.messages[1]["params"]["retry_after"], 50.0)
        self.assertTrue(self.turned_away(bench))
        bench.connect().send({"id": 1, "method": "submit"})
        self.assertTrue(self.turned_away(bench))

    def test_what_is_no_fault_of_the_peer_is_not_counted(self) -> None:
        class Away:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: object) -> object:
                raise RequestError(UNAVAILABLE)

        bench = PoolBench(checkers=[Away()], refusals_per_ip=0.1).start()
        peer = bench.connect().authorize("alice", password="secret")
        self.assertEqual(peer.messages[1]["params"]["code"], 4103)
        self.assertFalse(self.turned_away(bench))

    def test_a_login_that_fails_in_another_way(self) -> None:
        """It ends the connection, and the log has what failed."""
        bench = self.bench_with(SlowChecker())
        assert bench.logins is not None
        self.patch(bench.logins, "check", lambda *given: fail(RuntimeError("broken")))
        peer = bench.connect().authorize("alice")
        self.assertEqual((peer.messages, peer.transport.aborted), ([], True))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_no_usable_checker(self) -> None:
        class Other:
            credentialInterfaces = ()

        self.assertRaises(NoUsableChecker, Authenticator, Clock(), [Other()])

    def test_messages_wait_for_the_checker(self) -> None:
        """K-11: what arrives while a password is checked is handled after it, in order."""
        checker = SlowChecker()
        bench = self.bench_with(checker)
        peer = bench.connect()
        authorize = {
            "id": 1,
            "method": "authorize",
            "params": {"username": "alice", "password": "p"},
        }
        peer.send(authorize, {"id": 2, "method": "ping"})
        peer.send({"id": 3, "method": "ping"}, {"id": 4, "method": "nonsense"})
        self.assertEqual(peer.hear(), [])
        self.assertFalse(peer.transport.reading)
        ((user, password, answer),) = checker.asked
        self.assertEqual((user, password), (b"alice", b"p"))
        answer.callback(b"alice")
        heard = peer.hear()
        self.assertEqual([m["id"] for m in heard], [1, None, 2, 3, 4])
        self.assertEqual(heard[-1]["error"], "unknown method")
        self.assertTrue(peer.transport.reading)

    def test_a_password_that_is_known_is_not_checked_again(self) -> None:
        """K-17: the answer comes at once."""

        @implementer(IQuickChecker)
        class Quick(SlowChecker):
            def quick(self, username: str, password: str) -> str:
                return "worker" if (username, password) == ("alice", "p") else ""

            def owner(self, token: str) -> tuple[str, str] | None:
                return None

            def role_of(self, username: str) -> str:
                return ""

        checker = Quick()
        self.assert_in(self.bench_with(checker), "alice.rig", password="p")
        self.assertEqual(checker.asked, [])

    def test_refused_with_messages_waiting(self) -> None:
        """K-14: after a wrong password nothing that waited is answered."""
        from twisted.cred.error import UnauthorizedLogin

        checker = SlowChecker()
        peer = self.bench_with(checker).connect()
        authorize = {"id": 1, "method": "authorize", "params": {"username": "alice"}}
        peer.send(authorize, {"id": 2, "method": "ping"})
        self.assertEqual(checker.asked[0][:2], (b"alice", b""))
        checker.asked[0][2].errback(UnauthorizedLogin())
        self.assertEqual([m["id"] for m in peer.hear()], [1, None])
        self.assertEqual(peer.closes, ["unauthorized"])

    def test_gone_before_the_answer(self) -> None:
        """K-21: who left while the password was checked gets no session."""
        checker = SlowChecker()
        bench = self.bench_with(checker)
        peer = bench.connect().authorize("alice")
        peer.leave()
        checker.asked[0][2].callback(b"alice")
        self.assertEqual(bench.pool.sessions, 0)
        self.assertEqual(len(bench.channel), 0)

    def test_checker_that_never_answers(self) -> None:
        """K-15, K-17: a checker has ten seconds too; then the client may come back."""
        checker = SlowChecker()
        bench = self.bench_with(checker)
        peer = bench.connect().authorize("alice")
        bench.at(11.0)
        peer.hear()
        self.assertEqual(peer.closes, ["try again"])
        checker.asked[0][2].callback(b"alice")
        self.assertEqual(bench.pool.sessions, 0)
