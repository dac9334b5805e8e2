"""The connection of a client of topics: it is lost, refused, redirected, and made again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from kupool.errors import RESTARTING, TOO_MANY_REQUESTS, UNAVAILABLE, WRONG_NODE
from kupool.topics.membership import GroupSubscription
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord
from kupool.topics.remote.admin import TopicAdmin
from kupool.topics.remote.failures import (
    AnswerLost,
    ClientRefused,
    LedElsewhere,
    NotSent,
    RefusedByServer,
    TopicsClosed,
)
from kupool.topics.remote.groups import RemoteGroupClient
from kupool.topics.remote.link import Login
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.service import Written
from kupool.topics.settings import TopicSettings
from tests.fakes.remote_topics import RemoteCase
from tests.fakes.topic_server import TopicServer

WANTED = GroupSubscription(frozenset(["t"]), 10.0)


class ConnectionTests(RemoteCase):
    def test_it_connects_with_the_first_request(self) -> None:
        topics = self.topics()
        self.assertFalse(topics.connected)
        self.assertEqual(self.result(topics.offsets("t")), [0, 0])
        self.assertTrue(topics.connected)

    def test_a_request_waits_for_a_server(self) -> None:
        """Q-39, Q-60: for its time, not longer."""
        self.stop()
        topics = self.topics(timeout=10.0)
        asked = topics.offsets("t")
        self.network.advance(3.0)
        self.assertNoResult(asked)
        self.serve()
        self.assertEqual(self.result(asked, 5.0), [0, 0])

    def test_ten_seconds(self) -> None:
        """Q-64: the time of a request, unless the settings say otherwise."""
        self.stop()
        topics = self.topics()
        asked = topics.offsets("t")
        self.network.advance(9.9)
        self.assertNoResult(asked)
        self.network.advance(0.2)
        self.failureResultOf(asked, NotSent)
        self.serve()
        self.server.answers["log.offsets"] = lambda params: Deferred()
        self.result(topics.connect(), 20.0)
        asked = topics.offsets("t")
        self.network.advance(9.9)
        self.assertNoResult(asked)
        self.network.advance(0.2)
        text = self.failureResultOf(asked, AnswerLost).getErrorMessage()
        self.assertRegex(text, "^log.offsets: no answer within 10 s$")

    def test_connect_says_that_nobody_is_there(self) -> None:
        self.stop()
        topics = self.topics(timeout=2.0)
        with self.assertRaisesRegex(NotSent, "no connection to tcp:127.0.0.1:8000 in time"):
            self.result(topics.connect(), 3.0)
        self.serve()
        self.result(topics.connect(), 3.0)

    def test_addresses_are_tried_in_turn(self) -> None:
        """Q-34: a list of addresses."""
        topics = self.topics("tcp:127.0.0.1:7000", "tcp:127.0.0.1:8000")
        self.assertEqual(self.result(topics.offsets("t"), 5.0), [0, 0])
        self.assertEqual(topics.nodes.main.server, "tcp:127.0.0.1:8000")

    def test_a_question_is_asked_again(self) -> None:
        """Q-39: when the connection was lost before the answer."""
        topics = self.topics()
        self.server.answers["log.offsets"] = lambda params: Deferred()
        asked = topics.offsets("t")
        self.network.settle()
        self.server.answers.clear()
        self.network.cut()
        self.assertEqual(self.result(asked, 5.0), [0, 0])
        self.assertEqual(self.server.times("log.offsets"), 2)

    def test_what_may_do_harm_twice_is_not(self) -> None:
        """Q-56: the caller is told that nothing is known."""
        topics = self.topics()
        self.server.answers["log.produce"] = lambda params: Deferred()
        asked = topics.produce("t", [NewRecord(b"x")])
        self.network.settle()
        self.network.cut()
        self.network.advance(5.0)
        self.failureResultOf(asked, AnswerLost)
        self.assertEqual(self.server.times("log.produce"), 1)

    def test_a_restart_without_an_error(self) -> None:
        topics = self.topics()
        self.result(topics.connect())
        assert self.server.server is not None
        self.network.run(self.server.server.manager.close_all(RESTARTING))
        self.stop()
        asked = topics.offsets("t")
        self.network.advance(1.0)
        self.serve()
        self.assertEqual(self.result(asked, 5.0), [0, 0])

    def test_closed(self) -> None:
        topics = self.topics()
        self.server.answers["log.offsets"] = lambda params: Deferred()
        asked = topics.offsets("t")
        self.network.settle()
        self.result(topics.close())
        self.failureResultOf(asked)
        with self.assertRaises(TopicsClosed):
            self.result(topics.offsets("t"))

    def test_framings(self) -> None:
        """Q-60: every framing of the pool's port with JSON."""
        for codec in ("frame", "int32", "line"):
            topics = self.topics(codec=codec)
            self.assertEqual(self.result(topics.offsets("t")), [0, 0])

    def test_only_so_many_requests(self) -> None:
        """Q-92: what a client has under way is bounded."""
        topics = self.topics(most_pending=2)
        self.result(topics.connect())
        self.server.answers["log.offsets"] = lambda params: Deferred()
        waiting = [topics.offsets("t") for _ in range(2)]
        with self.assertRaisesRegex(NotSent, "2 requests are waiting"):
            self.result(topics.offsets("t"))
        for each in waiting:
            each.addErrback(lambda failure: None)

    def test_a_session_that_is_too_fast(self) -> None:
        """Q-60: what the server's limit of requests refuses is asked again, whatever it is."""
        topics = self.topics()
        rows = [TOO_MANY_REQUESTS] * 3
        self.server.answers["log.produce"] = lambda params: (
            rows.pop() if rows else self.server.produce(params)
        )
        written = self.result(topics.produce("t", [NewRecord(b"x")], partition=0), 5.0)
        self.assertEqual(written, [Written(0, 0)])
        self.server.answers["log.produce"] = lambda params: TOO_MANY_REQUESTS
        with self.assertRaisesRegex(RefusedByServer, "too many requests"):
            self.result(topics.produce("t", [NewRecord(b"x")]), 11.0)

    def test_what_the_server_would_not_take(self) -> None:
        """Q-62: a message over its limit would end the connection for good."""
        topics = self.topics(max_request=10_000)
        with self.assertRaisesRegex(NotSent, "too large: the server takes 10000"):
            self.result(topics.produce("t", [NewRecord(b"x" * 10_000)]))
        self.assertEqual(self.server.asked, [])


