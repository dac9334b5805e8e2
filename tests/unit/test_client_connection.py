"""One connection of a client, in each framing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import INegotiated
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from kupool.client.answers import Incoming
from kupool.client.connection import CUT_AFTER, MAX_MALFORMED, ClientConnection
from kupool.wire.framing import FRAMINGS, OP_CLOSE, OP_PING, OP_PONG, Control, encode_frame
from tests.unit.client_script import ScriptedTransport


class Recorder:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.reply_with = b""

    def opened(self, connection: ClientConnection) -> None:
        self.told.append("opened")

    def replied(self, connection: ClientConnection, reply: Incoming) -> None:
        self.told.append((reply.id, reply.result, reply.error))
        if self.reply_with:
            connection.send(self.reply_with)

    def notified(self, connection: ClientConnection, message: Incoming) -> None:
        self.told.append((message.method, json.loads(bytes(message.params))))

    def ended(self, connection: ClientConnection, reason: str) -> None:
        self.told.append(("ended", reason))


class ConnectionTests(SynchronousTestCase):
    """The protocol of one connection: protocol.md, sections 1 and 2."""

    def make(self, framing: str = "frame", max_frame: int = 65536) -> None:
        self.clock = Clock()
        self.receiver = Recorder()
        self.connection = ClientConnection(self.clock, FRAMINGS[framing], self.receiver, max_frame)
        self.transport = ScriptedTransport(FRAMINGS[framing])
        self.transport.protocol = self.connection
        self.connection.makeConnection(self.transport)

    def told(self) -> list[Any]:
        self.assertEqual(self.receiver.told[0], "opened")
        return self.receiver.told[1:]

    @given(st.sampled_from(sorted(FRAMINGS)), st.data())
    def test_any_split_gives_the_same_messages(self, framing: str, data: st.DataObject) -> None:
        """Messages that are cut anywhere are the same messages."""
        self.make(framing)
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
                self.connection.dataReceived(stream[start:end])
        self.assertEqual(
            self.told(),
            [
                (1, True, None),
                ("job", {"job_id": 1, "server_nonce": "ab"}),
                (2, False, "Invalid result"),
            ],
        )

    @given(st.sampled_from(sorted(FRAMINGS)), st.lists(st.binary(max_size=80), max_size=20))
    def test_no_bytes_raise(self, framing: str, reads: list[bytes]) -> None:
        """Whatever a server sends, nothing is raised and the receiver hears one end."""
        self.make(framing, max_frame=200)
        for data in reads:
            if not self.transport.gone:
                self.connection.dataReceived(data)
        self.transport.drop()
        ends = [t for t in self.receiver.told if isinstance(t, tuple) and t[0] == "ended"]
        self.assertEqual(len(ends), 1)
        self.clock.advance(1000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_sent_during_a_read_leaves_in_one_write(self) -> None:
        self.make()
        self.receiver.reply_with = b'{"id":7}'
        self.transport.say({"id": 1, "result": True}, {"id": 2, "result": True})
        self.assertEqual(self.transport.writes, 1)
        self.assertEqual(self.transport.heard(), [{"id": 7}, {"id": 7}])

    def test_ping_is_answered_with_its_payload(self) -> None:
        """Opcode ping gets a pong with the same payload; a pong is taken."""
        self.make()
        self.transport.say_control(OP_PING, b"abc")
        self.transport.say_control(OP_PONG, b"abc")
        self.assertEqual(self.transport.heard(), [Control(OP_PONG, b"abc")])
        self.assertEqual(self.told(), [])

    def test_pings_are_not_answered_without_bound(self) -> None:
        """A server that pings and does not read gets no heap of answers."""
        self.make()
        self.connection.pauseProducing()
        for _ in range(100):
            self.transport.say_control(OP_PING, b"abc")
        self.assertEqual(self.transport.heard(), [])
        self.connection.resumeProducing()
        self.transport.say_control(OP_PING, b"d")
        self.assertEqual(self.transport.heard(), [Control(OP_PONG, b"d")])

    def test_requests_of_the_server(self) -> None:
        """A ping is answered with true, any other method as unknown."""
        for framing in FRAMINGS:
            self.make(framing)
            self.transport.say(
                {"id": "a", "method": "ping"},
                {"id": "b", "method": "call", "params": {"topic": "x"}},
            )
            self.assertEqual(
                self.transport.heard(),
                [
                    {"id": "a", "result": True},
                    {"id": "b", "result": False, "error": "unknown method", "code": 31},
                ],
            )

    def test_close_opcode(self) -> None:
        """A close ends the connection, with the reason's text and what it means."""
        self.make()
        self.transport.say_control(OP_CLOSE, b"server restarting")
        self.assertEqual(self.told(), [("ended", "server restarting")])
        assert self.connection.closing is not None
        self.assertEqual(self.connection.closing.code, 4001)
        self.assertTrue(self.transport.disconnecting)

    def test_close_notification(self) -> None:
        for framing in ("int32", "line"):
            self.make(framing)
            params = {"reason": "banned", "code": 4503, "reconnect": False, "retry_after": 9}
            self.transport.say({"id": None, "method": "close", "params": params})
            self.assertEqual(self.told(), [("ended", "banned")])
            assert self.connection.closing is not None
            self.assertEqual(self.connection.closing.retry_after, 9)

    def test_nothing_is_heard_after_a_close(self) -> None:
        self.make()
        close = encode_frame(b"server going down", OP_CLOSE)
        late = FRAMINGS["frame"].encode(b'{"id":1,"result":true}')
        self.connection.dataReceived(close + late)
        self.assertEqual(self.told(), [("ended", "server going down")])

    def test_no_message_is_counted_and_too_many_end_it(self) -> None:
        self.make()
        for _ in range(MAX_MALFORMED - 1):
            self.transport.say(b"[1]")
        self.assertFalse(self.transport.gone)
        self.assertEqual(self.connection.malformed, MAX_MALFORMED - 1)
        self.transport.say(b"{")
        self.assertTrue(self.transport.gone)
        self.assertIn("no message", self.told()[-1][1])

    def test_too_large_is_refused_from_the_header(self) -> None:
        self.make(max_frame=100)
        self.connection.dataReceived(b"\x02\xff\xff\xff\xff")
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.told(), [("ended", "the server sent a message that is too large")])

    def test_finish_in_frame(self) -> None:
        """K-64: OpClose is sent, after what was sent before it; answers are still taken."""
        self.make()
        self.connection.send(b'{"id":5}')
        self.connection.finish(1.0)
        self.assertEqual(self.transport.heard(), [{"id": 5}, Control(OP_CLOSE, b"")])
        self.transport.say({"id": 5, "result": True})
        self.transport.drop()
        self.assertEqual(self.told()[0], (5, True, None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_finish_elsewhere(self) -> None:
        """K-64: where there is no opcode, the end of the stream says it."""
        for framing in ("int32", "line"):
            self.make(framing)
            self.connection.finish(1.0)
            self.assertTrue(self.transport.half_closed)
            self.transport.say({"id": 5, "result": True})
            self.transport.drop()
            self.assertEqual(self.told()[0], (5, True, None))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_finish_under_tls(self) -> None:
        """K-64: TLS has no half-closed connections: it is ended as a whole."""
        self.make("line")
        alsoProvides(self.transport, INegotiated)
        self.connection.finish(1.0)
        self.assertFalse(self.transport.half_closed)
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.told(), [("ended", "closed")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_finish_without_an_echo(self) -> None:
        """K-64: a server that does not react is left after the timeout, then cut off."""
        self.make()
        self.transport.deaf = True
        self.connection.finish(1.0)
        self.clock.advance(0.99)
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(0.01)
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.aborted)
        self.clock.advance(CUT_AFTER)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.told(), [("ended", "closed")])
        self.assertEqual(self.clock.getDelayedCalls(), [])
