"""Members who talk in rooms that are spread over hosts, and what they are told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from tools.rooms_journal import Said

#: Messages of one connection that may be without an answer.
UNANSWERED = 8

#: Seconds until a member tries again to connect, and to get into the room.
AGAIN = 0.2


class Told:
    """What all members together were told."""

    def __init__(self) -> None:
        self.asked = 0
        self.outcomes: Counter[str] = Counter()
        self.news: Counter[str] = Counter()
        self.heard = 0
        #: The messages that were answered, each with the life of the room that did.
        self.answered: dict[Said, str] = {}
        self.problems: list[str] = []


class Talker(Protocol):
    """Whose connection it is."""

    user: str

    def gone(self, connection: MemberConnection) -> None:
        """The connection has ended."""

    def lost(self, connection: MemberConnection) -> None:
        """The room is lost."""


class MemberConnection(LineOnlyReceiver):
    """One connection: every request on it has one outcome, every message comes once, in order."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20
    transport: Any

    def __init__(self, told: Told, member: Talker, number: int) -> None:
        self._told = told
        self._member = member
        self.number = number
        self.waiting: dict[int, Callable[[Any], None]] = {}
        self._requests = 0
        self._heard: dict[tuple[str, int], int] = {}
        self.up = False

    def connectionMade(self) -> None:
        self.up = True

    def ask(self, then: Callable[[Any], None], method: str = "do", **params: Any) -> None:
        """Send a request; ``then`` gets the result, an error's text, or None at the end."""
        self._requests += 1
        self._told.asked += 1
        self.waiting[self._requests] = then
        request = {"id": self._requests, "method": method, "params": params}
        self.sendLine(json.dumps(request).encode())  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        message = json.loads(line)
        if message["id"] is None:
            self._notified(message)
            return
        then = self.waiting.pop(message["id"], None)
        if then is None:
            self._told.problems.append(f"{self._member.user}: not asked, or twice: {message}")
            return
        error = message.get("error")
        self._told.outcomes["answered" if error is None else str(error).partition(":")[0]] += 1
        then(message["result"] if error is None else str(error))

    def _notified(self, message: Any) -> None:
        params = message["params"]
        if message["method"] != "said":
            event = params.get("event", message["method"])
            self._told.news[f"{event}: {params.get('data')}"] += 1
            if message["method"] == "room" and event == "lost":
                self._member.lost(self)
            return
        user, connection, number = params
        self._told.heard += 1
        before = self._heard.get((user, connection), 0)
        if number <= before:
            self._told.problems.append(
                f"{self._member.user}/{self.number} heard {number} of {user}/{connection} "
                f"after {before}"
            )
        self._heard[user, connection] = max(number, before)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.up = False
        waiting, self.waiting = self.waiting, {}
        self._told.outcomes["the connection ended"] += len(waiting)
        for then in waiting.values():
            then(None)
        self._member.gone(self)


class Member:
    """A user who talks in a room, at one host or another; ``ports`` returns the hosts' ports.

    A member who changes rooms is another user there: who was in the room before may be there
    still, in the eyes of a host that has not heard of it.
    """

    def __init__(
        self,
        reactor: Any,
        ports: Callable[[], list[int]],
        told: Told,
        *,
        name: str,
        rooms: list[str],
        random: Random,
    ) -> None:
        self._reactor = reactor
        self._ports = ports
        self._told = told
        self._name = name
        self._rooms = rooms
        self._random = random
        self._connections = self._users = self._number = 0
        self._connection: MemberConnection | None = None
        self._timer: IDelayedCall | None = None
        self._inside = self._leaving = False
        self.user = self._room = ""
        self._become_another()

    def _become_another(self) -> None:
        self._users += 1
        self.user = f"{self._name}.{self._users}"
        self._room = self._random.choice(self._rooms)

    # -- connections

    def connect(self) -> None:
        """Connect to any host, and come in."""
        self._connections += 1
        self._inside = False
        member = MemberConnection(self._told, self, self._connections)
        port = self._random.choice(self._ports())
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", port, timeout=5)
        self._connection = member
        factory = Factory.forProtocol(lambda: member)
        factory.noisy = False
        endpoint.connect(factory).addCallbacks(
            lambda _: self._come_in(member), lambda _: self._later(self._connect_again, member)
        )

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        self._reactor.callLater(AGAIN, call, *arguments)

    def _connect_again(self, connection: MemberConnection) -> None:
        if connection is self._connection and not self._leaving:
            self.connect()

    def gone(self, connection: MemberConnection) -> None:
        """A connection has ended."""
        if not self._leaving:
            self._later(self._connect_again, connection)

    def change_hosts(self) -> None:
        """Go on over another connection, to any host, and end this one, before or after."""
        before = self._connection
        if before is None or not before.up or self._leaving:
            return
        if self._random.random() < 0.5:
            self.connect()
            self._later(before.transport.loseConnection)
        else:
            before.transport.loseConnection()  # which connects anew

    # -- the room

    def _come_in(self, connection: MemberConnection) -> None:
        if connection is not self._connection or not connection.up or self._leaving:
            return

        def told(result: Any) -> None:
            if isinstance(result, list):
                self._inside = connection is self._connection
            elif result is not None:
                self._later(self._come_in, connection)

        connection.ask(told, room=self._room, user=self.user)

    def lost(self, connection: MemberConnection) -> None:
        """The room is gone: come into the one of the same name."""
        if connection is self._connection:
            self._inside = False
            self._come_in(connection)

    def say(self) -> None:
        """Say something, unless too much is without an answer."""
        connection = self._connection
        if connection is None or not self._inside or len(connection.waiting) >= UNANSWERED:
            return
        self._number += 1
        said: Said = (self.user, connection.number, self._number)

        def told(result: Any) -> None:
            if isinstance(result, list):
                self._told.answered[said] = result[0]
            elif result == "forbidden" and self._inside:
                self.lost(connection)  # the news of it may be on its way

        # Some messages let their sender in where that is needed, and some do not.
        also = {"room": self._room, "user": self.user} if self._random.random() < 0.3 else {}
        connection.ask(told, say=said, **also)

    def change_rooms(self) -> None:
        """Leave, and come into another room."""
        connection = self._connection
        if connection is None or not self._inside or self._leaving:
            return
        self._inside = False

        def left(result: Any) -> None:
            self._become_another()
            if result is not None and not isinstance(result, list):
                connection.transport.loseConnection()  # in no known state: begin anew
            else:
                self._come_in(connection)

        connection.ask(left, leave=True)

    # -- the end

    def leave(self) -> None:
        """Say nothing more, and leave the room."""
        self._leaving = True
        connection = self._connection
        if connection is not None and connection.up and self._inside:
            connection.ask(lambda result: None, leave=True)

    @property
    def unanswered(self) -> int:
        """How many requests have no outcome on a connection that stands."""
        return len(self._connection.waiting) if self._connection is not None else 0

    def close(self) -> None:
        """End the connection."""
        self._leaving = True
        if self._connection is not None and self._connection.up:
            self._connection.transport.abortConnection()


__all__ = ["Member", "MemberConnection", "Told"]
