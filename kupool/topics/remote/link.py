"""A connection to a server of topics: requests that wait for it, and one for each other node.

A request waits for a connection until its time is over. If the connection ends before the answer, a
request that may be sent again is; any other fails with :class:`AnswerLost`.

A server may answer that another one is responsible for a group. Then :class:`TopicNodes` connects
to that one for the requests of the group, until it is gone or says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import random as _random
from typing import Any

import msgspec
from twisted.internet.defer import TimeoutError as NotInTime
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.errors import (
    BAD_PARAMS,
    FORBIDDEN,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    UNKNOWN_METHOD,
    RequestError,
)
from kupool.net.dialling.client import Client, ClientSettings
from kupool.net.dialling.failures import (
    ClientClosed,
    ClientFailure,
    ConnectionEnded,
    NotWanted,
    RequestTimeout,
    Unreachable,
    UnreadableAnswer,
)
from kupool.net.endpoint_strings import parse_endpoint_string
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.timing.doubling import Doubling
from kupool.topics.remote.failures import (
    AnswerLost,
    BadAnswer,
    ClientRefused,
    LedElsewhere,
    NotSent,
    TopicsClosed,
    refusal,
)
from kupool.topics.remote.operations import REMOTE_OPERATIONS
from kupool.wire.messages import AuthorizeParams

#: Seconds before another look at a connection that is closing.
_CLOSING = 0.05

#: Seconds between keepalives, without anything from the server, and for the end of a connection.
_KEEPALIVE, _SILENCE, _CLOSE_TIMEOUT = 20.0, 45.0, 5.0

#: The times that a request of a group is sent to another node.
_MOST_HOPS = 3

#: Seconds before a request is sent again that came too soon after others.
_PACE = Doubling(0.05, 1.0)

#: Bytes of a request around its params.
_AROUND = 100

#: Refusals of ``authorize`` after which there is no other attempt.
_FOR_GOOD = frozenset(e.code for e in (UNAUTHORIZED, FORBIDDEN, BAD_PARAMS, UNKNOWN_METHOD))


@dataclass(frozen=True)
class RemoteSettings:
    """How a client of topics talks to a server; times are in seconds, sizes in bytes.

    ``timeout`` limits a request, with the wait for a connection and the times that it is sent
    again. At most ``most_pending`` requests wait for their answers. The first of the fetches that
    are under way asks for ``fetch_bytes`` at most, the second one for half of that, and so on.
    ``max_request`` is the largest message that the server takes (its setting ``max_frame``),
    ``max_answer`` the largest that this client does. After ``metadata_age`` the partitions of a
    topic are asked for again. Beside its own connection a client has one to each of ``most_nodes``
    other nodes, if groups are led there.
    """

    timeout: float = 10.0
    connect_timeout: float = 10.0
    backoff_first: float = 0.1
    backoff_most: float = 15.0
    most_pending: int = 1000
    most_outbound: int = 4 * 1024 * 1024
    max_request: int = 64 * 1024
    max_answer: int = 32 * 1024 * 1024
    fetch_bytes: int = 8 * 1024 * 1024
    metadata_age: float = 60.0
    most_nodes: int = 8
    codec: str = "frame"


@dataclass(frozen=True)
class Login:
    """The user of a client, as for the pool; without a ``username`` it does not authorize."""

    username: str = ""
    password: str | None = None


#: A client endpoint string, such as ``tcp:localhost:8000``, or an endpoint.
ServerAddress = str | IStreamClientEndpoint


class TopicLink:
    """One connection to one of some servers; it reconnects without end unless it is refused.

    One that is used ``once`` gives up after a failed attempt, or when the connection is lost.
    ``clock`` is a reactor.
    """

    def __init__(
        self,
        clock: Any,
        addresses: Sequence[ServerAddress],
        login: Login,
        settings: RemoteSettings,
        *,
        random: Callable[[], float] = _random,
        once: bool = False,
    ) -> None:
        self._clock = clock
        self._once = once
        self._login = login
        self._settings = settings
        self._client = Client(
            clock,
            addresses,
            settings=_client_settings(settings, attempts=1 if once else 0),
            codec=settings.codec,
            random=random,
            on_connected=self._authorize,
            on_disconnected=self._lost,
        )
        self._why = "it was not tried yet"
        self._ended = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client.connection is not None

    @property
    def server(self) -> str:
        """The address that is being tried, or that the connection is with."""
        return self._client.server

    @property
    def pending(self) -> int:
        """The number of requests without an answer."""
        return self._client.pending

    async def connect(self) -> None:
        """Connect, also after a refusal; the attempts go on if it fails.

        Raises :class:`NotSent` if there is no connection in time, and :class:`ClientRefused`.
        """
        self._client.refusal = None
        await self._connected(self._clock.seconds() + self._settings.timeout)

    async def close(self) -> None:
        """Close the connection; requests that wait fail."""
        await self._client.close()

    async def ask(self, method: str, params: Any, timeout: float, *, again: bool) -> Any:
        """Send a request; returns its result. ``again``: send it again if its answer was lost.

        Raises :class:`NotSent`, :class:`AnswerLost`, :class:`BadAnswer`, :class:`ClientRefused`,
        and what :func:`refusal` makes of an error of the server.
        """
        encoded = msgspec.Raw(msgspec.json.encode(params))
        size, most = len(encoded) + _AROUND, self._settings.max_request
        if size > most:
            raise NotSent(f"a request of {size} bytes is too large: the server takes {most}")
        end = self._clock.seconds() + timeout
        lost, pause = "", 0.0
        while True:
            try:
                return await self._attempt(method, encoded, end)
            except RequestError as error:
                pause = _PACE.after(pause)
                if error.error != TOO_MANY_REQUESTS or self._clock.seconds() + pause >= end:
                    raise refusal(error.error, method, params) from None
                await deferLater(self._clock, pause)  # it was not done: the session is too fast
            except ConnectionEnded as error:
                lost = f"{method}: {error}"
                if not again:
                    raise AnswerLost(lost) from None
            except NotSent as error:
                raise (AnswerLost(f"{lost}; then: {error}") if lost else error) from None

    async def _attempt(self, method: str, params: msgspec.Raw, end: float) -> Any:
        await self._connected(end)
        left = max(0.0, end - self._clock.seconds())
        form = REMOTE_OPERATIONS[method].result
        try:
            return await self._client.request(method, params, left, form=form)
        except UnreadableAnswer as error:
            raise BadAnswer(f"{method}: {error}") from None
        except ConnectionEnded:
            raise
        except RequestTimeout as error:
            raise AnswerLost(f"{method}: {error}") from None
        except ClientFailure as error:  # there is no room
            raise NotSent(f"{method}: {error}") from None

    async def _connected(self, end: float) -> None:
        """Wait until a request can be sent, at the latest until ``end``."""
        client = self._client
        while True:
            if client.refusal is not None:
                raise ClientRefused(str(client.refusal))
            left = end - self._clock.seconds()
            if left <= 0 or self._ended:
                raise NotSent(f"no connection to {self.server} in time: {self._why}")
            try:
                connection = await client.connect().addTimeout(left, self._clock)
            except NotInTime:
                continue
            except NotWanted as error:
                raise ClientRefused(str(error)) from None
            except ClientClosed:
                raise TopicsClosed from None
            except Unreachable as error:
                raise NotSent(str(error)) from None
            if connection.state is OPEN:
                return
            await deferLater(self._clock, min(_CLOSING, left))  # it is about to be lost

    async def _authorize(self, connection: Connection) -> None:
        if not self._login.username:
            return
        params = AuthorizeParams(self._login.username, self._login.password)
        try:
            await self._client.request("authorize", params, self._settings.connect_timeout)
        except RequestError as error:
            if error.error.code in _FOR_GOOD:
                raise NotWanted(self.server, error.error.text, error.error.code) from None
            raise ConnectionEnded(f"authorize: {error}") from None  # it passes
        except RequestTimeout as error:
            raise ConnectionEnded(f"authorize: {error}") from None

    def _lost(self, why: str) -> None:
        self._why = why
        self._ended = self._once


class TopicNodes:
    """The connections of a client: its own, and those to nodes that lead groups."""

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        addresses: Sequence[ServerAddress],
        login: Login,
        settings: RemoteSettings,
        *,
        random: Callable[[], float] = _random,
    ) -> None:
        self.main = TopicLink(clock, addresses, login, settings, random=random)
        self._clock = clock
        self._first = addresses[0]
        self._login = login
        self._settings = settings
        self._random = random
        #: The connections to other nodes by address, and the address of the leader of each group.
        self._nodes: dict[str, TopicLink] = {}
        self._leaders: dict[str, str] = {}

    @property
    def connections(self) -> int:
        """The number of connections that there are now."""
        return self.main.connected + sum(link.connected for link in self._nodes.values())

    async def ask(
        self,
        method: str,
        params: Any,
        timeout: float | None = None,
        *,
        group: str = "",
        again: bool | None = None,
    ) -> Any:
        """Send a request, to the leader of the ``group`` if there is one; see
        :meth:`TopicLink.ask`.

        By default its time and whether it is sent again are those of the settings and of the table.
        """
        seconds = self._settings.timeout if timeout is None else timeout
        safe = REMOTE_OPERATIONS[method].again if again is None else again
        end = self._clock.seconds() + seconds
        for _ in range(_MOST_HOPS):
            address = self._leaders.get(group, "")
            link = self._nodes.get(address, self.main)
            left = end - self._clock.seconds()
            try:
                # The node may be gone for good: then its answer is sought over the own connection.
                return await link.ask(method, params, left, again=safe and link is self.main)
            except LedElsewhere as error:
                await self._lead(group, error)
            except (AnswerLost, NotSent) as error:
                if link is self.main:
                    raise
                await self._forget(address)
                if isinstance(error, AnswerLost) and not safe:
                    raise
        raise NotSent(f"{method}: no server says that it leads group {group}")

    async def _lead(self, group: str, moved: LedElsewhere) -> None:
        """Send the requests of a group to another node from now on."""
        address = self._address(moved)
        if address == self.main.server:
            self._leaders.pop(group, None)
        else:
            self._connect_to(address)
            self._leaders[group] = address
        self._log.info("Group {group} is led by {address}", group=group, address=address)
        await self._tidy()

    def _connect_to(self, address: str) -> None:
        if address in self._nodes:
            return
        if len(self._nodes) >= self._settings.most_nodes:
            raise NotSent(f"there are {len(self._nodes)} connections to other nodes already")
        self._nodes[address] = TopicLink(
            self._clock,
            [address],
            self._login,
            self._settings,
            random=self._random,
            once=True,
        )

    def _address(self, moved: LedElsewhere) -> str:
        """Return the endpoint string of a node: that of the first server, with another host."""
        if not isinstance(self._first, str):
            raise moved
        kind, _, named = parse_endpoint_string(self._first)
        host = moved.host.strip("[]").replace(":", "\\:")
        more = [f"{k}={v}" for k, v in named.items() if k not in ("host", "port")]
        return ":".join([kind, host, str(moved.port), *(each.replace(":", "\\:") for each in more)])

    async def forget_group(self, group: str) -> None:
        """Close the connection to the leader of a group, if no other group needs it."""
        self._leaders.pop(group, None)
        await self._tidy()

    async def _forget(self, address: str) -> None:
        self._leaders = {group: at for group, at in self._leaders.items() if at != address}
        await self._tidy()

    async def _tidy(self) -> None:
        """Close the connections to nodes that lead no group any more."""
        used = set(self._leaders.values())
        unused = [address for address in self._nodes if address not in used]
        for link in [self._nodes.pop(address) for address in unused]:
            await link.close()

    async def close(self) -> None:
        """Close all connections."""
        self._leaders.clear()
        await self._tidy()
        await self.main.close()


def _client_settings(settings: RemoteSettings, *, attempts: int) -> ClientSettings:
    return ClientSettings(
        attempts=attempts,
        backoff_first=settings.backoff_first,
        backoff_most=settings.backoff_most,
        connect_timeout=settings.connect_timeout,
        timeout=settings.timeout,
        most_pending=settings.most_pending,
        most_outbound=settings.most_outbound,
        keepalive=_KEEPALIVE,
        silence=_SILENCE,
        max_frame=settings.max_answer,
        close_timeout=_CLOSE_TIMEOUT,
    )


__all__ = ["Login", "RemoteSettings", "ServerAddress", "TopicLink", "TopicNodes"]
