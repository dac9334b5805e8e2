"""What the clients of the Centrifuge protocol work on, and their limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kupool.live.centrifuge.tokens import ChannelClaims, ConnectionClaims
from kupool.live.interfaces import LivePeer
from kupool.live.service import LiveService
from kupool.net.refusals import Refusals


@dataclass(frozen=True)
class CentrifugeSettings:
    """How clients are served; times are in seconds.

    The server sends a ping every ``ping`` seconds and waits ``pong_wait`` for its answer; 0 turns
    pings off. A client has ``connect_wait`` for its first command. ``expiry_grace`` is how long a
    connection or a subscription outlives its token, so that a new one may come. After ``lifetime``
    a client has to connect again; 0 is never. At most ``pending`` commands of a client wait for
    their turn, and ``calls`` RPCs are under way.

    With ``anonymous`` a connection needs no token. With ``insecure`` nothing needs one, but for
    channels that begin with ``$``, and everything is permitted.
    """

    ping: float = 25.0
    pong_wait: float = 8.0
    connect_wait: float = 10.0
    expiry_grace: float = 25.0
    pending: int = 1024
    calls: int = 64
    anonymous: bool = True
    insecure: bool = False
    version: str = ""
    lifetime: float = 0.0


class TokenChecker(Protocol):
    """Checks tokens, as :class:`~kupool.live.centrifuge.tokens.CentrifugeTokens` does."""

    def connection(self, token: str) -> ConnectionClaims:
        """Return what a connection token says."""

    def channel(self, token: str, channel: str, user: str) -> ChannelClaims:
        """Return what a channel token says, if it is for a channel and a user."""


class CentrifugePeer(LivePeer, Protocol):
    """The transport of a client."""

    def send(self, payload: bytes) -> None:
        """Send a message, which is never dropped."""


class CallerDetails(Protocol):
    """Who calls a method by RPC."""

    client_id: str
    user: str
    role: str


#: Calls a method with JSON data; fires with the JSON of the result, or None if there is no such
#: method. Fails with :class:`RpcFailed` for an error of the method.
CallMethod = Callable[[CallerDetails, str, bytes], Deferred[bytes | None]]


class RpcFailed(Exception):
    """A method that was called by RPC answered an error; ``code`` is 400 or above."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class CentrifugeWorld:
    """What all clients share.

    ``wall`` returns seconds since the epoch. ``new_id`` returns an id that nobody can guess.
    ``tokens`` is None if no secret is set: then no token is valid. ``role_of`` returns the role of
    a user whom a token names. ``refusals`` counts and logs what is refused.
    """

    live: LiveService
    clock: IReactorTime
    wall: Callable[[], float]
    random: Random
    new_id: Callable[[], str]
    call: CallMethod
    tokens: TokenChecker | None
    role_of: Callable[[str], str]
    refusals: Refusals
    settings: CentrifugeSettings


__all__ = [
    "CallMethod",
    "CallerDetails",
    "CentrifugePeer",
    "CentrifugeSettings",
    "CentrifugeWorld",
    "RpcFailed",
    "TokenChecker",
]
