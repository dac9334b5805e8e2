"""Runs one scenario of the SDK for Python: python scenarios.py TRANSPORT SCENARIO SETTINGS.

``SETTINGS`` is JSON: the URLs of the servers, and the secret of their tokens. Where a scenario
needs something done to the server, it prints a line, and goes on when a line comes back.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from centrifuge import (
    CentrifugeError,
    Client,
    ClientEventHandler,
    ReplyError,
    SubscriptionEventHandler,
)
from joserfc import jwk, jwt

PATIENCE = 15.0


class Recorder:
    """What happened, as names and contexts."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def add(self, name: str, context: Any) -> None:
        self.events.append((name, context))

    def of(self, name: str) -> list[Any]:
        return [context for each, context in self.events if each == name]

    async def get(self, name: str, number: int = 0) -> Any:
        """Return the context of an event, once it has come."""
        await until(lambda: len(self.of(name)) > number, name)
        return self.of(name)[number]


def recording(base: type, recorder: Recorder) -> Any:
    """Return a handler of events that records all of them."""

    def method(name: str) -> Callable[[Any, Any], Awaitable[None]]:
        async def record(self: Any, context: Any) -> None:
            recorder.add(name.removeprefix("on_"), context)

        return record

    names = [name for name in dir(base) if name.startswith("on_")]
    return type("Recording", (base,), {name: method(name) for name in names})()