class LoginTests(RemoteCase):
    def test_authorized_on_each_connection(self) -> None:
        self.server.password = "secret"
        topics = self.topics(login=Login("alice", "secret"))
        self.result(topics.offsets("t"))
        self.network.cut()
        self.result(topics.offsets("t"), 5.0)
        said = {"username": "alice", "password": "secret"}
        self.assertEqual(
            [each for each in self.server.asked if each[0] == "authorize"],
            [("authorize", said)] * 2,
        )

    def test_refused_for_good(self) -> None:
        """It does not knock again by itself, and every request says why."""
        self.server.password = "secret"
        topics = self.topics(login=Login("alice", "wrong"))
        for _ in range(2):
            with self.assertRaisesRegex(ClientRefused, "unauthorized"):
                self.result(topics.offsets("t"))
        self.network.advance(100.0)
        self.assertEqual(self.server.times("authorize"), 1)
        self.server.password = "wrong"
        self.result(topics.connect())
        self.assertEqual(self.result(topics.offsets("t")), [0, 0])

    def test_a_refusal_that_passes(self) -> None:
        """A login that cannot be checked now is tried again."""
        answers = [UNAVAILABLE, UNAVAILABLE, True]
        topics = self.topics(login=Login("alice", "secret"))
        self.server.router.use(
            lambda proceed: lambda connection, request: answers.pop(0),
            only=lambda method: method == "authorize",
        )
        self.assertEqual(self.result(topics.offsets("t"), 5.0), [0, 0])
        self.assertEqual(answers, [])

    def test_no_answer_to_a_login(self) -> None:
        """The caller is told why there is no connection."""
        self.server.router.use(
            lambda proceed: lambda connection, request: Deferred(),
            only=lambda method: method == "authorize",
        )
        topics = self.topics(login=Login("alice", "secret"), connect_timeout=2.0)
        with self.assertRaisesRegex(NotSent, "authorize: no answer within 2 s"):
            self.result(topics.offsets("t"), 11.0)


