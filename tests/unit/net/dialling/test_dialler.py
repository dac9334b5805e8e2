"""The side that dials: one conversation, in each framing, against a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from kupool.net.dialling import deadlines
from kupool.net.dialling.dialler import CUT_AFTER, ClientState, Dialler, Ended, Place, User
from kupool.net.dialling.failures import ConnectionEnded, NotWanted, RequestTimeout
from kupool.net.dialling.settings import DialSettings, framing_for
from kupool.session.connection import Connection
from kupool.wire.framing import FRAMINGS, OP_CLOSE, OP_PING, OP_PONG, Control, Item, encode_frame
from kupool.wire.incoming import ServerMessage
from tests.fakes.client_script import ScriptedEndpoint, ScriptedTransport
from tests.fakes.raising import ENDINGS


class PausedClock(Clock):
    """A clock whose timers are all due before anything is read, one turn after the other."""

    def turn(self) -> None:
        """Run what is due now, but not what that schedules."""
        due = [call for call in self.getDelayedCalls() if call.getTime() <= self.seconds()]
        for call in sorted(due, key=lambda call: call.getTime()):
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

    def pause(self, seconds: float) -> None:
        """Let time pass in which nothing runs."""
        self.rightNow += seconds


class Case(SynchronousTestCase):
    """A dialler on a fake clock, and what its user was told."""

    def make(self, framing: str = "frame", **settings: Any) -> ScriptedTransport:
        self.clock = PausedClock()
        self.told: list[Any] = []
        self.greet: Callable[[Connection], object] = lambda connection: None
        self.give_up: Exception | None = None
        self.endpoint = ScriptedEndpoint(framing)
        chosen = {
            "backoff_first": 1.0,
            "backoff_most": 30.0,
            "steady_after": 10.0,
            "connect_timeout": 10.0,
            "keepalive": 0.0,
            "silence": 0.0,
            "close_timeout": 5.0,
            "write_timeout": 1000.0,
            "max_frame": 65536,
            "most_pending": 100,
        }
        self.dialler = Dialler(
            self.clock,
            [Place("here", self.endpoint)],
            framing_for(framing),
            User(
                lambda connection: self.greet(connection),
                lambda connection, place: self.told.append("up"),
                self.received,
                lambda why, stood: self.told.append(("down", why)),
                self.again,
                lambda why: self.told.append(("gone", why)),
            ),
            settings=DialSettings(**{**chosen, **settings}),
            counters=Counter(),
            random=lambda: 1.0,
        )
        self.dialler.start()
        return self.endpoint.last

    def received(
        self, connection: Connection, item: Item, message: ServerMessage | None
    ) -> bytes | None:
        if message is None:
            self.told.append("garbage")
        elif message.method is None:
            self.told.append((message.id, json.loads(bytes(message.result)), message.error))
        else:
            self.told.append((message.method, json.loads(bytes(message.params))))
        return None

    def again(self, ended: Ended, wait: float | None) -> Exception | None:
        self.told.append(("again", wait))
        self.ended = ended
        return self.give_up

    def ask(self, timeout: float | None = None) -> list[Any]:
        """Send a request; returns the list that gets what becomes of it."""
        outcome: list[Any] = []
        number = self.dialler.answers.next_id()
        self.dialler.answers.expect(number, outcome.append, timeout)
        connection = self.dialler.connection
        assert connection is not None
        connection.send(b'{"id":%d}' % number)
        return outcome


class ConversationTests(Case):
    """What a server says, and what is answered: protocol.md, sections 1 and 2."""

    @given(st.sampled_from(sorted(FRAMINGS)), st.data())
    def test_any_split_gives_the_same_messages(self, framing: str, data: st.DataObject) -> None:
        """Messages that are cut anywhere are the same messages."""
        transport = self.make(framing)
        messages: list[dict[str, Any]] = [
            {"id": 1, "result": True},
            {"id": None, "method": "job", "params": {"job_id": 1, "server_nonce": "ab"}},
            {"id": 2, "result": False, "error": "Invalid result", "code": 23},
        ]
        encode = FRAMINGS[framing].encode
        stream = b"".join(encode(json.dumps(m).encode()) for m in messages)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if end > start:
                transport.protocol.dataReceived(stream[start:end])
        self.assertEqual(
            self.told,
            [
                "up",
                (1, True, None),
                ("job", {"job_id": 1, "server_nonce": "ab"}),
                (2, False, "Invalid result"),
            ],
        )

    @given(st.sampled_from(sorted(FRAMINGS)), st.lists(st.binary(max_size=80), max_size=20))
    def test_no_bytes_raise(self, framing: str, reads: list[bytes]) -> None:
        """Whatever a server sends, nothing is raised and the user hears of one end."""
        transport = self.make(framing, max_frame=200)
        for data in reads:
            if not transport.gone:
                transport.protocol.dataReceived(data)
        transport.drop()
        ends = [t for t in self.told if isinstance(t, tuple) and t[0] == "down"]
        self.assertEqual(len(ends), 1)
        self.dialler.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ping_is_answered_with_its_payload(self) -> None:
        """Opcode ping gets a pong with the same payload; a pong is taken."""
        transport = self.make()
        transport.say_control(OP_PING, b"abc")
        transport.say_control(OP_PONG, b"abc")
        self.assertEqual(transport.heard(), [Control(OP_PONG, b"abc")])
        self.assertEqual(self.told, ["up"])

    def test_pings_are_answered_in_every_framing(self) -> None:
        """P-15: by the method, too; what gets no reply gets a sign of life."""
        for framing in FRAMINGS:
            transport = self.make(framing)
            transport.say({"id": "a", "method": "ping"})
            self.assertEqual(transport.heard(), [{"id": "a", "result": True}], framing)
            transport.say({"id": None, "method": "ping"})
            self.assertEqual(len(transport.heard()), 1, framing)

    def test_pings_are_not_answered_without_bound(self) -> None:
        """A server that pings and does not read gets no heap of answers."""
        transport = self.make()
        assert transport.producer is not None
        transport.producer.pauseProducing()
        for _ in range(100):
            transport.say_control(OP_PING, b"abc")
        transport.producer.resumeProducing()
        self.assertEqual(transport.heard(), [Control(OP_PONG, b"abc")])
        transport.say_control(OP_PING, b"d")
        self.assertEqual(transport.heard(), [Control(OP_PONG, b"d")])

    def test_nothing_is_heard_after_a_close(self) -> None:
        transport = self.make()
        close = encode_frame(b"server going down", OP_CLOSE)
        late = FRAMINGS["frame"].encode(b'{"id":1,"result":true}')
        transport.protocol.dataReceived(close + late)
        self.assertEqual(self.told[:2], ["up", ("down", "server going down")])
        self.assertTrue(transport.gone)

    def test_too_large_is_refused_from_the_header(self) -> None:
        transport = self.make(max_frame=100)
        transport.protocol.dataReceived(b"\x02\xff\xff\xff\xff")
        self.clock.advance(5 + CUT_AFTER)
        self.assertTrue(transport.gone)
        self.assertEqual(self.told[1], ("down", "what the server sent: frame too large"))

    def test_garbage_is_the_users(self) -> None:
        transport = self.make()
        transport.say(b"[1]", b"{")
        self.assertEqual(self.told, ["up", "garbage", "garbage"])


class EndTests(Case):
    """K-64: how a client says goodbye."""

    def test_in_frame(self) -> None:
        """K-64: OpClose is sent, after what was sent before it; answers are still taken."""
        transport = self.make()
        answer = self.ask()
        stopped = self.dialler.stop(1.0)
        self.dialler.stop(1.0)
        self.assertEqual(transport.heard(), [{"id": 1}, Control(OP_CLOSE, b"")])
        transport.say({"id": 1, "result": True})
        self.assertEqual(len(answer), 1)
        self.assertNoResult(stopped)
        transport.drop()
        self.successResultOf(stopped)
        self.assertEqual(self.dialler.state, ClientState.CLOSED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_elsewhere(self) -> None:
        """K-64: where there is no opcode, the end of the stream says it."""
        for framing in ("int32", "line"):
            transport = self.make(framing)
            answer = self.ask()
            self.dialler.stop(1.0)
            self.assertTrue(transport.half_closed)
            transport.say({"id": 1, "result": True})
            transport.drop()
            self.assertEqual(len(answer), 1)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_under_tls(self) -> None:
        """K-64: TLS has no half-closed connections: it is ended as a whole."""
        transport = self.make("line")
        alsoProvides(transport, ISSLTransport)
        self.dialler.stop(1.0)
        self.assertFalse(transport.half_closed)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.told, ["up", ("down", "closed")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_an_echo(self) -> None:
        """K-64: a server that does not react is left after the timeout, then cut off."""
        transport = self.make()
        transport.deaf = True
        self.dialler.stop(1.0)
        self.clock.advance(0.99)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.01)
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.aborted)
        self.clock.advance(CUT_AFTER)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.told, ["up", ("down", "closed")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_announces_and_does_not_end(self) -> None:
        """It is cut off, and the client comes back as the close says."""
        transport = self.make()
        transport.deaf = True
        transport.say_control(OP_CLOSE, b"slow reader")
        self.clock.advance(CUT_AFTER)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.told[1:], [("down", "slow reader"), ("again", 1.0)])


class AttemptTests(Case):
    """Issue 12: attempts, greetings, and the states in between."""

    def test_states(self) -> None:
        transport = self.make()
        self.assertIs(self.dialler.state, ClientState.CONNECTED)
        transport.drop()
        self.assertIs(self.dialler.state, ClientState.WAITING)
        self.endpoint.mood = "hang"
        self.clock.advance(1.0)
        self.assertIs(self.dialler.state, ClientState.CONNECTING)
        self.clock.advance(10.0)
        self.assertEqual(self.endpoint.cancelled, 1)
        self.endpoint.mood = "accept"
        self.clock.advance(2.0)
        self.assertIs(self.dialler.state, ClientState.CONNECTED)
        self.endpoint.last.say_control(OP_CLOSE, b"banned")
        self.assertIs(self.dialler.state, ClientState.GONE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_wanted(self) -> None:
        """Issue 12: an event with the code, and nothing more happens until it is begun anew."""
        transport = self.make()
        transport.say_control(OP_CLOSE, b"banned")
        kind, why = self.told[-1]
        self.assertEqual(kind, "gone")
        assert isinstance(why, NotWanted)
        self.assertEqual((why.code, why.reason), (4503, "banned"))
        self.assertIn("(4503)", str(why))
        self.clock.advance(100_000)
        self.assertEqual(self.endpoint.attempts, 1)
        self.dialler.start()
        self.assertEqual(self.endpoint.attempts, 2)
        self.assertIs(self.dialler.state, ClientState.CONNECTED)

    def test_not_wanted_while_it_greets(self) -> None:
        transport = self.make()
        transport.drop()
        self.greet = lambda connection: Deferred()
        self.clock.advance(1.0)
        self.endpoint.last.say_control(OP_CLOSE, b"unauthorized")
        self.assertEqual(self.told[-1][0], "gone")
        self.assertIs(self.dialler.state, ClientState.GONE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_user_gives_up(self) -> None:
        for mood in ("accept", "refuse"):
            transport = self.make()
            self.give_up = ValueError("enough")
            self.endpoint.mood = mood
            transport.drop()
            self.assertEqual(self.told[-1], ("gone", self.give_up))
            self.clock.advance(1000)
            self.assertEqual(self.endpoint.attempts, 1)

    def test_a_greeting_that_takes_time(self) -> None:
        """Issue 12: it may be a coroutine, and may ask the server; the session stands then."""
        transport = self.make()
        transport.drop()
        self.told.clear()
        answers: list[Any] = []

        async def greet(connection: Connection) -> None:
            answered: Deferred[Any] = Deferred()
            self.dialler.answers.expect(77, answered.callback)
            answers.append(await answered)

        self.greet = greet
        self.clock.advance(1.0)
        self.assertEqual(self.told, [])
        self.endpoint.last.say({"id": 77, "result": "hello"})
        self.assertEqual((len(answers), self.told), (1, ["up"]))

    def test_whatever_a_greeting_raises(self) -> None:
        """Issue 12: it costs that attempt, and nothing else."""
        for error in (ValueError, SystemExit, KeyboardInterrupt, CancelledError):
            for late in (False, True):
                transport = self.make()
                transport.drop()

                def now(connection: Connection, error: type[BaseException] = error) -> None:
                    raise error

                async def later(connection: Connection, error: type[BaseException] = error) -> None:
                    raise error

                self.greet = later if late else now
                self.clock.advance(1.0)
                self.assertTrue(self.endpoint.last.gone)
                self.assertEqual(self.told[-1], ("again", 2.0))
                self.greet = lambda connection: None
                self.clock.advance(2.0)
                self.assertEqual(self.told[-1], "up")

    def test_a_greeting_whose_connection_ends(self) -> None:
        """Issue 12: whatever it raises then, what has happened is that the connection ended."""
        for error in ENDINGS:
            self.make().drop()
            waiting: Deferred[None] = Deferred()

            async def greet(
                connection: Connection,
                waiting: Deferred[None] = waiting,
                error: type[BaseException] = error,
            ) -> None:
                try:
                    await waiting
                finally:
                    raise error

            self.greet = greet
            self.clock.advance(1.0)
            self.endpoint.last.drop()
            self.assertIsInstance(self.ended.error, ConnectionEnded)

    def test_asyncio_cancelled(self) -> None:
        transport = self.make()
        transport.drop()

        async def greet(connection: Connection) -> None:
            raise asyncio.CancelledError

        self.greet = greet
        self.clock.advance(1.0)
        self.assertEqual(self.told[-1], ("again", 2.0))

    def test_stopped_at_any_time(self) -> None:
        """Nothing is left behind, whatever it was doing."""

        def never(connection: Connection) -> object:
            return Deferred()

        for mood, greet in (("hang", None), ("refuse", None), ("accept", never)):
            transport = self.make()
            transport.drop()
            self.endpoint.mood = mood
            if greet is not None:
                self.greet = greet
            self.clock.advance(1.0)
            stopped = self.dialler.stop(1.0)
            self.endpoint.last.drop()
            self.successResultOf(stopped)
            self.assertEqual(self.clock.getDelayedCalls(), [], mood)
            self.clock.advance(1000)
            self.assertIs(self.dialler.state, ClientState.CLOSED)


class DeadlineTests(Case):
    """Case 16: what has arrived is read before anything counts as late or silent."""

    def test_in_time_and_late(self) -> None:
        transport = self.make()
        first, second = self.ask(3.0), self.ask(3.0)
        self.clock.advance(2.9)
        transport.say({"id": 1, "result": 1})
        self.assertIsInstance(first[0], ServerMessage)
        self.clock.advance(0.2)
        self.assertIsInstance(second[0], RequestTimeout)
        transport.say({"id": 2, "result": 2})
        self.assertEqual((len(first), len(second)), (1, 1))

    def test_many_share_a_timer(self) -> None:
        """One timer for requests with the same time to go; each is due at its own."""
        self.make()
        before = len(self.clock.getDelayedCalls())
        asked = []
        for _ in range(50):
            asked.append(self.ask(3.0))
            self.clock.advance(0.01)
        self.assertEqual(len(self.clock.getDelayedCalls()), before + 1)
        self.clock.advance(3.0 - 0.25)
        late = sum(bool(outcome) for outcome in asked)
        self.assertTrue(20 <= late <= 30, late)
        self.clock.advance(0.3)
        self.assertTrue(all(outcome for outcome in asked))

    def test_different_times_share_a_timer(self) -> None:
        """One timer for requests with times to go of their own, too."""
        transport = self.make()
        before = len(self.clock.getDelayedCalls())
        asked = [self.ask(1.0 + n / 10) for n in range(50)]
        never = self.ask(1e12)
        self.assertEqual(len(self.clock.getDelayedCalls()), before + 1)
        self.clock.advance(2.95)
        self.assertEqual([bool(outcome) for outcome in asked], [True] * 20 + [False] * 30)
        self.clock.advance(1000.0)
        self.assertTrue(all(asked))
        self.assertEqual(never, [])
        transport.drop()
        self.assertIsInstance(never[0], ConnectionEnded)

    def test_the_end_tells_all(self) -> None:
        transport = self.make()
        asked = [self.ask(3.0), self.ask()]
        transport.drop()
        for outcome in asked:
            self.assertIsInstance(outcome[0], ConnectionEnded)

    def test_an_answer_that_came_while_we_were_stopped(self) -> None:
        transport = self.make()
        outcome = self.ask(3.0)
        self.clock.pause(60.0)
        self.clock.turn()  # the deadline, before the sockets are looked at
        self.assertEqual(outcome, [])
        transport.say({"id": 9, "result": True})  # there is more to be read than one turn takes
        self.clock.turn()
        self.assertEqual(outcome, [])
        transport.say({"id": 1, "result": True})
        self.clock.turn()
        self.clock.turn()
        (reply,) = outcome
        self.assertIsInstance(reply, ServerMessage)

    def test_an_answer_that_came_while_another_was_judged(self) -> None:
        """A pause that begins when one is judged already: for the other, more is read."""
        for timeout in (3.0, 2.5):
            transport = self.make()
            first = self.ask(3.0)
            self.clock.advance(1.0)
            second = self.ask(timeout)
            self.clock.pause(2.0)
            self.clock.turn()  # the first is due, and what has arrived is read
            self.clock.pause(60.0)
            self.clock.turn()
            self.assertEqual(second, [], timeout)
            transport.say({"id": 2, "result": True})
            for _ in range(3):
                self.clock.turn()
            self.assertIsInstance(first[0], RequestTimeout)
            self.assertIsInstance(second[0], ServerMessage)
            self.assertEqual((len(first), len(second)), (1, 1))

    def test_an_answer_that_did_not_come(self) -> None:
        self.make()
        outcome = self.ask(3.0)
        self.clock.pause(60.0)
        self.clock.turn()
        self.clock.turn()
        self.assertIsInstance(outcome[0], RequestTimeout)

    def test_a_server_that_says_other_things_without_end(self) -> None:
        """What is read meanwhile puts a deadline off, but not for ever."""
        self.patch(deadlines, "MOST_TURNS", 3)
        transport = self.make()
        outcome = self.ask(3.0)
        self.clock.pause(60.0)
        for turn in range(5):
            self.assertEqual(outcome, [], turn)
            self.clock.turn()
            transport.say({"id": 9, "result": True})
        self.assertIsInstance(outcome[0], RequestTimeout)

    def test_a_server_that_spoke_while_we_were_busy(self) -> None:
        """A reactor that was blocked for less than a pause has not read it yet."""
        transport = self.make(silence=180.0)
        self.clock.pause(180.5)
        self.clock.turn()
        transport.say({"id": 9, "result": True})
        self.clock.turn()
        self.clock.turn()
        self.assertFalse(transport.gone)
        self.clock.advance(180.0)
        self.clock.advance(0.0)
        self.assertTrue(transport.aborted)

    def test_a_server_is_not_silent_while_we_are_stopped(self) -> None:
        transport = self.make(silence=180.0, keepalive=55.0)
        self.clock.advance(50.0)
        self.clock.pause(3600.0)
        for _ in range(3):
            self.clock.turn()
        self.assertFalse(transport.gone)
        self.assertEqual(transport.heard(), [Control(OP_PING, b"")])
        for _ in range(124):
            self.clock.advance(1.0)
        self.assertFalse(transport.gone)
        for _ in range(10):
            self.clock.advance(1.0)
        self.assertTrue(transport.aborted)


class KeepAliveTests(Case):
    """K-63, P-15: signs of life are asked for in every framing."""

    def test_asked_in_every_framing(self) -> None:
        for framing in [*FRAMINGS, "json"]:
            transport = self.make(framing, keepalive=5.0)
            for _ in range(2):
                self.clock.advance(5.0)
                if framing == "frame":
                    asked = transport.heard()
                    self.assertEqual(asked[-1], Control(OP_PING, b""))
                else:
                    self.assertEqual(transport.answer()["method"], "ping")
            self.assertEqual(self.told, ["up"])

    def test_a_server_that_knows_no_ping(self) -> None:
        """It is not asked again by what it counts as an error."""
        transport = self.make("line", keepalive=5.0)
        self.clock.advance(5.0)
        transport.answer(False, error="unknown method", code=31)
        self.clock.advance(60.0)
        self.assertEqual(transport.heard(), [])

    def test_a_server_that_takes_nothing(self) -> None:
        transport = self.make(write_timeout=4.0)
        assert transport.producer is not None
        transport.producer.pauseProducing()
        self.ask()
        for _ in range(7):
            self.clock.advance(1.0)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.told[1], ("down", "the server read nothing for 4 s"))