async def until(holds: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"never came true: {what}"
        await asyncio.sleep(0.02)


async def code_of(awaited: Awaitable[Any]) -> int:
    """Return the code of the error that something fails with."""
    try:
        await awaited
    except ReplyError as error:
        return int(error.code)
    raise AssertionError("there was no error")


class Subscribed:
    """A subscription, and what it got."""

    def __init__(self, client: Client, channel: str, **options: Any) -> None:
        self.log = Recorder()
        handler = recording(SubscriptionEventHandler, self.log)
        self.subscription = client.new_subscription(channel, handler, **options)

    @property
    def data(self) -> list[Any]:
        """The data of the publications."""
        return [context.pub.data for context in self.log.of("publication")]

    async def begin(self) -> Subscribed:
        """Subscribe."""
        number = len(self.log.of("subscribed"))
        await self.subscription.subscribe()
        await self.log.get("subscribed", number)
        return self


class Cable:
    """A port that passes everything on to a server, until it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = True
        self.url = ""

    async def start(self) -> Cable:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        writer.close()

    def cut(self) -> None:
        self._open = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def mend(self) -> None:
        self._open = True


class Sdk:
    """Makes clients, and what they need."""

    def __init__(self, urls: dict[str, str], secret: str) -> None:
        self.urls = urls
        self._key = jwk.OctKey.import_key(secret.encode())
        self._unique = secrets.token_hex(4)

    def name(self, text: str) -> str:
        """Return a name of a channel that no other run uses."""
        return f"{text}-{self._unique}"

    def token(self, **claims: Any) -> str:
        return jwt.encode({"alg": "HS256"}, claims, self._key)

    def client(self, base: str = "", **options: Any) -> tuple[Client, Recorder]:
        """Return a client that is not connected, and its events."""
        base = base or self.urls["open"]
        log = Recorder()
        handler = recording(ClientEventHandler, log)
        url = f"{base.replace('http', 'ws')}/connection/websocket"
        if options.get("use_protobuf"):
            url += "?cf_protocol=protobuf"
        options = {"max_reconnect_delay": 0.2, "proxy": None, **options}
        return Client(url, handler, **options), log

    async def connected(self, base: str = "", **options: Any) -> tuple[Client, Recorder]:
        client, log = self.client(base, **options)
        await client.connect()
        await log.get("connected")
        return client, log

    async def cable(self) -> Cable:
        return await Cable(urlsplit(self.urls["open"]).port or 0).start()


async def ask_for(what: str) -> None:
    """Have something done to the server."""
    print(what, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def one_breath(sdk: Sdk) -> None:
    channel = sdk.name("breath")
    client, _ = sdk.client()
    one = Subscribed(client, channel)
    await client.connect()
    await one.subscription.subscribe()
    await one.subscription.unsubscribe()
    await client.disconnect()
    other, _ = await sdk.connected()
    two = await Subscribed(other, channel).begin()
    await two.subscription.publish({"n": 1})
    publication = (await two.log.get("publication")).pub
    assert (publication.data, publication.offset) == ({"n": 1}, 1)
    found = await two.subscription.presence()
    assert list(found.clients) == [publication.info.client]


async def history(sdk: Sdk) -> None:
    client, _ = await sdk.connected()
    one = (await Subscribed(client, sdk.name("history")).begin()).subscription
    for number in (1, 2, 3):
        await one.publish(number)
    found = await one.history(limit=-1)
    assert ([each.data for each in found.publications], found.offset) == ([1, 2, 3], 3)
    found = await one.history(limit=2, reverse=True)
    assert [each.data for each in found.publications] == [3, 2]


async def rpc_that_nobody_handles(sdk: Sdk) -> None:
    client, _ = await sdk.connected()
    assert await code_of(client.rpc("nobody", {})) == 108


async def unsubscribe_in_every_order(sdk: Sdk) -> None:
    channel = sdk.name("quick")
    client, _ = await sdk.connected()
    watcher, _ = await sdk.connected()
    one = Subscribed(client, channel)
    for _ in range(10):
        await one.subscription.subscribe()
        await one.subscription.unsubscribe()
    await one.begin()
    found = await watcher.presence_stats(channel)
    assert (found.num_clients, found.num_users) == (1, 1)
    await one.subscription.unsubscribe()
    end = time.monotonic() + 2
    while (await watcher.presence_stats(channel)).num_clients:
        assert time.monotonic() < end


async def connect_and_disconnect_in_a_row(sdk: Sdk) -> None:
    client, log = sdk.client()
    for number in range(10):
        await client.connect()
        await log.get("connected", number)
        await client.disconnect()
    await client.connect()
    await log.get("connected", 10)


async def tokens(sdk: Sdk) -> None:
    client, _ = await sdk.connected(token=sdk.token(iat=int(time.time())), data={})
    names = [sdk.name(f"$token{number}") for number in range(5)]
    subscribed = [
        Subscribed(client, name, token=sdk.token(iat=int(time.time()), channel=name))
        for name in names
    ]
    await asyncio.gather(*(each.begin() for each in subscribed))
    alice, _ = await sdk.connected(token=sdk.token(sub="alice", info={"name": "Alice"}))
    one = await Subscribed(alice, sdk.name("user")).begin()
    [found] = (await one.subscription.presence()).clients.values()
    assert (found.user, found.conn_info) == ("alice", {"name": "Alice"})


async def channels_of_a_token(sdk: Sdk) -> None:
    channel = sdk.name("server-side")
    _, log = await sdk.connected(token=sdk.token(sub="bob", channels=[channel]))
    await log.get("subscribed")
    other, _ = await sdk.connected()
    await other.publish(channel, "hello")
    context = await log.get("publication")
    assert (context.channel, context.pub.data) == (channel, "hello")


async def joins_and_leaves(sdk: Sdk) -> None:
    channel = f"joins:{sdk.name('x')}"
    watcher, _ = await sdk.connected()
    one = await Subscribed(watcher, channel, join_leave=True).begin()
    other, _ = await sdk.connected()
    two = await Subscribed(other, channel).begin()
    await two.subscription.unsubscribe()
    left = await one.log.get("leave")
    assert left.info.client in [context.info.client for context in one.log.of("join")]


async def recovery_after_a_cut(sdk: Sdk) -> None:
    channel, cable = f"recovery:{sdk.name('x')}", await sdk.cable()
    client, log = await sdk.connected(cable.url)
    other, _ = await sdk.connected()
    one = await Subscribed(client, channel).begin()
    await other.publish(channel, 0)
    await until(lambda: one.data == [0], "the first publication")
    cable.cut()
    await log.get("connecting", 1)
    for number in (1, 2, 3):
        await other.publish(channel, number)
    cable.mend()
    context = await one.log.get("subscribed", 1)
    assert (context.was_recovering, context.recovered) == (True, True)
    await other.publish(channel, 4)
    await until(lambda: len(one.data) >= 5, "all publications")
    assert one.data == [0, 1, 2, 3, 4], one.data


async def recovery_after_an_unsubscribe(sdk: Sdk) -> None:
    channel = f"recovery:{sdk.name('x')}"
    client, _ = await sdk.connected()
    other, _ = await sdk.connected()
    one = await Subscribed(client, channel).begin()
    await one.subscription.unsubscribe()
    for number in (1, 2):
        await other.publish(channel, number)
    await one.begin()
    await other.publish(channel, 3)
    await until(lambda: len(one.data) >= 3, "all publications")
    assert one.data == [1, 2, 3], one.data


async def unrecoverable_position(sdk: Sdk) -> None:
    channel, cable = f"smallhistory:{sdk.name('x')}", await sdk.cable()
    client, log = await sdk.connected(cable.url)
    other, _ = await sdk.connected()
    one = await Subscribed(client, channel).begin()
    cable.cut()
    await log.get("connecting", 1)
    for number in (1, 2, 3, 4):
        await other.publish(channel, number)
    cable.mend()
    context = await one.log.get("subscribed", 1)
    assert (context.was_recovering, context.recovered) == (True, False)
    await other.publish(channel, 5)
    await until(lambda: one.data, "the next publication")
    assert one.data == [5], one.data


async def restart_of_the_daemon(sdk: Sdk) -> None:
    memory, kept = f"recovery:{sdk.name('x')}", "kept-python"
    cable = await sdk.cable()
    client, _ = await sdk.connected(cable.url)
    other, _ = await sdk.connected()
    lost, held = await Subscribed(client, memory).begin(), await Subscribed(client, kept).begin()
    await other.publish(memory, 1)
    await other.publish(kept, 1)
    await until(lambda: lost.data == held.data == [1], "the first publications")
    cable.cut()
    await other.publish(kept, 2)
    await other.disconnect()
    await ask_for("restart")
    other, _ = await sdk.connected()
    await other.publish(kept, 3)
    cable.mend()
    one, two = await lost.log.get("subscribed", 1), await held.log.get("subscribed", 1)
    assert (one.was_recovering, one.recovered) == (True, False)
    assert (two.was_recovering, two.recovered) == (True, True)
    await other.publish(kept, 4)
    await until(lambda: len(held.data) >= 4, "all publications")
    assert held.data == [1, 2, 3, 4], held.data


async def hundred_subscriptions(sdk: Sdk) -> None:
    client, _ = await sdk.connected()
    subscribed = [Subscribed(client, sdk.name(f"hundred{number}")) for number in range(100)]
    await asyncio.gather(*(each.begin() for each in subscribed))
    await asyncio.gather(*(each.subscription.publish(1) for each in subscribed))
    await until(lambda: all(each.data == [1] for each in subscribed), "100 publications")


async def a_token_that_expires(sdk: Sdk) -> None:
    asked = []

    async def get_token(*_: Any) -> str:
        asked.append(1)
        return sdk.token(sub="alice", exp=int(time.time()) + 2)

    client, log = await sdk.connected(sdk.urls["strict"], get_token=get_token)
    channel = sdk.name("$expires")

    async def get_channel_token(_: str) -> str:
        asked_for.append(1)
        return sdk.token(sub="alice", channel=channel, exp=int(time.time()) + 2)

    asked_for: list[int] = []
    one = await Subscribed(client, channel, get_token=get_channel_token).begin()
    await until(lambda: len(asked) >= 3 and len(asked_for) >= 3, "new tokens")
    assert len(log.of("connecting")) == 1
    assert not log.of("disconnected")
    assert len(one.log.of("subscribing")) == 1


async def an_expired_token(sdk: Sdk) -> None:
    old = sdk.token(sub="alice", exp=int(time.time()) - 10)

    async def get_token(*_: Any) -> str:
        return sdk.token(sub="alice")

    await sdk.connected(sdk.urls["strict"], token=old, get_token=get_token)
    stuck, log = sdk.client(sdk.urls["strict"], token=old)
    await stuck.connect()
    await log.get("disconnected")


async def unauthorized_in_each_place(sdk: Sdk) -> None:
    strict = sdk.urls["strict"]
    for token, code in (("no.token.here", 3500), (sdk.token(sub="alice") + "x", 3500), ("", 3501)):
        client, log = sdk.client(strict, token=token)
        await client.connect()
        assert (await log.get("disconnected")).code == code
    client, log = await sdk.connected(strict, token=sdk.token(sub="alice"))
    for channel, code in (
        ("users.bob", 103),
        (sdk.name("$secret"), 103),
        (sdk.name("nowhere:x"), 102),
    ):
        one = Subscribed(client, channel)
        await one.subscription.subscribe()
        assert (await one.log.get("unsubscribed")).code == code, channel
    assert await code_of(client.publish("users.bob", 1)) == 103
    assert await code_of(client.presence("users.bob")) == 103
    assert await code_of(client.presence_stats("users.bob")) == 103
    assert await code_of(client.history("users.bob")) == 103
    await Subscribed(client, "users.alice").begin()
    foreign = sdk.name("$foreign")
    other = Subscribed(client, foreign, token=sdk.token(sub="bob", channel=foreign))
    await other.subscription.subscribe()
    assert (await log.get("disconnected")).code == 3500


async def protobuf_is_refused(sdk: Sdk) -> None:
    client, log = sdk.client(use_protobuf=True)
    try:
        await client.connect()
    except CentrifugeError:
        pass
    assert (await log.get("disconnected")).code == 3506


SCENARIOS: dict[str, Callable[[Sdk], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        one_breath,
        history,
        rpc_that_nobody_handles,
        unsubscribe_in_every_order,
        connect_and_disconnect_in_a_row,
        tokens,
        channels_of_a_token,
        joins_and_leaves,
        recovery_after_a_cut,
        recovery_after_an_unsubscribe,
        unrecoverable_position,
        restart_of_the_daemon,
        hundred_subscriptions,
        a_token_that_expires,
        an_expired_token,
        unauthorized_in_each_place,
        protobuf_is_refused,
    )
}


def main() -> None:
    """Run the scenario that the arguments name."""
    _, name, settings = sys.argv[1:]
    given = json.loads(settings)
    asyncio.run(SCENARIOS[name](Sdk(given["urls"], given["secret"])))


if __name__ == "__main__":
    main()
