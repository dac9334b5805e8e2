"""Clients of the Centrifuge protocol on connections in memory."""

from __future__ import annotations

import json
from itertools import count
from random import Random
from typing import Any

from joserfc import jwk, jwt
from twisted.internet.defer import Deferred, succeed

from kupool.live.centrifuge.client import CentrifugeClient, ClientIdentity
from kupool.live.centrifuge.codes import Disconnect
from kupool.live.centrifuge.encoding import CentrifugeEncoding
from kupool.live.centrifuge.tokens import CentrifugeTokens
from kupool.live.centrifuge.world import CentrifugeSettings, CentrifugeWorld
from kupool.net.refusals import Refusals
from kupool.wire.framing import LINE
from tests.fakes.live import LiveWorld

SECRET = "a secret of more than thirty-two characters"


class FakeCentrifugeClient:
    """A client, and what was sent to it."""

    def __init__(self, server: CentrifugeServer, identity: ClientIdentity) -> None:
        self.connection, self.transport = server.live.bench.connect(LINE)
        self.closed: list[Disconnect] = []
        self.client = CentrifugeClient(
            server.world, self.connection, server.encoding, self.closed.append, identity=identity
        )
        self._live = server.live
        self._ids = count(1)

    def send(self, **command: Any) -> int:
        """Send a command; returns its id."""
        number = next(self._ids)
        self.raw(json.dumps({**command, "id": number}))
        return number

    def raw(self, frame: str) -> None:
        """Send a frame."""
        self.client.receive(frame.encode())
        self._live.turns()

    def taken(self) -> list[Any]:
        """Return what arrived since the last call."""
        self._live.turns()
        return [json.loads(line) for line in self.transport.taken().splitlines()]

    def ask(self, **command: Any) -> Any:
        """Send a command; returns its reply, which is the only message that came."""
        number = self.send(**command)
        [reply] = self.taken()
        assert reply.pop("id") == number
        return reply

    def connect(self, **request: Any) -> Any:
        """Connect; returns the reply."""
        return self.ask(connect=request)

    def stall(self) -> None:
        """Read nothing more."""
        self.transport.full = True
        self.connection.pauseProducing()

    def read(self) -> None:
        """Read everything."""
        self.transport.drain()

    def cut(self) -> None:
        """Lose the connection."""
        self.client.lost()


class CentrifugeServer:
    """A live service with clients of the protocol; ``called`` has the calls by RPC."""

    def __init__(self, live: LiveWorld, **settings: Any) -> None:
        self.live = live
        self.encoding = CentrifugeEncoding()
        self.called: list[tuple[str, str, bytes]] = []
        #: The results of calls by their method; others are unknown.
        self.results: dict[str, Deferred[bytes | None]] = {}
        ids = count(1)
        self.world = CentrifugeWorld(
            live=live.service,
            clock=live.clock,
            wall=self.wall,
            random=Random(1),
            new_id=lambda: f"client{next(ids)}",
            call=self._call,
            tokens=CentrifugeTokens(SECRET, self.wall),
            role_of=lambda user: "worker" if user else "anonymous",
            refusals=Refusals(live.clock),
            settings=CentrifugeSettings(**settings),
        )

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return self.live.wall + self.live.clock.seconds()

    def _call(self, caller: Any, method: str, data: bytes) -> Deferred[bytes | None]:
        self.called.append((caller.user, method, data))
        return self.results.get(method) or succeed(None)

    def open(self, identity: ClientIdentity = ClientIdentity()) -> FakeCentrifugeClient:  # noqa: B008
        """Let a client open a connection."""
        return FakeCentrifugeClient(self, identity)

    def client(self, **request: Any) -> FakeCentrifugeClient:
        """Let a client connect."""
        client = self.open()
        reply = client.connect(**request)
        assert "connect" in reply, reply
        return client

    def token(self, **claims: Any) -> str:
        """Return a token with claims; ``seconds`` is how long it is valid."""
        if "seconds" in claims:
            claims["exp"] = self.wall() + claims.pop("seconds")
        key = jwk.OctKey.import_key(SECRET.encode())
        return jwt.encode({"alg": "HS256"}, claims, key)


__all__ = ["SECRET", "CentrifugeServer", "FakeCentrifugeClient"]
