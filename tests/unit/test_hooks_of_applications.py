"""What hooks and handlers outside routers may return and raise: rooms, the bus, the server.

Issue 12: each may return a value, a Deferred, a coroutine or another awaitable; what it raises
is its own failure and nobody else's, also where programs take it for something else.
"""
# ruff: noqa: B023  (what is defined in a loop is called in it)

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Answer, Kind, Message, Model, Outcome, Refusal
from kupool.bus.broker import Broker
from kupool.bus.local import LocalBus
from kupool.bus.remote.service import BusService
from kupool.errors import GOING_DOWN, INTERNAL_ERROR, RequestError
from kupool.net import Client, ClientSettings, Observer, Router, Server
from kupool.net.heartbeat import Heartbeat
from kupool.net.hooks import HookedObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.net.testing import MemoryNetwork
from kupool.rooms import Lobby, LobbyObserver, RoomHooks
from kupool.rooms.matchmaking import MatchRequest
from kupool.rooms.names import check_name
from kupool.rooms.room import Room
from kupool.rooms.service import RoomService
from kupool.rooms.spread.packing import BytesPacking, RequestPacking
from kupool.rooms.tasks import TaskStatistics
from kupool.rooms.timers import LobbyTimers
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.timing.chunks import in_chunks
from kupool.timing.round_robin import RoundRobin
from kupool.wire.framing import LINE, Framing
from kupool.wire.lines import LineCodec
from tests.fakes.peers import Bench, lines, ping_router
from tests.fakes.raising import ENDINGS, Waits, raising, returning

NAME = os.fsdecode(b"caf\xe9.txt")


class RoomCase(SynchronousTestCase):
    """A lobby on a network in memory. What each hook does is set by a test."""

    def setUp(self) -> None:
        self.errors: list[BaseException] = []
        self.does: dict[str, Callable[..., object]] = {}
        case = self

        class Hooks(RoomHooks):
            def on_parse_user(self, connection: Connection, body: object) -> object:
                user = body.params  # type: ignore[attr-defined]
                return case.do("parse", ("room " + user, user))

            def on_create_room(self, room: Room) -> object:
                return case.do("create")

            def on_dispatch_message(self, room: Room, incoming: Any) -> object:
                return case.do(incoming.body.params, "ok")

            def on_dispatch_system_message(self, room: Room, event: object) -> object:
                return case.do("system")

            def on_error(self, room: Any, failure: Failure, subject: object) -> object:
                case.errors.append(failure.value)
                return case.do("error")

            def on_parse_match(self, connection: Connection, body: object) -> object:
                return case.do("parse match", MatchRequest("p", "m", 2, 5.0))

            def on_match_players(self, lobby: Lobby, outcome: object) -> object:
                return case.do("match")

        self.network = MemoryNetwork()
        self.hooks = Hooks()
        self.lobby, router = Lobby(self.network, self.hooks), Router()
        router.add("say", self.lobby.request, str)
        router.add("match", self.lobby.match, object)
        self.network.run(Server(self.network, LobbyObserver(router, self.lobby)).listen([":8000"]))

    def do(self, name: str, value: object = None) -> object:
        return self.does[name]() if name in self.does else value

    def say(self, user: str, text: str = "") -> Any:
        """The answer to a first message, or to ``text`` after it."""
        peer = self.network.connect(8000)
        answer = peer.ask("say", user)
        if text:
            answer = peer.ask("say", text)
        return answer.get("result") if "error" not in answer else answer["error"]


