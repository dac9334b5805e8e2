"""A-08..A-10, issue 13 build 4: clients of the predecessor's bus, byte by byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.compatible.frames import (
    PREDECESSOR,
    PredecessorFrame,
    PredecessorSplitter,
    read_frame,
    read_topics,
)
from kupool.bus.compatible.service import Offers, TopicRules
from kupool.net.testing import MemoryPeer
from kupool.settings import load
from kupool.wire.splitters import Item
from tests.fakes.daemon_case import DaemonCase
from tests.fakes.predecessor import (
    ACCEPTED,
    ALL,
    CALL,
    MAGIC,
    ONE,
    SPECIFIC,
    Fields,
    acknowledged,
    frame,
    frames,
    handshake,
    topics,
    websocket,
    websocket_messages,
)

PORT = 8002

#: The most bytes of a body.
MAX_BODY = 51_200

#: The first sequence of the bus's own messages.
FIRST_SEQUENCE = 2_147_483_648


class FrameTests(SynchronousTestCase):
    """A-08: what goes over the wire."""

    def test_bytes(self) -> None:
        golden = bytes.fromhex("0133c577 000003e9 000f4242 00000005 00000000 0000000c") + b"alice"
        made = PredecessorFrame(1001, 1000002, b"alice", low=12)
        self.assertEqual(made.encode(), golden)
        self.assertEqual(read_frame(golden), made)
        self.assertEqual(PREDECESSOR.splitter(65536).feed(golden), [golden])
        self.assertEqual(PREDECESSOR.encode(golden), golden)
        self.assertEqual(PREDECESSOR.join([golden, golden]), golden + golden)

    def test_cut_anywhere(self) -> None:
        """A-10: at each byte of a header and of a body, into two parts and into single bytes."""
        sent = [frame(1, 7, topics(1001)), frame(3, 0), frame(2**32 - 1, 2**32 - 1, b"x" * 300)]
        data = b"".join(sent)
        for cut in range(len(data) + 1):
            splitter = PREDECESSOR.splitter(65536)
            self.assertEqual([*splitter.feed(data[:cut]), *splitter.feed(data[cut:])], sent, cut)
            self.assertEqual(splitter.buffered, 0)
        splitter = PREDECESSOR.splitter(65536)
        found: list[Item] = []
        for byte in data:
            found += splitter.feed(bytes((byte,)))
        self.assertEqual(found, sent)

    @given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 300)))
    def test_any_pieces(self, bodies: list[bytes], cuts: list[int]) -> None:
        """A-10: whole, however the bytes are cut."""
        sent = [frame(1001, n, body, CALL) for n, body in enumerate(bodies)]
        data = b"".join(sent)
        splitter = PREDECESSOR.splitter(65536)
        found: list[Any] = []
        for cut in cuts:
            found += splitter.feed(data[:cut])
            data = data[cut:]
        found += splitter.feed(data)
        self.assertEqual(found, sent)

    def test_a_wrong_magic_ends_with_its_first_wrong_byte(self) -> None:
        """A-09: a peer that says something else need not say 24 bytes of it."""
        good = frame(1001, 1, b"x", CALL)
        for place in range(4):
            for before in (b"", good):
                wrong = bytearray(good)
                wrong[place] ^= 1
                splitter = PREDECESSOR.splitter(65536)
                found = splitter.feed(before)
                for byte in wrong[:place]:
                    self.assertEqual(splitter.feed(bytes((byte,))), [])
                    self.assertFalse(splitter.corrupt)
                self.assertEqual(splitter.feed(wrong[place : place + 1]), [])
                self.assertEqual((splitter.corrupt, splitter.buffered), (True, 0))
                self.assertEqual(found, [before] if before else [])
                self.assertEqual(splitter.feed(good), [], "for good")

    def test_length(self) -> None:
        """A-09: told from the header alone; nothing is held for it."""
        most = frame(1001, 1, b"x" * MAX_BODY, CALL)
        self.assertEqual(PREDECESSOR.splitter(1_000_000).feed(most), [most])
        splitter = PREDECESSOR.splitter(1_000_000)
        self.assertEqual(splitter.feed(frame(1001, 1, low=CALL, length=MAX_BODY + 1)), [])
        self.assertEqual((splitter.too_large, splitter.buffered), (True, 24))
        self.assertEqual(PredecessorSplitter(10).feed(frame(1, 1, b"x" * 11)), [])

    def test_no_frame(self) -> None:
        """A-09: of a WebSocket's message exactly one is wanted."""
        good = frame(1001, 1, b"xy", CALL)
        for wrong in (b"", good[:23], good[:-1], good + b"z", good + good,
                      frame(1001, 1, b"xy", CALL, magic=MAGIC + 1),
                      frame(1001, 1, b"x" * (MAX_BODY + 1), CALL)):  # fmt: skip
            self.assertIsNone(read_frame(wrong))

    def test_topics(self) -> None:
        """A-08: commands that are none of the protocol's own; other keys mean nothing."""
        for good, found in (
            (topics(1001, 1002), [1001, 1002]),
            (topics(3, 2**32 - 1), [3, 2**32 - 1]),
            (topics(), []),
            (b' {"topics" : [5], "more": {"x": null}} ', [5]),
        ):
            self.assertEqual(read_topics(good), found)
        for junk in (
            b"", b"{", b"null", b"[1001]", b"{}", b'"x"', b"\xff\xfe", b'{"topics":null}',
            b'{"topics":1001}', b'{"topics":{"a":1}}', topics("1001"), topics(1001, "1002"),
            topics(1001.5), topics(1001.0), topics(True), topics(None), topics([1001]), topics(-1),
            topics(0), topics(1), topics(2), topics(2**32), topics(10**30), b'{"Topics":[1001]}',
            b'{"topics":[1001]} {}', b'{"topics":[3],"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        ):  # fmt: skip
            self.assertIsNone(read_topics(junk), junk)


class _Raw:
    """The bytes as they are."""

    name = "raw"
    max_payload = 1 << 30
    corrupt = too_large = False

    def pack(self, message: Any) -> bytes:
        assert isinstance(message, bytes)
        return message

    def splitter(self, max_payload: int) -> Any:
        return self

    def feed(self, data: bytes) -> list[Item]:
        return [data]

    def resume(self) -> list[Item]:
        return []


class Client:
    """A client of the predecessor's bus, over TCP."""

    def __init__(self, peer: MemoryPeer) -> None:
        self.peer = peer

    def send(self, *data: bytes) -> None:
        self.peer.send(b"".join(data))

    def receive(self) -> list[Fields]:
        """What came since the last time."""
        return list(frames(self.peer.received()))

    def subscribe(self, *wanted: int, sequence: int = 7) -> None:
        """Subscribe, and take the acknowledgement."""
        self.send(frame(1, sequence, topics(*wanted)))
        received = self.receive()
        assert received == [(2, sequence, acknowledged(*wanted), 0, 0)], received

    def offered(self) -> Fields:
        """The one message that came."""
        (found,) = self.receive()
        return found


class Browser(Client):
    """The same over WebSocket, each frame a binary message."""

    def open(self, **headers: str) -> bytes:
        """Ask for a WebSocket; returns what is answered."""
        self.peer.send(handshake(**headers))
        return self.peer.received()

    def send(self, *data: bytes) -> None:
        self.peer.send(b"".join(map(websocket, data)))

    def messages(self) -> list[tuple[int, bytes]]:
        return list(websocket_messages(self.peer.received()))

    def receive(self) -> list[Fields]:
        received: list[Fields] = []
        for first, payload in self.messages():
            assert first == 0x82, (first, payload)
            (one,) = frames(payload)
            received.append(one)
        return received


class PredecessorCase(DaemonCase):
    settings = {"bus_compatible_addr": f"127.0.0.1:{PORT}"}

    def client(self, host: str = "192.0.2.1") -> Client:
        return Client(self.network.connect(PORT, _Raw(), host))

    def browser(self, **headers: str) -> Browser:
        """A client whose WebSocket is open."""
        browser = Browser(self.network.connect(PORT, _Raw()))
        opened = browser.open(**headers)
        assert opened.startswith(b"HTTP/1.1 101 "), opened
        assert ACCEPTED in opened, opened
        return browser

    def subscriber(self, *wanted: int) -> Client:
        client = self.client()
        client.subscribe(*wanted)
        return client

    @property
    def part(self) -> Any:
        assert self.daemon.parts.compatible is not None
        return self.daemon.parts.compatible

    @property
    def refused(self) -> dict[str, int]:
        """What was refused, by its reason."""
        counts = self.part.refusals.counts
        return {why.removeprefix("predecessor's clients, "): n for why, n in counts.items()}


class ConversationTests(PredecessorCase):
    """A-18, A-26, A-31, A-33: what the description says, in its order."""

    def test_off_by_default(self) -> None:
        self.stop()
        self.start()
        self.assertIsNone(self.daemon.parts.compatible)
        with self.assertRaises(error.ConnectionRefusedError):
            self.client()

    def test_subscribing(self) -> None:
        """1: acknowledged at once, the same way again, on this connection and on the next."""
        for _ in range(2):
            client = self.client()
            for sequence in (1000001, 0, 2**32 - 1):
                client.send(frame(1, sequence, topics(1001, 1002)))
                body = acknowledged(1001, 1002)
                self.assertEqual(client.peer.received(), frame(2, sequence, body))
            (subscriber,) = self.broker.status().subscribers
            self.assertEqual(subscriber.topics, ("1001", "1002"))
            client.send(frame(1, 5, topics(1003, 1001)))
            self.assertEqual(client.receive(), [(2, 5, acknowledged(1003, 1001), 0, 0)])
            (subscriber,) = self.broker.status().subscribers
            self.assertEqual(subscriber.topics, ("1001", "1002", "1003"))
            client.peer.abort()
            self.assertEqual(self.broker.status().subscribers, ())

    def test_subscribing_to_nothing(self) -> None:
        client = self.subscriber()
        self.assertEqual(self.broker.status().subscribers, ())
        client.subscribe(1001)

    def test_the_acknowledgement_comes_first(self) -> None:
        """A-24, A-32: before what waited for somebody to listen."""
        publisher = self.client()
        publisher.send(frame(1001, 0, b"kept", ALL), frame(1001, 9, b"asked", CALL))
        self.network.advance(1.0)
        client = self.client()
        client.send(frame(1, 7, topics(1001)))
        acknowledgement, *waited = client.receive()
        self.assertEqual(acknowledgement, (2, 7, acknowledged(1001), 0, 0))
        self.assertEqual({(body, low) for _, _, body, _, low in waited},
                         {(b"kept", ALL), (b"asked", CALL)})  # fmt: skip

    def test_reliable_to_one(self) -> None:
        """2, 3, 4: one of two is asked; whatever command its answer has, the publisher gets it."""
        subscribers = [self.subscriber(1001), self.subscriber(1001, 1002)]
        publisher = self.client()
        sequences = set()
        commands = [1001, 0, 1, 2, 77, 2**32 - 1]
        for n, command in enumerate(commands):
            for low in (0, CALL, 99):
                publisher.send(frame(1001, 1000002 + n, b"alice", CALL))
                ((subscriber, offered),) = [(s, f) for s in subscribers for f in s.receive()]
                _, sequence, *_ = offered
                self.assertEqual(offered, (1001, sequence, b"alice", 0, CALL))
                self.assertNotEqual(sequence, 1000002 + n)
                sequences.add(sequence)
                subscriber.send(frame(command, sequence, b"100", low))
                expected = frame(1001, 1000002 + n, b"100")
                self.assertEqual(publisher.peer.received(), expected)
        self.assertEqual(len(sequences), 3 * len(commands), "each has its own")
        self.network.advance(10.0)
        self.assertEqual([c.receive() for c in (publisher, *subscribers)], [[], [], []])

    def test_an_empty_answer(self) -> None:
        subscriber, publisher = self.subscriber(1001), self.client()
        publisher.send(frame(1001, 5, b"alice", CALL))
        subscriber.send(frame(1001, subscriber.offered()[1]))
        self.assertEqual(publisher.receive(), [(1001, 5, b"", 0, 0)])

    def test_timeout(self) -> None:
        """4: after 3,000 ms, with the body of the request, whether anybody listens or not."""
        for listens in (False, True):
            for low in (CALL, SPECIFIC):
                if listens:
                    self.subscriber(1001)
                publisher = self.client()
                publisher.send(frame(1001, 1000002, b"alice", low))
                self.network.advance(2.999)
                self.assertEqual(publisher.receive(), [])
                self.network.advance(0.002)
                self.assertEqual(publisher.peer.received(), frame(1001, 1000002, b"alice", high=1))
                self.assertEqual(len(self.broker.status().subscribers[:1]), listens)

    def test_the_time_does_not_go_by_the_setting(self) -> None:
        """4: --bus-timeout is for those who know of it."""
        self.stop()
        self.start(**self.settings, bus_timeout="20s")
        publisher = self.client()
        publisher.send(frame(1001, 5, b"x", CALL))
        self.network.advance(3.001)
        self.assertEqual(publisher.receive(), [(1001, 5, b"x", 1, 0)])

    def test_silence_is_not_mine(self) -> None:
        """3: who says nothing leaves it to others, and is asked no more."""
        subscribers = [self.subscriber(1001), self.subscriber(1001)]
        publisher = self.client()
        publisher.send(frame(1001, 5, b"bob", CALL))
        (silent,) = [s for s in subscribers if s.receive()]
        self.network.advance(1.001)
        (other,) = [s for s in subscribers if s is not silent]
        _, sequence, body, _, low = other.offered()
        self.assertEqual((body, low, publisher.receive()), (b"bob", CALL, []))
        other.send(frame(1001, sequence, b"7"))
        self.assertEqual(publisher.receive(), [(1001, 5, b"7", 0, 0)])
        self.network.advance(5.0)
        self.assertEqual(silent.receive(), [])

    def test_reliable_to_the_one_who_can(self) -> None:
        """A-26: all are asked, the first answer counts, no other is heard of."""
        subscribers = [self.subscriber(1001) for _ in range(3)]
        publisher = self.client()
        publisher.send(frame(1001, 5, b"bob", SPECIFIC))
        offers = [subscriber.offered() for subscriber in subscribers]
        self.assertEqual({(c, b, h, low) for c, _, b, h, low in offers},
                         {(1001, b"bob", 0, SPECIFIC)})  # fmt: skip
        self.network.advance(1.5)
        subscribers[2].send(frame(1001, offers[2][1], b"second"))
        self.assertEqual(publisher.receive(), [(1001, 5, b"second", 0, 0)])
        subscribers[0].send(frame(1001, offers[0][1], b"too late"))
        self.network.advance(5.0)
        self.assertEqual([c.receive() for c in (publisher, *subscribers)], [[]] * 4)

    def test_unreliable(self) -> None:
        """5: to all, or to one; never answered, whatever a subscriber says to it."""
        subscribers = [self.subscriber(1001) for _ in range(3)]
        publisher = self.client()
        for low, receivers in ((ALL, 3), (ONE, 1)):
            for sequence in (0, 1000007):
                publisher.send(frame(1001, sequence, b"news", low))
                got = [(s, f) for s in subscribers for f in s.receive()]
                self.assertEqual(len(got), receivers)
                for subscriber, (command, own, body, high, said) in got:
                    self.assertEqual((command, body, high, said), (1001, b"news", 0, low))
                    self.assertNotIn(own, (0, sequence))
                    subscriber.send(frame(1001, own, b"thanks", low))
                self.network.advance(5.0)
                self.assertEqual([c.receive() for c in (publisher, *subscribers)], [[]] * 4)
        self.assertEqual(self.broker.status().counts["published"], 4)

    def test_sequence_0_is_never_answered(self) -> None:
        """5: 12 means 11 there, and its subscribers see what was sent."""
        subscribers = [self.subscriber(1001) for _ in range(3)]
        publisher = self.client()
        for low, receivers in ((CALL, 1), (SPECIFIC, 3)):
            publisher.send(frame(1001, 0, b"news", low))
            got = [(s, f) for s in subscribers for f in s.receive()]
            self.assertEqual([f[4] for _, f in got], [low] * receivers)
            for subscriber, (_, own, *_) in got:
                self.assertNotEqual(own, 0)
                subscriber.send(frame(1001, own, b"answer", low))
            self.network.advance(5.0)  # nobody else is asked
            self.assertEqual([c.receive() for c in (publisher, *subscribers)], [[]] * 4)
        self.assertEqual(self.broker.status().counts, {"published": 2, "delivered": 2})

    def test_answers_that_come_too_late_are_no_messages(self) -> None:
        """6: even one that repeats all of the frame that it answers."""
        subscriber, publisher = self.subscriber(1001), self.client()
        late = []
        for low in (ALL, ONE, CALL, SPECIFIC):
            publisher.send(frame(1001, 5, b"x", low))
            late.append(frame(1001, subscriber.offered()[1], b"y", low))
        self.network.advance(4.0)
        publisher.receive()
        published = self.broker.status().counts["published"]
        subscriber.send(*late, *late)
        self.network.advance(4.0)
        self.assertEqual((publisher.receive(), subscriber.receive()), ([], []))
        self.assertEqual(self.broker.status().counts["published"], published)
        self.assertTrue(subscriber.peer.open)
        self.assertEqual(self.refused, {})

    def test_nobody_answers_for_another(self) -> None:
        """A sequence stands for a call on the connection that was asked, and on no other."""
        asked, publisher = self.subscriber(1001), self.client()
        attacker = self.subscriber(1002)
        publisher.send(frame(1001, 5, b"x", CALL))
        sequence = asked.offered()[1]
        attacker.send(*(frame(1001, sequence + n, b"mine", low) for n in range(-3, 4)
                        for low in (0, CALL) if low or sequence + n == sequence))  # fmt: skip
        self.assertEqual(publisher.receive(), [])
        asked.send(frame(1001, sequence, b"right"))
        self.assertEqual(publisher.receive(), [(1001, 5, b"right", 0, 0)])

    def test_one_connection_for_both(self) -> None:
        """7: one port serves publishers and subscribers, even as one and the same."""
        both = self.subscriber(1001)
        both.send(frame(1001, 1000002, b"alice", CALL))
        offered = both.offered()
        self.assertEqual(offered, (1001, FIRST_SEQUENCE, b"alice", 0, CALL))
        both.send(frame(1001, FIRST_SEQUENCE, b"myself", CALL))
        self.assertEqual(both.receive(), [(1001, 1000002, b"myself", 0, 0)])

    def test_a_publisher_chooses_any_sequence(self) -> None:
        """2: those that the broker has used, too."""
        subscriber, publisher = self.subscriber(1001), self.client()
        for sequence in (1, FIRST_SEQUENCE, FIRST_SEQUENCE + 1, 2**32 - 1):
            publisher.send(frame(1001, sequence, b"x", CALL))
            subscriber.send(frame(1001, subscriber.offered()[1], b"y"))
            self.assertEqual(publisher.receive(), [(1001, sequence, b"y", 0, 0)])

    def test_many_at_once(self) -> None:
        """A-10, A-22: each has its own answer, whatever the order."""
        subscriber, publisher = self.subscriber(1001), self.client()
        publisher.send(*(frame(1001, n, b"%d" % n, CALL) for n in range(1, 51)))
        offers = subscriber.receive()
        sequences = [sequence for _, sequence, *_ in offers]
        self.assertEqual(sequences, list(range(FIRST_SEQUENCE, FIRST_SEQUENCE + 50)))
        subscriber.send(*(frame(0, o[1], b"re:" + o[2]) for o in reversed(offers)))
        self.assertEqual(sorted(publisher.receive()),
                         [(1001, n, b"re:%d" % n, 0, 0) for n in range(1, 51)])  # fmt: skip

    def test_byte_by_byte(self) -> None:
        """A-10: a network that cuts every message into single bytes."""
        self.network.chunk = 1
        self.test_reliable_to_the_one_who_can()


class MalformedTests(PredecessorCase):
    """6, A-09: what cannot be understood ends the connection without a byte in return."""

    def test_each_of_them(self) -> None:
        good = frame(1001, 5, b"x", CALL)
        junk = {
            "a wrong magic": frame(1001, 5, b"x", CALL, magic=MAGIC + 1),
            "another protocol": b'{"id":1,"method":"authorize"}\n',
            "zeros": bytes(30),
            "noise": bytes(range(255, 200, -1)),
            "too long": frame(1001, 5, b"", CALL, length=MAX_BODY + 1),
            "far too long": frame(1001, 5, b"", CALL, length=2**32 - 1),
            "command 0": frame(0, 5, b"x", CALL),
            "an acknowledgement": frame(2, 5, acknowledged(1001)),
            "an acknowledgement to publish": frame(2, 5, b"x", CALL),
            "junk for topics": frame(1, 5, b"{not json"),
            "no topics": frame(1, 5, b""),
            "names for topics": frame(1, 5, topics("bank.balance")),
            "a topic that is no command": frame(1, 5, topics(1001, 1)),
            **{f"model {low}": frame(1001, 5, b"x", low) for low in (0, 1, 9, 14, 2**32 - 1)},
        }
        for listens in (False, True):
            for before in (b"", good):
                for what, data in junk.items():
                    client = self.client()
                    if listens:
                        client.subscribe(1001)
                    client.send(before, data, good)
                    self.assertFalse(client.peer.open, what)
                    # What came before is seen through as far as that needs no time.
                    said = [f[2] for f in client.receive()]
                    self.assertEqual(said, [b"x"] if before and listens else [], what)
        counts = self.broker.status().counts
        self.assertEqual(counts["published"], 2 * len(junk), "nothing of it, nor behind it")
        self.assertEqual(counts.get("timeout", 0) + counts.get("no subscriber", 0), 0)
        self.assertEqual(self.broker.status().subscribers, ())
        self.assertEqual(self.refused, {
            "malformed message": 4 * (len(junk) - 2), "frame too large": 4 * 2,
        })  # fmt: skip
        self.assertEqual(self.part.server.manager.counters.malformed, 4 * (len(junk) - 2))

    def test_a_frame_that_does_not_end(self) -> None:
        """A-09: has the time of a silent peer, also where it may be silent."""
        for cut in (1, 4, 23, 24):
            for client in (self.client(), self.subscriber(1001)):
                client.send(frame(1001, 5, b"x", CALL)[:cut])
                self.network.advance(179.0)
                self.assertTrue(client.peer.open)
                self.network.advance(3.0)
                self.assertFalse(client.peer.open)
                self.assertEqual(client.receive(), [])

    def test_a_cut_frame_at_the_end(self) -> None:
        client = self.client()
        client.send(frame(1001, 5, b"x", CALL)[:20])
        client.peer.finish()
        self.assertEqual((client.peer.open, client.receive()), (False, []))

    def test_it_is_logged(self) -> None:
        """What is refused is logged by the minute, however much it is."""
        from twisted.logger import globalLogPublisher

        lines: list[str] = []

        def see(event: Any) -> None:
            if "Refused" in str(event.get("log_format")):
                lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(see)
        self.addCleanup(globalLogPublisher.removeObserver, see)
        for _ in range(5):
            self.client().send(frame(0, 5))
        self.network.advance(61.0)
        self.assertEqual([line.partition(": ")[2] for line in lines], [
            "predecessor's clients, malformed message: 1, 1 since the start",
            "predecessor's clients, malformed message: 4, 5 since the start",
        ])  # fmt: skip


class CrossingTests(PredecessorCase):
    """A-07: the predecessor's clients and the pool's sessions are on one bus."""

    def test_a_session_answers(self) -> None:
        for low, model in ((CALL, "reliable-random"), (SPECIFIC, "reliable-specific")):
            session, publisher = self.session(), self.client()
            self.ask(session, "subscribe", topics=[1001])
            publisher.send(frame(1001, 5, b"alice", low))
            (call,) = session.messages()
            params = call["params"]
            self.assertEqual(
                (params["topic"], params["data"], params["model"]), ("1001", "alice", model)
            )
            self.assertNotIn("reserve-low", json.dumps(params))
            session.tell(json.dumps({"id": call["id"], "result": "100"}).encode())
            self.assertEqual(publisher.receive(), [(1001, 5, b"100", 0, 0)])
            session.close()

    def test_a_session_has_none(self) -> None:
        """A-28: the bus knows at once, and a publisher of these waits no longer than that."""
        session, publisher = self.session(), self.client()
        self.ask(session, "subscribe", topics=["1001"])
        for code in (35, 33, 99):  # not mine, refused, failed
            publisher.send(frame(1001, 5, b"alice", CALL))
            (call,) = session.messages()
            answer = {"id": call["id"], "error": "no", "code": code}
            session.tell(json.dumps(answer).encode())
            self.assertEqual(publisher.receive(), [(1001, 5, b"alice", 1, 0)])

    def test_a_session_listens(self) -> None:
        session, publisher = self.session(), self.client()
        self.ask(session, "subscribe", topics=["*"])
        for low, model in ((ALL, "unreliable-all"), (ONE, "unreliable-random")):
            publisher.send(frame(1001, 5, b"\xff", low))
            (told,) = session.messages()
            self.assertEqual((told["id"], told["params"]["model"]), (None, model))
            self.assertEqual((told["params"]["data"], told["params"]["base64"]), ("/w==", True))

    def test_a_session_sees_the_number_of_a_call_without_an_answer(self) -> None:
        """In a header, because its model is another one."""
        session, publisher = self.session(), self.client()
        self.ask(session, "subscribe", topics=[1001])
        for low, model in ((CALL, "unreliable-random"), (SPECIFIC, "unreliable-all")):
            publisher.send(frame(1001, 0, b"x", low))
            (told,) = session.messages()
            found = told["params"]["model"], told["params"]["headers"]
            self.assertEqual(found, (model, {"reserve-low": str(low)}))

    def test_a_session_publishes(self) -> None:
        subscriber, session = self.subscriber(1001), self.session()
        for model, low in (
            ("unreliable-all", ALL), ("unreliable-random", ONE),
            ("reliable-random", CALL), ("reliable-specific", SPECIFIC),
        ):  # fmt: skip
            for topic in (1001, "1001"):
                params = {"topic": topic, "data": "bob", "model": model}
                asked = session.request("bus.publish", params)
                command, sequence, body, high, said = subscriber.offered()
                self.assertEqual((command, body, high, said), (1001, b"bob", 0, low))
                subscriber.send(frame(9, sequence, b"7"))
                (reply,) = session.messages()
                self.assertEqual(reply["id"], asked)
                outcome = reply["result"]["outcome"]
                self.assertEqual(outcome, "answered" if low >= CALL else "sent")
                if low >= CALL:
                    self.assertEqual(reply["result"]["data"], "7")

    def test_names_do_not_reach_numbers(self) -> None:
        subscriber, session = self.subscriber(1001), self.session()
        for topic in ("01001", "1001.0", "x1001"):
            self.publish(session, topic)
        self.assertEqual(subscriber.receive(), [])

    def test_what_does_not_fit(self) -> None:
        """A-25: over the bus's own limit a message goes nowhere, a call is told so."""
        subscriber, publisher = self.subscriber(1001), self.client()
        most, more = b"x" * 45_000, b"x" * 45_001
        publisher.send(frame(1001, 5, most, CALL))
        sequence = subscriber.offered()[1]
        subscriber.send(frame(1001, sequence, most))
        self.assertEqual(publisher.receive(), [(1001, 5, most, 0, 0)])
        for low, told in ((CALL, [(1001, 6, more, 1, 0)]), (ALL, [])):
            publisher.send(frame(1001, 6, more, low))
            self.assertEqual((publisher.receive(), subscriber.receive()), (told, []))
        publisher.send(frame(1001, 7, b"x", CALL))
        subscriber.send(frame(1001, subscriber.offered()[1], more))
        self.assertEqual(publisher.receive(), [(1001, 7, b"x", 1, 0)])
        self.assertEqual(self.refused, {"a message that is too large for the bus": 2})

    def test_what_does_not_fit_into_a_frame(self) -> None:
        """A-25: where the bus takes more than a frame does."""
        self.stop()
        self.start(**self.settings, bus_max_data="60KiB", max_frame="256KiB")
        subscriber, session, publisher = self.subscriber(1001), self.session(), self.client()
        large = {"topic": 1001, "data": "x" * (MAX_BODY + 1)}
        outcome = self.ask(session, "publish", **large, model="reliable-random")
        self.assertEqual(outcome["outcome"], "refused")
        self.assertIn("too large", outcome["reason"])
        with self.subTest("issue 13 build 1: neither sent nor kept"):
            publish = {**large, "model": "unreliable-all"}
            outcome = self.ask(session, "publish", **publish)
            self.assertEqual(outcome["outcome"], "refused")
            self.assertEqual(outcome["reason"], "too large for every subscriber")
        self.assertEqual(subscriber.receive(), [])
        subscriber.peer.close()
        self.network.advance(4.0)
        self.ask(session, "subscribe", topics=[1001])
        for size, high in ((MAX_BODY, 0), (MAX_BODY + 1, 1)):
            publisher.send(frame(1001, 5, b"x" * MAX_BODY, CALL))
            (call,) = session.messages()
            session.tell(json.dumps({"id": call["id"], "result": "x" * size}).encode())
            self.assertEqual(publisher.receive(), [(1001, 5, b"x" * MAX_BODY, high, 0)])
        self.assertTrue(publisher.peer.open)


class EndTests(PredecessorCase):
    """A-03, A-05, A-20, A-22: connections come and go."""

    def test_reconnect(self) -> None:
        """1: who subscribes again is asked again, and no longer under the old connection."""
        publisher = self.client()
        client = self.subscriber(1001)
        for end in (MemoryPeer.abort, MemoryPeer.close, MemoryPeer.finish):
            end(client.peer)
            self.assertEqual(self.broker.status().subscribers, ())
            client = self.subscriber(1001)
            publisher.send(frame(1001, 5, b"x", CALL))
            client.send(frame(1001, client.offered()[1], b"y"))
            self.assertEqual(publisher.receive(), [(1001, 5, b"y", 0, 0)])

    def test_an_answer_over_the_next_connection(self) -> None:
        """6: it is too late, and no message; the call is there again for whoever answers."""
        publisher, client = self.client(), self.subscriber(1001)
        publisher.send(frame(1001, 5, b"x", CALL))
        old = client.offered()[1]
        client.peer.abort()
        client = self.client()
        client.send(frame(1, 7, topics(1001)))
        _, (_, new, *_) = client.receive()
        client.send(frame(1001, old, b"y", CALL))
        self.assertEqual((publisher.receive(), client.receive()), ([], []))
        client.send(frame(1001, new, b"z", CALL))
        self.assertEqual(publisher.receive(), [(1001, 5, b"z", 0, 0)])
        self.assertEqual(self.broker.status().counts["published"], 1)

    def test_a_subscriber_goes_with_a_call_in_hand(self) -> None:
        """A-20: the other is asked at once."""
        for end in (MemoryPeer.abort, MemoryPeer.close, MemoryPeer.finish):
            subscribers = [self.subscriber(1001), self.subscriber(1001)]
            publisher = self.client()
            publisher.send(frame(1001, 5, b"x", CALL))
            (asked,) = [s for s in subscribers if s.receive()]
            (other,) = [s for s in subscribers if s is not asked]
            end(asked.peer)
            other.send(frame(1001, other.offered()[1], b"y"))
            self.assertEqual(publisher.receive(), [(1001, 5, b"y", 0, 0)])
            other.peer.close()

    def test_a_publisher_goes(self) -> None:
        """Its calls go with it, and leave nothing."""
        for end in (MemoryPeer.abort, MemoryPeer.close):
            publisher = self.client()
            publisher.send(*(frame(1001, n, b"x", CALL) for n in range(1, 11)))
            publisher.send(*(frame(1001, n, b"x", SPECIFIC) for n in range(1, 11)))
            self.assertEqual(self.broker.status().calls, 20)
            end(publisher.peer)
            if end is MemoryPeer.close:
                self.network.advance(3.1)  # it might only have closed one side
            self.assertEqual(self.broker.status().calls, 0)

    def test_one_that_is_closed_and_does_not_go(self) -> None:
        """A-20: once it is closed, its own calls end, and the calls offered to it go to others."""
        closed, other, publisher = self.subscriber(1001), self.client(), self.client()
        closed.peer.lingers = True
        closed.send(frame(77, 6, b"y", CALL))
        publisher.send(frame(1001, 5, b"x", CALL))
        other.subscribe(1001)
        closed.send(b"no frame")
        self.assertTrue(closed.peer.open)
        other.send(frame(1001, other.offered()[1], b"z"))
        self.assertEqual(publisher.receive(), [(1001, 5, b"z", 0, 0)])
        self.assertEqual(self.broker.status().calls, 0)
        self.assertEqual(len(self.broker.status().subscribers), 1)

    def test_a_subscriber_that_sends_no_more(self) -> None:
        """A-20: it gets no more calls, but it still hears the outcomes of its own calls."""
        half, other, publisher = self.subscriber(1001), self.client(), self.client()
        half.peer.lingers = True
        half.send(frame(77, 6, b"y", CALL))
        publisher.send(frame(1001, 5, b"x", CALL))
        other.subscribe(1001)
        half.peer.finish()
        self.assertTrue(half.peer.open)
        other.send(frame(1001, other.offered()[1], b"z"))
        self.assertEqual(publisher.receive(), [(1001, 5, b"z", 0, 0)])
        self.assertEqual(self.broker.status().calls, 1)

    def test_a_publisher_that_sends_no_more(self) -> None:
        """Who closes one side gets what it waits for, and then the other."""
        subscriber, publisher = self.subscriber(1001), self.client()
        publisher.peer.lingers = True
        publisher.send(frame(1001, 5, b"x", CALL), frame(1001, 6, b"y", CALL))
        publisher.peer.finish()
        offers = subscriber.receive()
        subscriber.send(frame(1001, offers[0][1], b"a"))
        self.network.advance(1.0)
        self.assertTrue(publisher.peer.open)
        self.network.advance(2.1)
        self.assertEqual(publisher.receive(), [(1001, 5, b"a", 0, 0), (1001, 6, b"y", 1, 0)])
        self.assertFalse(publisher.peer.open)

    def test_nothing_is_left_behind(self) -> None:
        for n in range(50):
            client = self.subscriber(1001 + n)
            client.send(frame(1001 + n, 5, b"x", CALL), frame(77, 6, b"y", CALL))
            client.peer.abort()
        status = self.broker.status()
        self.assertEqual((status.calls, status.subscribers), (0, ()))
        self.assertEqual(len(self.part.server.manager), 0)

    def test_stop(self) -> None:
        """A-22: calls have a moment for their answers; then all end without another word."""
        subscriber, publisher = self.subscriber(1001), self.client()
        publisher.send(frame(1001, 5, b"x", CALL), frame(1001, 6, b"y", CALL))
        offers = subscriber.receive()
        stopping = self.daemon.stop()
        self.network.advance(0.5)
        publisher.send(frame(1001, 7, b"z", CALL))
        subscriber.send(frame(1001, offers[0][1], b"a"))
        subscriber.send(frame(1, 8, topics(1002)))
        self.assertEqual(publisher.receive(), [(1001, 7, b"z", 1, 0), (1001, 5, b"a", 0, 0)])
        self.assertEqual(subscriber.receive(), [
            (2, 8, b'{"status":1,"message":"server going down","topics":[]}', 0, 0)
        ])  # fmt: skip
        self.network.run(stopping, patience=40)
        self.assertEqual(publisher.receive(), [(1001, 6, b"y", 1, 0)])
        self.assertEqual(subscriber.receive(), [])
        self.assertFalse(publisher.peer.open or subscriber.peer.open)


class LimitTests(PredecessorCase):
    """Build 4: the limits of every peer hold for these as well."""

    def test_topics(self) -> None:
        client = self.subscriber(*range(1001, 1100))
        client.send(frame(1, 8, topics(1001, 2001, 2002)))
        refusal = b'{"status":1,"message":"too many topics","topics":[]}'
        self.assertEqual(client.receive(), [(2, 8, refusal, 0, 0)])
        self.assertEqual(len(self.broker.status().subscribers[0].topics), 99)
        client.subscribe(1001, 2001, 2001)
        self.assertEqual(self.refused, {"too many topics": 1})

    def test_calls(self) -> None:
        self.stop()
        self.start(**self.settings, bus_calls="3")
        subscriber, publisher = self.subscriber(1001), self.client()
        publisher.send(*(frame(1001, n, b"x", CALL) for n in range(1, 6)))
        self.assertEqual(publisher.receive(), [(1001, 4, b"x", 1, 0), (1001, 5, b"x", 1, 0)])
        offers = subscriber.receive()
        self.assertEqual(len(offers), 3)
        subscriber.send(frame(0, offers[0][1], b"y"))
        publisher.send(frame(1001, 6, b"x", CALL))
        self.assertEqual(publisher.receive(), [(1001, 1, b"y", 0, 0)])
        self.assertEqual(self.refused, {"too many publishes without an outcome": 2})

    def test_calls_of_one_address(self) -> None:
        """Issue 13 build 2: over all of its connections; others have their own."""
        self.stop()
        self.start(**self.settings, bus_address_calls="3", bus_address_calls_size="25")
        subscriber = self.subscriber(1001)
        one, two, other = self.client(), self.client(), self.client("192.0.2.2")
        one.send(*(frame(1001, n, b"x" * 5, CALL) for n in (1, 2)))
        two.send(frame(1001, 3, b"x" * 16, CALL), frame(1001, 4, b"x", CALL))
        self.assertEqual(two.receive(), [(1001, 3, b"x" * 16, 1, 0)])
        two.send(frame(1001, 5, b"x", CALL))
        self.assertEqual(two.receive(), [(1001, 5, b"x", 1, 0)])
        other.send(frame(1001, 6, b"x" * 25, CALL))
        self.assertEqual(other.receive(), [])
        self.assertEqual(len(subscriber.receive()), 4)
        self.assertEqual(self.refused, {
            "over the limit of data in open calls of one address": 1,
            "over the limit of open calls of one address": 1,
        })  # fmt: skip
        one.peer.abort()
        self.network.settle()
        two.send(frame(1001, 7, b"x" * 5, CALL))
        self.assertEqual((two.receive(), len(subscriber.receive())), ([], 1))
        self.network.advance(4.0)
        two.receive()
        two.send(*(frame(1001, n, b"x" * 8, CALL) for n in (8, 9, 10)))
        self.assertEqual((two.receive(), len(subscriber.receive())), ([], 3))

    def test_an_address_has_one_share(self) -> None:
        """Issue 13 build 2: for its sessions and for its connections here together."""
        assert self.daemon.parts.bus is not None
        self.assertEqual(len(self.daemon.parts.bus.service.shares), 0)
        one, two = self.client(), self.client("192.0.2.2")
        self.assertEqual(len(self.daemon.parts.bus.service.shares), 2)
        one.peer.abort()
        two.peer.abort()
        self.network.settle()
        self.assertEqual(len(self.daemon.parts.bus.service.shares), 0)

    def test_topics_after_a_reload(self) -> None:
        """Issue 13 build 3: a reload gives topics to these clients, and takes them away."""
        client = self.subscriber(1001, 1002)
        changed = replace(self.daemon.settings.bus, subscribe=("1002", "1003"), publish=("1002",))
        settings = replace(self.daemon.settings, bus=changed)
        self.part.apply(settings)
        self.assertEqual([s.topics for s in self.broker.status().subscribers], [("1002",)])
        client.subscribe(1003)
        publisher = self.client()
        publisher.send(frame(1001, 5, b"x", CALL))
        self.assertEqual(publisher.receive(), [(1001, 5, b"x", 1, 0)])
        self.part.apply(replace(settings, bus=replace(changed, subscribe=())))
        self.assertEqual(self.broker.status().subscribers, ())

    def test_how_many_subscriptions_a_rule_ends(self) -> None:
        """Issue 13 build 3: they are counted, and whoever has none left may not be silent."""
        one, two = self.subscriber(1001, 1002), self.subscriber(1001)
        self.network.advance(1_000.0)
        rules = TopicRules(lambda topic: True, lambda topic: topic == "1002")
        self.assertEqual(self.part.service.use_rules(rules), 2)
        self.assertEqual(self.part.service.use_rules(rules), 0)
        self.network.advance(182.0)
        self.assertEqual((one.peer.open, two.peer.open), (True, False))
        self.assertEqual(self.refused, {"idle timeout": 1})

    def test_topics_that_a_reload_took_away_take_no_room(self) -> None:
        """Issue 13 build 3: neither as topics of the address nor as a subscriber."""
        self.stop()
        self.start(**self.settings, bus_address_topics="2")
        client = self.subscriber(1001, 1002)
        for left, wanted in ((("1002", "1003"), 1003), (("1004",), 1004)):
            changed = replace(self.daemon.settings.bus, subscribe=left)
            self.part.apply(replace(self.daemon.settings, bus=changed))
            limits = self.part.service.limits
            peers = replace(limits.peers, subscribers=1)
            self.part.service.limits = replace(limits, peers=peers)
            client.subscribe(wanted)
        self.assertEqual(self.refused, {})

    def test_topics_of_one_address(self) -> None:
        """Issue 13 build 2: over all of its connections; what one had is free at its end."""
        self.stop()
        self.start(**self.settings, bus_address_topics="3")
        one, two = self.subscriber(1001, 1002), self.client()
        two.send(frame(1, 8, topics(1001, 1003)))
        refusal = b'{"status":1,"message":"too many topics of one address","topics":[]}'
        self.assertEqual(two.receive(), [(2, 8, refusal, 0, 0)])
        two.subscribe(1003)
        two.subscribe(1003)
        other = self.client("192.0.2.2")
        other.subscribe(1001, 1002, 1003)
        one.peer.abort()
        self.network.settle()
        two.subscribe(1001, 1002)
        self.assertEqual(self.refused, {"too many topics of one address": 1})
        for client in (two, other):
            client.peer.abort()
        self.network.settle()
        self.assertEqual(len(self.part.service._shares), 0)

    def test_rate(self) -> None:
        """Who publishes too often is heard more slowly; nothing is lost, nobody else waits."""
        session, publisher, other = self.session(), self.client(), self.client()
        self.ask(session, "subscribe", topics=["*"])
        publisher.send(*(frame(1001, 0, b"%d" % n, ALL) for n in range(150)))
        self.assertEqual(len(session.messages()), 100)
        other.send(frame(1002, 0, b"x", ALL))
        self.assertEqual(len(session.messages()), 1)
        self.network.advance(0.1)
        self.assertIn(len(session.messages()), (9, 10, 11))
        self.network.advance(0.5)
        self.assertEqual(self.broker.status().counts["delivered"], 151)
        self.assertEqual(self.refused, {})

    def test_the_lowest_rates(self) -> None:
        """One message may come at once; subscriptions count like publishes."""
        for rate, seconds in (("1", 1.0), ("0.5", 2.0)):
            self.stop()
            self.start(**self.settings, bus_rate=rate)
            client = self.client()
            client.send(*(frame(1, n, topics(1001)) for n in range(3)))
            self.assertEqual(len(client.receive()), 1)
            self.network.advance(seconds - 0.01)
            self.assertEqual(len(client.receive()), 0)
            self.network.advance(0.02)
            self.assertEqual(len(client.receive()), 1)

    def test_how_long_one_is_held(self) -> None:
        """Until it may send one more, and a millisecond."""
        session, publisher = self.session(), self.client()
        self.ask(session, "subscribe", topics=["*"])
        publisher.send(*(frame(1001, 0, b"", ALL) for _ in range(101)))
        self.assertEqual(len(session.messages()), 100)
        self.network.advance(0.0105)
        self.assertEqual(len(session.messages()), 0)
        self.network.advance(0.001)
        self.assertEqual(len(session.messages()), 1)

    def test_the_rate_spares_answers(self) -> None:
        self.stop()
        self.start(**self.settings, bus_rate="5")
        subscriber, session = self.subscriber(1001), self.session()
        for n in range(3):
            for _ in range(3):
                session.request(
                    "bus.publish", {"topic": 1001, "data": "x", "model": "reliable-random"}
                )
            answers = [frame(1001, offer[1], b"y") for offer in subscriber.receive()]
            subscriber.send(*answers, *answers)
            self.assertEqual(len(session.messages()), 3, n)
            self.network.advance(1.0)

    def test_the_rate_may_be_changed(self) -> None:
        """K-32."""
        session, publisher = self.session(), self.client()
        self.ask(session, "subscribe", topics=["*"])
        publisher.send(*(frame(1001, 0, b"", ALL) for _ in range(150)))
        self.assertEqual(len(session.messages()), 100)
        settings = load({**self.settings, "bus_rate": "0", "idle_timeout": "5s"}, {}).settings
        self.part.apply(settings)
        self.network.advance(0.02)
        self.assertEqual(len(session.messages()), 50)
        self.network.advance(7.0)
        self.assertFalse(publisher.peer.open)

    def test_one_that_is_slowed_down_goes(self) -> None:
        publisher = self.client()
        publisher.send(*(frame(1001, 0, b"", ALL) for _ in range(150)))
        publisher.peer.abort()
        self.network.advance(1.0)
        self.assertEqual(len(self.part.server.manager), 0)

    def test_which_topics(self) -> None:
        """A-38: as for the sessions that name no pattern of their own."""
        self.stop()
        self.start(**self.settings, bus_publish="1001,bank.>", bus_subscribe="x.>,1002")
        client = self.client()
        client.send(frame(1, 7, topics(1002, 1003)))
        refusal = b'{"status":1,"message":"a topic that they may not subscribe to","topics":[]}'
        self.assertEqual(client.receive(), [(2, 7, refusal, 0, 0)])
        client.send(frame(1002, 5, b"x", CALL), frame(1002, 6, b"x", ALL))
        self.assertEqual(client.receive(), [(1002, 5, b"x", 1, 0)])
        client.send(frame(1001, 5, b"x", ALL))
        self.assertEqual(self.broker.status().counts, {"published": 1, "buffered": 1})
        self.assertEqual(self.refused, {
            "a topic that they may not subscribe to": 1, "a topic that they may not publish to": 2,
        })  # fmt: skip

    def test_idle(self) -> None:
        """Who listens may be silent; who neither listens nor waits is closed, without a word."""
        silent, subscriber, publisher = self.client(), self.subscriber(1001), self.client()
        self.network.advance(100.0)
        publisher.send(frame(1001, 0, b"x", ALL))
        self.network.advance(81.5)
        self.assertEqual((silent.peer.open, silent.receive()), (False, []))
        self.assertTrue(publisher.peer.open)
        self.network.advance(101.0)
        self.assertEqual((publisher.peer.open, publisher.receive()), (False, []))
        self.network.advance(1_000.0)
        self.assertTrue(subscriber.peer.open)
        self.assertEqual(self.refused, {"idle timeout": 2})

    def test_idle_while_it_waits(self) -> None:
        self.stop()
        self.start(**self.settings, idle_timeout="1s")
        publisher = self.client()
        publisher.send(frame(1001, 5, b"x", CALL))
        self.network.advance(3.1)
        self.assertEqual(publisher.receive(), [(1001, 5, b"x", 1, 0)])
        self.network.advance(2.1)
        self.assertFalse(publisher.peer.open)

    def test_no_idle_timeout(self) -> None:
        self.stop()
        self.start(**self.settings, idle_timeout="0")
        client = self.client()
        self.network.advance(1_000.0)
        self.assertTrue(client.peer.open)

    def test_the_system_looks_after_those_that_are_silent(self) -> None:
        client = self.client()
        self.assertTrue(client.peer.memory.other.getTcpKeepAlive())

    def test_connections(self) -> None:
        """K-60: those over the limit are ended without a word, counted and logged."""
        self.stop()
        self.start(**self.settings, max_connections="3", max_connections_per_ip="2")
        clients = [self.client() for _ in range(2)]
        third = self.client()
        other = self.client("192.0.2.2")
        fourth = self.client("192.0.2.3")
        for refused in (third, fourth):
            refused.send(frame(1, 7, topics(1001)))
            self.network.advance(3.0)
            self.assertEqual((refused.peer.open, refused.receive()), (False, []))
        for client in (*clients, other):
            client.subscribe(1001)
        self.assertEqual(self.refused, {"connections over the limit": 2})
        self.assertEqual(self.part.server.manager.refused, 2)
        self.session()  # the pool has connections of its own

    def test_a_subscriber_that_does_not_read(self) -> None:
        """It gets what fits; calls go to others, and nothing piles up."""
        slow, quick = self.subscriber(1001), self.subscriber(1001)
        session = self.session()
        slow.peer.stop_reading()
        for _ in range(20):
            self.publish(session, 1001, data="x" * 40_000)
        (connection, _) = self.part.server.manager
        self.assertLess(connection.outbound, 300_000)
        quick.receive()
        for n in range(20):
            session.request(
                "bus.publish", {"topic": 1001, "data": "x" * 40_000, "model": "reliable-random"}
            )
            ((_, sequence, *_),) = quick.receive()
            quick.send(frame(1001, sequence, b"%d" % n))
            self.assertEqual(session.messages()[0]["result"]["data"], str(n))

    def test_a_publisher_that_does_not_read(self) -> None:
        """It is heard no more, and ended after the write timeout."""
        subscriber, publisher = self.subscriber(1001), self.client()
        publisher.peer.stop_reading()
        for n in range(30):
            publisher.send(frame(1001, n + 1, b"x" * 40_000, CALL))
            for offer in subscriber.receive():
                subscriber.send(frame(1001, offer[1], b"y" * 40_000))
        self.network.advance(12.0)
        self.assertEqual(self.refused, {"slow reader": 1})
        publisher.peer.read_again()
        self.network.advance(12.0)
        self.assertEqual(len(self.part.server.manager), 1)

    def test_calls_that_are_never_answered_take_no_room(self) -> None:
        """Those whose time is over are forgotten, however long others have."""
        clock = Clock()
        offers = Offers(clock.seconds)
        offers.add(1, 11, 3600.0)
        for n in range(2, 10_000):
            offers.add(n, n, 3.0)
            clock.advance(0.1)
            self.assertLessEqual(len(offers), 64)
        found = offers.take(1)
        assert found is not None
        self.assertEqual((found.number, offers.take(1), offers.take(2)), (11, None, None))

    def test_many_calls_that_have_time(self) -> None:
        """Expired ones are looked for when there are twice as many calls as at the last look."""
        clock = Clock()
        offers = Offers(clock.seconds)
        for n in range(64):
            offers.add(n, n, 3600.0)
        most = 0
        for n in range(64, 1000):
            offers.add(n, n, 3.0)
            clock.advance(0.1)
            most = max(most, len(offers))
        self.assertEqual(most, 188)


class OverWebSocketTests(PredecessorCase):
    """Build 4: one binary message each, on the same port."""

    def test_conversation(self) -> None:
        subscribers = [self.browser(), self.browser(path="/any/path")]
        for subscriber in subscribers:
            subscriber.subscribe(1001, 1002)
        for publisher in (self.browser(), self.client()):
            publisher.send(frame(1001, 5, b"bob", SPECIFIC))
            offers = [subscriber.offered() for subscriber in subscribers]
            self.assertEqual({(f[0], f[2], f[4]) for f in offers}, {(1001, b"bob", SPECIFIC)})
            subscribers[1].send(frame(0, offers[1][1], b"7" * 300))
            self.assertEqual(publisher.receive(), [(1001, 5, b"7" * 300, 0, 0)])
            publisher.send(frame(1002, 6, b"news", ALL), frame(1002, 0, b"more", CALL))
            got = sorted(f[2] for subscriber in subscribers for f in subscriber.receive())
            self.assertEqual(got, [b"more", b"news", b"news"])
            publisher.send(frame(9999, 8, b"x", CALL))
            self.network.advance(3.001)
            self.assertEqual(publisher.receive(), [(9999, 8, b"x", 1, 0)])
        self.assertEqual(len(self.part.server.manager), 4, "each is one connection")

    def test_in_pieces(self) -> None:
        """RFC 6455: a message may be several frames, and these may be cut anywhere."""
        browser = self.browser()
        data = frame(1, 7, topics(1001))
        sent = websocket(data[:10], 0x02) + websocket(data[10:30], 0) + websocket(data[30:], 0x80)
        browser.peer.send(sent, step=1)
        self.assertEqual(browser.receive(), [(2, 7, acknowledged(1001), 0, 0)])

    def test_a_handshake_in_pieces(self) -> None:
        browser = Browser(self.network.connect(PORT, _Raw()))
        browser.peer.send(handshake() + websocket(frame(1, 7, topics(1001))), step=1)
        answer, _, rest = browser.peer.received().partition(b"\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 101 "))
        ((_, message),) = websocket_messages(rest)
        self.assertEqual(message, frame(2, 7, acknowledged(1001)))

    def test_malformed(self) -> None:
        """6, A-09: no message comes in return, but for WebSocket's own goodbye."""
        good = frame(1001, 5, b"x", CALL)
        for data in (
            websocket(good, 0x81), websocket(b"{}", 0x81), websocket(b"x"), websocket(good[:23]),
            websocket(good[:-1]), websocket(good + b"x"), websocket(good + good),
            websocket(frame(1001, 5, b"x", CALL, magic=5)), websocket(frame(0, 5, b"x", CALL)),
            websocket(frame(1001, 5, b"x", 14)), websocket(frame(1, 5, b"junk")),
            websocket(frame(1001, 5, b"x" * (MAX_BODY + 1), CALL)), good, b"\0" * 20,
        ):  # fmt: skip
            browser = self.browser()
            browser.peer.send(data + websocket(good))
            self.network.advance(13.0)
            self.assertEqual([first for first, _ in browser.messages()], [0x88], data[:40])
            self.assertFalse(browser.peer.open)
        self.assertEqual(self.broker.status().counts, {})

    def test_no_websocket(self) -> None:
        """HTTP is answered as HTTP, and is no connection of the bus."""
        for headers, code in (
            ({"Upgrade": "h2c"}, b"426"),
            ({"Sec_WebSocket_Version": "8"}, b"426"),
            ({"Sec_WebSocket_Key": "x"}, b"400"),
            ({"Origin": "https://evil.example"}, b"403"),
        ):
            browser = Browser(self.network.connect(PORT, _Raw()))
            answer = browser.open(**headers)
            self.assertEqual(answer[:13], b"HTTP/1.1 " + code + b" ", answer)
            self.assertEqual(len(self.part.server.manager), 0)
            browser.peer.close()
        for junk in (b"GET\r\n\r\n", b"A" * 70_000, b"POST / HTTP/1.1\r\n\r\n"):
            client = self.client()
            client.peer.send(junk)
            self.network.advance(60.0)
            self.assertFalse(client.peer.open)

    def test_pages(self) -> None:
        """Those of --ws-origins, and of the server's own name."""
        self.stop()
        self.start(**self.settings, ws_origins="https://shop.example", http_hosts="pool")
        self.browser(Origin="https://shop.example")
        self.browser(Origin="http://pool:8002", Host="pool:8002")

    def test_pings(self) -> None:
        """K-60: a WebSocket is asked whether it is there, and listens for as long as it is."""
        polite, silent = self.browser(), self.browser()
        for browser in (polite, silent):
            browser.subscribe(1001)
        for _ in range(20):
            self.network.advance(30.0)
            pings = [first for first, _ in polite.messages()]
            self.assertEqual(pings, [0x89])
            polite.peer.send(websocket(b"", 0x8A))
        self.assertEqual((polite.peer.open, silent.peer.open), (True, False))

    def test_limits(self) -> None:
        self.stop()
        self.start(**self.settings, ws_max_connections="2", max_connections="3")
        browsers = [self.browser(), self.browser()]
        # The handshake is done, but it is not let in.
        _, _, told = Browser(self.network.connect(PORT, _Raw())).open().partition(b"\r\n\r\n")
        ((first, payload),) = websocket_messages(told)
        self.assertEqual((first, payload[2:]), (0x88, b"too many connections"))
        client = self.client()
        client.subscribe(1001)
        refused = self.client()
        self.network.advance(3.0)
        self.assertFalse(refused.peer.open)
        self.assertTrue(all(b.peer.open for b in browsers))
        counts = self.part.refusals.counts
        self.assertEqual(counts["WebSockets, too many connections"], 1)

    def test_stop(self) -> None:
        browser = self.browser()
        browser.subscribe(1001)
        browser.send(frame(2002, 5, b"x", CALL))
        stopping = self.daemon.stop()
        self.network.advance(1.5)
        (answer, close) = browser.messages()
        self.assertEqual(answer, (0x82, frame(2002, 5, b"x", high=1)))
        self.assertEqual((close[0], close[1][2:]), (0x88, b"server going down"))
        browser.peer.close()
        self.network.run(stopping, patience=40)


class SilenceTests(SynchronousTestCase):
    """The options of a socket whose peer need not say anything."""

    def test_options(self) -> None:
        import socket

        from twisted.internet import tcp

        from kupool.net.transport.silence import end_when_gone

        for seconds, step, most in ((180.0, 36, 180_000), (0.5, 1, 500), (1e9, 32_767, 2**31 - 1)):
            sock = socket.socket()
            self.addCleanup(sock.close)
            transport = tcp.Connection(sock, None, Clock())
            end_when_gone(transport, seconds)
            self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            found = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in (
                socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )]  # fmt: skip
            self.assertEqual(found, [step, step, 4, most])

    def test_elsewhere(self) -> None:
        """No TCP, no options, no error."""
        from kupool.net.transport.silence import end_when_gone

        self.assertIsNone(end_when_gone(object(), 180.0))