class NodesTests(RemoteCase):
    """Q-36: a client that asks the wrong node is redirected by a machine-readable answer."""

    def setUp(self) -> None:
        super().setUp()
        self.other = TopicServer(self.network)
        self.addCleanup(lambda: self.other.close())
        self.network.run(self.other.topics.create("t", TopicSettings(partitions=2)))
        self.network.run(self.other.listen("127.0.0.1:8001"))
        for method in ("group.join", "group.heartbeat", "group.leave", "group.describe"):
            self.server.answers[method] = lambda params: WRONG_NODE.about("127.0.0.1:8001")

    def client(self, **settings: Any) -> tuple[RemoteTopics, RemoteGroupClient]:
        topics = self.topics(**settings)
        return topics, RemoteGroupClient(topics)

    def test_the_group_is_asked_for_there(self) -> None:
        topics, client = self.client()
        place = self.result(client.join("g", "m", WANTED))
        self.assertEqual(place.assigned, {Partition("t", 0), Partition("t", 1)})
        self.assertEqual(self.result(client.committed("g")), {})
        self.assertEqual(self.server.times("group.describe"), 0)
        self.assertEqual(self.result(topics.offsets("t")), [0, 0])
        self.assertEqual((self.server.times("log.offsets"), topics.nodes.connections), (1, 2))

    def test_as_the_first_address_is(self) -> None:
        """Its kind and its other arguments are those of the first address."""
        topics = self.topics("tcp:host=127.0.0.1:port=8000:timeout=3")
        self.result(RemoteGroupClient(topics).join("g", "m", WANTED))
        self.assertEqual(self.other.times("group.join"), 1)
        other = self.topics("tcp:127.0.0.1:8000")
        self.server.answers["group.join"] = lambda params: WRONG_NODE.about("[::1]:8001")
        self.result(RemoteGroupClient(other).join("h", "m", WANTED))
        self.assertEqual(self.other.times("group.join"), 2)

    def test_no_connection_is_left(self) -> None:
        """Q-92: it is closed when the last member has left."""
        topics, client = self.client()
        for member in ("m", "n"):
            self.result(client.join("g", member, WANTED))
        self.result(client.leave("g", "m"))
        self.assertEqual(topics.nodes.connections, 2)
        self.result(client.leave("g", "n"), 5.0)
        self.assertEqual(topics.nodes.connections, 1)

    def test_the_other_node_dies(self) -> None:
        """The group is looked for over the own connection again."""
        topics, client = self.client()
        self.result(client.join("g", "m", WANTED))
        self.server.answers.clear()
        self.network.run(self.other.stop(), patience=5)
        self.network.settle()
        place = self.result(client.join("g", "m", WANTED), 5.0)
        self.assertEqual(len(place.assigned), 2)
        self.assertEqual((self.server.times("group.join"), topics.nodes.connections), (2, 1))

    def test_the_group_comes_back(self) -> None:
        """The other node names the own one: then only that connection is left."""
        topics, client = self.client()
        self.result(client.join("g", "m", WANTED))
        self.server.answers.clear()
        self.other.answers["group.join"] = lambda params: WRONG_NODE.about("127.0.0.1:8000")
        self.result(client.join("g", "m", WANTED), 5.0)
        self.assertEqual((self.server.times("group.join"), topics.nodes.connections), (2, 1))

    def test_what_may_do_harm_twice_is_not_asked_of_both(self) -> None:
        """Q-56: a deletion that the other node may have made is not sent to the own one."""
        topics, _ = self.client()
        self.server.answers["group.delete"] = lambda params: WRONG_NODE.about("127.0.0.1:8001")
        self.other.answers["group.delete"] = lambda params: Deferred()
        asked = TopicAdmin(topics).delete_group("g")
        self.network.settle()
        self.network.run(self.other.stop(), patience=5)
        self.network.advance(5.0)
        self.failureResultOf(asked, AnswerLost)
        self.assertEqual(self.server.times("group.delete"), 1)

    def test_a_dead_node_is_named(self) -> None:
        """It is asked for a few times only."""
        _, client = self.client()
        self.network.run(self.other.stop(), patience=5)
        with self.assertRaisesRegex(NotSent, "no server says that it leads group g"):
            self.result(client.join("g", "m", WANTED), 5.0)
        self.assertLessEqual(self.server.times("group.join"), 3)

    def test_nodes_that_name_each_other(self) -> None:
        topics, client = self.client()
        self.other.answers["group.join"] = lambda params: WRONG_NODE.about("127.0.0.1:8000")
        with self.assertRaises(NotSent):
            self.result(client.join("g", "m", WANTED), 5.0)
        self.assertLessEqual(topics.nodes.connections, 2)

    def test_only_so_many_nodes(self) -> None:
        """Q-92: a server cannot have a client connect to anybody it names."""
        _, client = self.client(most_nodes=3)
        ports = iter(range(9000, 9100))
        self.server.answers["group.describe"] = lambda params: WRONG_NODE.about(
            f"127.0.0.1:{next(ports)}"
        )
        self.network.unreachable.update(range(9000, 9100))
        asked = [client.committed(f"g{number}") for number in range(5)]
        self.network.settle()
        failed = [self.failureResultOf(each, NotSent) for each in asked[3:]]
        self.assertIn("3 connections to other nodes", failed[0].getErrorMessage())
        for each in asked[:3]:
            each.addErrback(lambda failure: None)

    def test_an_address_that_is_none(self) -> None:
        """Q-62."""
        _, client = self.client()
        for text in ("127.0.0.1", "127.0.0.1:99999", "a b:1", "tcp:h:1", ""):
            self.server.answers["group.join"] = lambda params, text=text: WRONG_NODE.about(text)
            with self.assertRaisesRegex(Exception, "wrong node") as caught:
                self.result(client.join("g", "m", WANTED))
            self.assertNotIsInstance(caught.exception, LedElsewhere)