class RoomTests(RoomCase):
    def test_whatever_a_hook_raises(self) -> None:
        """The sender is told of it, ``on_error`` is, and every other room goes on."""
        for error in ENDINGS:
            for hook in ("parse", "create", "shout", "system"):
                for function in raising(error):
                    self.does = {hook: function}
                    answer = self.say("ann", "shout")
                    self.assertIn(error, [type(e) for e in self.errors], hook)
                    if hook != "system":
                        self.assertRegex(str(answer), "internal error|not found", (hook, answer))
                    self.does = {}
                    for room in list(self.lobby):
                        room.close()
                    self.network.advance(60)
                    self.assertEqual(self.say("bob"), "ok")
                    self.lobby.get("room bob").close()
                    self.network.advance(60)
                    self.errors.clear()
            self.flushLoggedErrors(error)

    def test_coroutines_that_return_something_to_wait_for(self) -> None:
        """What comes of it is the answer, and the room goes on."""
        later: Deferred[object] = Deferred()

        async def inner() -> object:
            await later
            return "inner"

        async def outer() -> object:
            return inner()

        async def waits() -> object:
            await later
            return succeed("waited")

        self.does = {"outer": outer, "waits": waits, "never": lambda: Waits(Deferred())}
        peer = self.network.connect(8000)
        peer.ask("say", "ann")
        for text in ("outer", "waits", "plain"):
            peer.request("say", text)
        self.network.advance(1)
        self.assertEqual(peer.messages(), [])
        later.callback(None)
        self.network.advance(1)
        self.assertEqual([m["result"] for m in peer.messages()], ["inner", "waited", "ok"])

    def test_an_inner_coroutine_that_never_ends(self) -> None:
        """A-42: it has the time of its hook, and no more."""

        async def outer() -> object:
            return Deferred()

        self.does = {"outer": outer}
        peer = self.network.connect(8000)
        peer.ask("say", "ann")
        peer.request("say", "outer")
        peer.request("say", "plain")
        self.network.advance(60)
        self.assertEqual([m.get("error") for m in peer.messages()], ["timeout", None])

    def test_an_application_that_answers_by_itself(self) -> None:
        """The next messages of the room are handled all the same."""

        def answer(room: Room, incoming: Any) -> object:
            incoming.answer.callback("mine")
            if incoming.body.params == "worse":
                raise SystemExit
            return "not heard"

        peer = self.network.connect(8000)
        peer.ask("say", "ann")
        self.patch(self.hooks, "on_dispatch_message", answer)
        for text in ("fine", "worse", "fine"):
            peer.request("say", text)
        self.network.advance(1)
        self.assertEqual([m["result"] for m in peer.messages()], ["mine"] * 3)
        self.assertEqual([type(e) for e in self.errors], [SystemExit])

    def test_handlers_that_cannot_be_cancelled(self) -> None:
        """Neither their time limit nor the end of their room is lost."""
        for error in ENDINGS:

            def fail(deferred: object, error: type[BaseException] = error) -> None:
                raise error

            self.does = {"hang": lambda fail=fail: Deferred(fail)}
            peer = self.network.connect(8000)
            peer.ask("say", "ann")
            peer.request("say", "hang")
            self.network.advance(40)
            peer.request("say", "hang")
            self.network.settle()
            self.lobby.get("room ann").close()
            self.network.advance(20)
            self.assertEqual([m["code"] for m in peer.messages()], [37, 35])
            self.assertEqual(len(self.lobby), 0)
            self.flushLoggedErrors(error)

    def test_on_error_itself(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                self.does = {"shout": raising(ValueError)[0], "error": function}
                self.assertIn("internal error", self.say("ann", "shout"))
                self.does = {}
                self.assertEqual(self.say("bob"), "ok")
                self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.flushLoggedErrors(ValueError)

    def test_every_way_to_return(self) -> None:
        for function in returning("heard"):
            self.does = {"shout": function}
            self.assertEqual(self.say("ann", "shout"), "heard")
        for number, function in enumerate(returning(("tea", "cid"))):
            self.does = {"parse": function}
            self.assertEqual(self.say(f"cid{number}"), "ok")
        self.assertEqual(len(self.lobby.get("tea").members), 1)

    def test_matches(self) -> None:
        """``on_parse_match`` may take its time, and fail; who has gone waits for nothing."""
        for function in returning(MatchRequest("p", "m", 2, 5.0)):
            self.does = {"parse match": function}
            peer = self.network.connect(8000)
            self.assertEqual(peer.ask("match", {})["result"], True)
            self.assertIn("p", self.lobby.matchmaker)
            peer.abort()
            self.assertNotIn("p", self.lobby.matchmaker)
        for function in returning(None):
            self.does = {"parse match": function}
            self.assertEqual(self.network.connect(8000).ask("match", {})["code"], 33)
        waiting: Deferred[object] = Deferred()
        self.does = {"parse match": lambda: Waits(waiting)}
        peer = self.network.connect(8000)
        peer.request("match", {})
        peer.abort()
        waiting.callback(MatchRequest("p", "m", 2, 5.0))
        self.assertNotIn("p", self.lobby.matchmaker)
        self.does = {"parse match": lambda: Waits(Deferred())}
        peer = self.network.connect(8000)
        peer.request("match", {})
        self.network.advance(60)  # each hook has its time
        self.assertEqual([m["error"] for m in peer.messages()], ["timeout"])
        for bad in (MatchRequest("p", "m", "2", 5.0), MatchRequest("p", "m", 2, "5")):  # type: ignore[arg-type]
            self.does = {"parse match": lambda bad=bad: bad}
            self.assertEqual(peer.ask("match", {})["code"], 20)
        self.does = {}
        self.assertEqual(peer.ask("match", {})["result"], True)  # it was as if not asked
        self.assertTrue(self.lobby.cancel_match("p"))
        self.flushLoggedErrors(TypeError)
        for error in ENDINGS:
            for function in raising(error):
                self.does = {"parse match": function}
                self.assertEqual(self.network.connect(8000).ask("match", {})["code"], 20)
            self.flushLoggedErrors(error)

    def test_matched_players(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                self.does = {"match": function}
                self.network.connect(8000).ask("match", {})
                self.network.advance(10)
                self.assertIn(error, [type(e) for e in self.errors])
                self.errors.clear()

    def test_timers(self) -> None:
        """Those of a room, and what is called when one ends."""
        self.say("ann")
        room = self.lobby.get("room ann")
        fired: list[str] = []
        for error in ENDINGS:
            for number, function in enumerate(raising(error)):
                room.once(f"bad {number}", 1.0, function)
                room.once(f"good {number}", 1.0, lambda room, key: fired.append(key))
                self.network.advance(3)
                self.assertIn(error, [type(e) for e in self.errors])
                self.errors.clear()
                self.assertEqual(fired, [f"good {number}"])
                fired.clear()
                room.when_closed(function)
        room.when_closed(lambda unhandled: fired.append("closed"))
        room.close()
        self.network.advance(60)
        self.assertEqual(fired, ["closed"])
        self.assertTrue(room.closed)
        self.flushLoggedErrors(*ENDINGS)

    def test_payloads_that_are_made(self) -> None:
        """A function of the application's that fails costs that message alone."""

        def fails(framing: Framing) -> bytes:
            raise SystemExit

        peer = self.network.connect(8000)
        peer.ask("say", "ann")
        self.lobby.get("room ann").broadcast(fails)
        self.lobby.broadcast(fails)
        self.lobby.get("room ann").broadcast(b'"after"')
        self.network.advance(1)
        self.assertEqual(peer.messages(), ["after"])
        self.flushLoggedErrors(SystemExit)


class WheelTests(SynchronousTestCase):
    def test_timers_that_fail(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                clock = Clock()
                tasks = TaskStatistics(clock.seconds)
                wheel, fired = LobbyTimers(clock, tasks=tasks), list[str]()
                wheel.once("room", "a", 1.0, function)
                wheel.once("room", "b", 1.0, lambda timer: fired.append(timer.key))
                wheel.once("room", "c", 1.0, function, counted=False)
                clock.pump([0.5, 1.0, 1.0])
                self.assertEqual(fired, ["b"])
                self.assertEqual(tasks.snapshot()["a"].failures, 1)
                self.assertEqual(len(self.flushLoggedErrors(error)), 2)


class TurnTests(SynchronousTestCase):
    """What one room's turn, or one of many calls, comes to costs the others nothing."""

    class Job:
        queued = False

        def __init__(self, call: Callable[[], object]) -> None:
            self.ready = True
            self._call = call

        def run(self, budget: int) -> int:
            self.ready = False
            self._call()
            return 1

    def test_whatever_is_raised(self) -> None:
        for error in ENDINGS:
            clock, done = Clock(), list[str]()
            turns = RoundRobin(clock)
            calls = [raising(error)[0], lambda: done.append("done")]
            for call in calls:
                turns.wake(self.Job(call))
            clock.advance(0)
            self.successResultOf(in_chunks(clock, calls, lambda call: call()))
            self.assertEqual(done, ["done", "done"])
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)


class NameTests(SynchronousTestCase):
    def test_names_that_no_message_can_carry(self) -> None:
        """They are ``bad params`` where they come in, not a failure where they go out."""
        with self.assertRaises(RequestError) as caught:
            check_name(NAME, 255)
        self.assertEqual(caught.exception.error.code, 32)
        self.assertIn("caf", str(caught.exception))

    def test_lists_from_any_number_on(self) -> None:
        network = MemoryNetwork()
        service = RoomService(network, lambda connection: "ann", ping_router())
        network.run(Server(network, service).listen([":8000"]))
        peer = network.connect(8000)
        for start in (2**53 - 1, 1000):
            self.assertEqual(peer.ask("room.list", {"start": start})["result"]["rooms"], [])
        for start in (2**53, 2**63, 10**30, 10**400, -1, 1.5, "x"):
            answer = peer.ask("room.list", {"start": start})
            self.assertEqual((answer["code"], answer["error"][:18]), (32, "bad params: start:"))


class PackingTests(SynchronousTestCase):
    def test_requests_of_another_host(self) -> None:
        """They arrive as the one Request, without a connection."""
        router = Router()
        router.add("say", lambda c, r: r, dict[str, int])
        packing = RequestPacking(router)
        connection, _ = Bench(router).connect(LINE)
        read: list[Any] = []
        router.use(lambda handler: lambda c, r: read.append(r) or True)
        connection.feed(b'{"id":"q","method":"say","params":{"a":1}}\n')
        found = packing.unpack(packing.pack(read[0]))
        self.assertEqual((found.id, found.msg_id, found.params), ("q", "say", {"a": 1}))
        self.assertIsNone(found.connection)
        for other in (packing, BytesPacking()):
            with self.assertRaises(TypeError):
                other.pack(object())


class BusTests(SynchronousTestCase):
    """Handlers of the bus, in the process and behind a connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = LocalBus(self.clock, wall=self.clock.seconds)

    def outcome(self, handler: Callable[[Message], Any]) -> Outcome:
        self.successResultOf(self.bus.subscribe(["t"], handler))
        outcome = self.bus.publish_reliable_random(b"", "t")
        self.clock.pump([0.1] * 3)
        self.bus.unsubscribe(handler)
        return self.successResultOf(outcome)

    def test_whatever_a_handler_raises(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                outcome = self.outcome(function)
                self.assertEqual(outcome.kind, Kind.REFUSED)
                self.assertIn("internal error, reference", outcome.reason)
                self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.assertEqual(self.outcome(lambda message: b"fine").data, b"fine")

    def test_every_way_to_return(self) -> None:
        for function in returning(b"answer"):
            self.assertEqual(self.outcome(function).data, b"answer")

    def test_refusals_that_cannot_be_encoded(self) -> None:
        """They arrive, at once, with what cannot be expressed escaped."""

        class Mute(Refusal):
            def __str__(self) -> str:
                raise KeyboardInterrupt

        def refuses(message: Message) -> object:
            raise Refusal(f"no such file: {NAME}")

        def mute(message: Message) -> object:
            raise Mute

        self.assertEqual(self.outcome(refuses).reason, "no such file: caf\\udce9.txt")
        self.assertIn("internal error", self.outcome(mute).reason)
        self.flushLoggedErrors(KeyboardInterrupt, Mute)

    def test_answers_that_cannot_be_sent(self) -> None:
        """A-16: whichever form of the bus, they are a failure, and not a lost answer."""
        for answer in (Answer(b"", 2**63), Answer("text"), Answer(b"", None), Answer(b"", True)):  # type: ignore[arg-type]
            self.assertIn("cannot be sent", self.outcome(lambda message: answer).reason)
        self.assertEqual(self.outcome(lambda message: Answer(b"", 2**63 - 1)).status, 2**63 - 1)

    def test_numbers_of_any_size(self) -> None:
        """``timeout_ms`` ends in the documented error, whatever number it is."""
        network = MemoryNetwork()
        service = BusService(Broker(network, wall=network.seconds))
        network.run(Server(network, service).listen([":8000"]))
        peer = network.connect(8000)
        # What JSON has no number for here, at the end, cannot be read at all.
        named = ["0", "9.999", "3600000.1", "-1", "1e300", "9" * 300, "9" * 400, "-" + "9" * 400]
        for number in (*named, "1e400", "9" * 5000, "NaN"):
            peer.send(
                b'{"id":1,"method":"bus.publish","params":{"topic":"t",'
                b'"model":"reliable-random","timeout_ms":%b}}\n' % number.encode()
            )
            (answer,) = peer.messages()
            self.assertEqual(answer["code"], 32 if number in named else 30, number)
            self.assertEqual("timeout_ms: " in answer["error"], number in named)
        self.assertTrue(peer.open)

    def test_an_outcome_that_cannot_be_told(self) -> None:
        def done(outcome: Outcome) -> None:
            raise SystemExit

        broker = Broker(self.clock, wall=self.clock.seconds)
        for model in (Model.RELIABLE_RANDOM, Model.UNRELIABLE_ALL):
            message = Message("1", "t", b"", model, {}, "", 0.1, False)
            broker.publish(message, done)
            self.clock.advance(1)
            self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_outcomes_of_the_end_that_cannot_be_told(self) -> None:
        """Each is told all the same, and the bus ends."""
        for error in ENDINGS:
            told: list[Outcome] = []

            def done(outcome: Outcome) -> None:
                told.append(outcome)
                raise error

            broker = Broker(self.clock, wall=self.clock.seconds)
            for number in "12":
                message = Message(number, "t", b"", Model.RELIABLE_RANDOM, {}, "", 5.0, False)
                broker.publish(message, done)
            broker.close()
            self.assertEqual([outcome.kind for outcome in told], [Kind.REFUSED] * 2)
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)


class ServerTests(SynchronousTestCase):
    """Hooks of a server, its observer, and its heartbeat."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()

    def test_hooks_of_start_and_stop(self) -> None:
        for function in returning(None):
            server = Server(self.network, Observer(Router()))
            seen: list[str] = []
            server.after_start(function)
            server.after_start(lambda server: seen.append("started"))
            server.before_stop(lambda server: seen.append("stopped"))
            server.before_stop(function)
            self.network.run(server.start([":8000"]))
            self.network.run(server.stop(), 20)
            self.assertEqual(seen, ["started", "stopped"])

    def test_hooks_before_the_stop_that_fail(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                server = Server(self.network, Observer(Router()))
                seen: list[str] = []
                server.before_stop(lambda server: seen.append("stopped"))
                server.before_stop(function)
                self.network.run(server.start([":8000"]))
                self.network.run(server.stop(), 20)
                self.assertEqual((seen, server.addresses), (["stopped"], []))
                self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_an_address_that_fails(self) -> None:
        """Whatever it fails with, the addresses before it are let go."""
        for error in ENDINGS:
            network = MemoryNetwork()
            listen = network.listenTCP

            def second(
                port: int, *given: Any, error: type[BaseException] = error, **named: Any
            ) -> Any:
                if port == 8001:
                    raise error
                return listen(port, *given, **named)

            network.listenTCP = second  # type: ignore[method-assign]
            server = Server(network, Observer(Router()))
            with self.assertRaises(error):
                network.run(server.start([":8000", ":8001"]), 20)
            self.assertEqual((server.addresses, network.getDelayedCalls()), ([], []))

    def test_hooks_after_the_start_that_fail(self) -> None:
        """The start fails with it, and nothing listens."""
        for error in ENDINGS:
            for function in raising(error):
                server = Server(self.network, Observer(Router()))
                server.after_start(function)
                with self.assertRaises(error):
                    self.network.run(server.start([":8000"]), 20)
                self.assertEqual(server.addresses, [])

    def test_a_start_that_is_given_up(self) -> None:
        """A coroutine that is closed ends there, and waits for nothing more."""
        server = Server(self.network, Observer(Router()))
        stopped: Deferred[None] = Deferred()
        server.after_start(lambda server: Deferred())
        server.before_stop(lambda server: stopped)
        starting = server.start([":8000"])
        starting.send(None)
        starting.close()  # raises RuntimeError where it waits for something
        stopped.callback(None)
        self.network.run(server.stop(), 20)
        self.assertEqual(server.addresses, [])

    def observed(self, name: str, function: Callable[..., object]) -> Bench:
        bench = Bench()

        def hook(*arguments: object) -> object:
            if name == "opened":
                arguments[0].router = ping_router()  # type: ignore[attr-defined]
            return function()

        setattr(bench.observer, name, hook)
        return bench

    def test_observers(self) -> None:
        """One that fails costs the connection it was told of, at most."""
        for error in ENDINGS:
            for name in ("opened", "settle", "closed"):
                for function in raising(error):
                    bench = self.observed(name, function)
                    connection, transport = bench.connect()
                    if name != "opened":
                        self.assertIs(connection.state, OPEN)
                        connection.finished()
                    self.assertTrue(transport.aborted or transport.disconnecting)
                    connection.lost(Failure(ConnectionDone()))
                    self.assertEqual(len(bench.manager), 0)
                    self.assertEqual(len(self.flushLoggedErrors(error)), 1, name)

    def test_observers_that_take_their_time(self) -> None:
        """Messages wait for ``opened``, the end for ``settle``."""
        waiting: Deferred[None] = Deferred()
        bench = self.observed("opened", lambda: Waits(waiting))
        connection, transport = bench.connect()
        connection.feed(b'{"id":1,"method":"ping"}\n')
        self.assertEqual(transport.value(), b"")
        waiting.callback(None)
        bench.clock.advance(1)
        self.assertEqual(transport.value(), b'{"id":1,"result":true}\n')
        waiting = Deferred()
        bench = self.observed("settle", lambda: Waits(waiting))
        connection, transport = bench.connect()
        connection.finished()
        self.assertFalse(transport.disconnecting)
        waiting.callback(None)
        self.assertTrue(transport.disconnecting)

    def test_hooks_of_connections(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                for hooks in ({"on_start": function}, {"on_stop": function}):
                    bench = Bench()
                    hooked: Any = HookedObserver(ping_router(), **hooks)
                    bench.manager = ConnectionManager(bench.clock, hooked, ServerSettings())
                    connection, transport = bench.connect()
                    connection.close(None)
                    connection.lost(Failure(ConnectionDone()))
                    self.assertEqual(len(bench.manager), 0)
                    self.assertEqual(len(self.flushLoggedErrors(error)), 1)
                    self.assertTrue(transport.aborted or transport.disconnecting)

    def test_calls_for_each_connection(self) -> None:
        bench = Bench()
        for _ in range(3):
            bench.connect()
        seen: list[int] = []

        def each(connection: Connection) -> None:
            seen.append(connection.id)
            raise SystemExit

        self.successResultOf(bench.manager.each(each))
        self.assertEqual((len(seen), len(self.flushLoggedErrors(SystemExit))), (3, 3))

    def test_dead_peers(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                bench = Bench()
                connections = [bench.connect()[0] for _ in range(2)]
                beat = Heartbeat(bench.manager, 1.0, 1, dead=function, answers=lambda c: True)
                for _ in range(4):
                    bench.clock.advance(1.5)
                    beat.beat()
                self.assertEqual(len(self.flushLoggedErrors(error)), 2)
                self.assertEqual([c.state for c in connections], [OPEN, OPEN])


class ClientTests(SynchronousTestCase):
    """Hooks of a client."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.network.run(Server(self.network, Observer(ping_router())).listen([":8000"]))

    def client(self, **hooks: Callable[..., object]) -> Client:
        return Client(self.network, "tcp:localhost:8000", codec="line", **hooks)  # type: ignore[arg-type]

    def test_every_way_to_return(self) -> None:
        for function in returning(None):
            client = self.client(on_connected=function, on_disconnected=function)
            self.network.run(client.connect(), 5)
            self.assertEqual(self.network.run(client.request("ping")), True)
            self.network.run(client.close(), 5)

    def test_a_start_that_takes_its_time(self) -> None:
        """Whatever awaitable it is, the connection counts when it has ended."""
        waiting: Deferred[None] = Deferred()
        client = self.client(on_connected=lambda connection: Waits(waiting))
        connected = client.connect()
        self.network.advance(1)
        self.assertNoResult(connected)
        waiting.callback(None)
        self.network.run(connected, 5)
        self.network.run(client.close(), 5)

    def test_an_end_that_fails(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                client = self.client(on_disconnected=function)
                self.network.run(client.connect(), 5)
                self.network.cut()
                self.network.advance(60)
                self.assertEqual(self.network.run(client.request("ping")), True)
                self.network.run(client.close(), 5)
                self.assertTrue(self.flushLoggedErrors(error))


class HostileSplitter:
    """A splitter of the application's that raises; each read is 200 pings otherwise."""

    too_large = corrupt = False
    max_payload = 1000

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def feed(self, data: bytes) -> list[bytes]:
        if b"raise" in data:
            raise self._error
        return [b'{"id":null,"method":"ping"}'] * 200

    def resume(self) -> list[bytes]:
        raise self._error


class CodecTests(SynchronousTestCase):
    """Codecs, splitters and types of an application's are its own code, as handlers are."""

    def framing(self, error: type[BaseException], *names: str) -> Framing:
        """The framing `line`, of which some functions raise."""

        def fail(*arguments: object) -> Any:
            raise error

        return LINE._replace(crlf=None, **dict.fromkeys(names, fail))

    def test_answers_that_cannot_be_encoded(self) -> None:
        """Neither the answer nor the error can: the connection is there all the same."""
        for error in ENDINGS:
            bench = Bench(ping_router())
            connection, transport = bench.connect(self.framing(error, "encode", "pack", "join"))
            for number in (1, 2, 200):  # one message, some, and more than a turn's share
                connection.feed(b'{"id":1,"method":"ping"}\n' * number)
                bench.turns()
                self.assertEqual((connection.state, transport.value()), (OPEN, b""))
            self.assertEqual(len(self.flushLoggedErrors(error)), 203)
            connection.close(GOING_DOWN)
            self.assertTrue(transport.disconnecting)

    def test_broadcasts(self) -> None:
        for error in ENDINGS:
            bench = Bench(ping_router())
            bench.connect(self.framing(error, "encode", "pack")._replace(name="hostile"))
            _, transport = bench.connect()
            self.successResultOf(bench.manager.broadcast(b"x", key="k"))
            self.successResultOf(bench.manager.send_many(b"x"))
            self.assertEqual(transport.value(), b"x\nx\n")
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)

    def test_the_last_word(self) -> None:
        for error in ENDINGS:
            bench = Bench(ping_router())

            def last(*arguments: object) -> bytes:
                raise error

            bench.manager.close_message = last
            connection, transport = bench.connect()
            connection.close(GOING_DOWN)
            self.assertTrue(transport.disconnecting)

    def test_no_splitter_at_all(self) -> None:
        """The peer is cut off, and nobody waits for its connection."""
        for error in ENDINGS:
            bench = Bench(ping_router())
            connection, transport = bench.connect(self.framing(error, "splitter"))
            self.assertIsNone(connection)
            self.assertTrue(transport.aborted)
            self.assertEqual((len(bench.manager), bench.manager.accepted), (0, 0))
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_a_splitter_that_raises_in_a_later_turn(self) -> None:
        """It costs its own connection, and others have their turns."""
        for error in ENDINGS:
            bench = Bench(ping_router())
            framing = LINE._replace(crlf=None, splitter=lambda size: HostileSplitter(error))
            hostile, transport = bench.connect(framing)
            polite, answers = bench.connect()
            for connection in (hostile, polite):
                connection.hold()
            polite.feed(b'{"id":1,"method":"ping"}\n' * 200)
            hostile.feed(b"x" * 10_000 + b"raise")
            for connection in (hostile, polite):
                connection.release()
            bench.turns()
            self.assertTrue(transport.aborted)
            self.assertEqual(len(lines(answers.value())), 200)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_types_of_params(self) -> None:
        for error in (*ENDINGS, ZeroDivisionError):

            class Params(msgspec.Struct):
                number: int

                def __post_init__(self) -> None:
                    raise error

            router = Router()
            router.add("m", lambda connection, request: True, Params)
            connection, transport = Bench(router).connect()
            connection.feed(b'{"id":7,"method":"m","params":{"number":1}}\n')
            connection.feed(b'{"id":null,"method":"m","params":{"number":1}}\n')
            (answer,) = lines(transport.value())
            self.assertEqual((answer["id"], answer["code"]), (7, INTERNAL_ERROR.code))
            self.assertIn("internal error, reference", answer["error"])
            self.assertEqual((router.failures, connection.state), ({"m": 2}, OPEN))
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)

    def test_messages_of_a_client(self) -> None:
        network = MemoryNetwork()
        network.run(Server(network, Observer(ping_router())).listen([":8000"]))
        for error in ENDINGS:

            class Hostile(LineCodec):
                def pack(self, message: Any) -> bytes:
                    raise error

            settings = ClientSettings(keepalive=1.0)
            client = Client(network, "tcp:localhost:8000", codec=Hostile(), settings=settings)
            network.run(client.connect(), 5)
            self.failureResultOf(client.request("ping"), error)
            network.advance(3.5)
            self.assertEqual(len(self.flushLoggedErrors(error)), 3)
            self.assertIsNotNone(client.connection)
            network.run(client.close(), 5)
