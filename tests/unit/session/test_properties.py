"""Properties of connections, and finding connections by them."""

from __future__ import annotations

from threading import Thread

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.session.connection import Connection
from kupool.session.failures import ConnectionClosed, PropertyNotFound
from tests.fakes.peers import Bench

DONE = Failure(ConnectionDone())


class PropertyTests(SynchronousTestCase):
    """P-59: set, get, remove; an absent one is `no property found`."""

    def test_set_get_remove(self) -> None:
        connection, _ = Bench().connect()
        connection.set_property("room", 7)
        self.assertEqual(connection.get_property("room"), 7)
        connection.set_property("room", None)
        self.assertIsNone(connection.get_property("room"))
        self.assertEqual(connection.properties, {"room": None})
        connection.remove_property("room")
        for ask in (connection.get_property, connection.remove_property):
            with self.assertRaises(PropertyNotFound) as caught:
                ask("room")
            self.assertEqual(str(caught.exception), "no property found: room")
            self.assertIsInstance(caught.exception, KeyError)

    def test_each_connection_has_its_own(self) -> None:
        bench = Bench()
        (one, _), (two, _) = bench.connect(), bench.connect()
        one.set_property("name", "ann")
        with self.assertRaises(PropertyNotFound):
            two.get_property("name")

    def test_they_vanish_with_the_connection(self) -> None:
        """P-60: the observer still sees them at the end; then they are gone."""
        bench = Bench()
        bench.manager.index.declare("user")
        connection, _ = bench.connect()
        connection.set_property("user", "ann")
        connection.set_property("data", bytes(10))
        seen: list[object] = []
        self.patch(bench.observer, "closed", lambda c, reason: seen.append(c.get_property("user")))
        connection.close(None)
        self.assertEqual(bench.manager.find("user", "ann"), [connection])
        connection.lost(DONE)
        self.assertEqual((seen, connection.properties), (["ann"], {}))
        self.assertEqual(bench.manager.find("user", "ann"), [])
        with self.assertRaises(ConnectionClosed):
            connection.set_property("user", "ann")
        self.assertEqual(bench.manager.find("user", "ann"), [])

    def test_several_threads(self) -> None:
        """P-60: nothing is lost, and the index agrees, whoever does what at once."""
        bench = Bench()
        bench.manager.index.declare("turn")
        connections = [bench.connect()[0] for _ in range(4)]
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for n in range(500):
                    connection = connections[n % 4]
                    connection.set_property("turn", n % 3)
                    connection.set_property(f"own {number}", n)
                    if connection.get_property(f"own {number}") != n:
                        raise AssertionError(n)
                    bench.manager.find("turn", n % 3)
                    if n % 7 == 0:
                        connection.remove_property(f"own {number}")
            except BaseException as error:
                errors.append(error)

        threads = [Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        for value in range(3):
            found = bench.manager.find("turn", value)
            self.assertEqual(
                {c.id for c in found},
                {c.id for c in connections if c.get_property("turn") == value},
            )


class IndexTests(SynchronousTestCase):
    """P-61: connections are found by the properties that are indexed."""

    def test_find_by_user(self) -> None:
        bench = Bench()
        bench.manager.index.declare("user")
        one, two, three = (bench.connect()[0] for _ in range(3))
        for connection, user in ((one, "ann"), (two, "bob"), (three, "ann")):
            connection.set_property("user", user)
        self.assertEqual(bench.manager.find("user", "ann"), [one, three])
        one.set_property("user", "bob")
        self.assertEqual(bench.manager.find("user", "ann"), [three])
        self.assertEqual(bench.manager.find("user", "bob"), [two, one])
        three.remove_property("user")
        self.assertEqual(bench.manager.find("user", "ann"), [])
        self.assertEqual(bench.manager.find("user", "nobody"), [])

    def test_only_what_was_declared(self) -> None:
        bench = Bench()
        connection, _ = bench.connect()
        connection.set_property("user", "ann")
        with self.assertRaises(ValueError) as caught:
            bench.manager.find("user", "ann")
        self.assertIn("'user' is not indexed", str(caught.exception))

    def test_values_that_no_index_can_hold(self) -> None:
        bench = Bench()
        bench.manager.index.declare("user")
        connection, _ = bench.connect()
        connection.set_property("user", "ann")
        with self.assertRaises(TypeError):
            connection.set_property("user", ["ann"])
        self.assertEqual(connection.get_property("user"), "ann")
        self.assertEqual(bench.manager.find("user", "ann"), [connection])
        connection.properties["user"] = ["beside the index"]
        connection.lost(DONE)
        self.assertEqual(connection.properties, {})

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.sampled_from(["set", "remove", "end", "declare"]),
                st.sampled_from(["user", "room", "plain"]),
                st.integers(0, 2),
            ),
            max_size=40,
        )
    )
    def test_always_what_a_search_would_find(self, steps: list[tuple[int, str, str, int]]) -> None:
        bench = Bench()
        for name in ("user", "room"):
            bench.manager.index.declare(name)
        connections: dict[int, Connection] = {}
        for number, what, name, value in steps:
            connection = connections.setdefault(number, bench.connect()[0])
            if what == "set":
                connection.set_property(name, value)
            elif what == "remove" and name in connection.properties:
                connection.remove_property(name)
            elif what == "end":
                connection.lost(DONE)
                del connections[number]
            bench.manager.index.declare("user")  # again, which changes nothing
            for indexed in ("user", "room"):
                for wanted in range(3):
                    expected = [c for c in bench.manager if c.properties.get(indexed) == wanted]
                    found = bench.manager.find(indexed, wanted)
                    self.assertEqual({c.id for c in found}, {c.id for c in expected})
