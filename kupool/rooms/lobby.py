"""The lobby: all rooms of a process, and the way from a connection into one."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.callbacks import awaited, called, deferred_of
from kupool.errors import FORBIDDEN, RequestError
from kupool.rooms.entrance import introduce
from kupool.rooms.events import Incoming
from kupool.rooms.interfaces import IRoomHooks
from kupool.rooms.peers import Peer
from kupool.rooms.registry import Registry
from kupool.rooms.room import Room
from kupool.rooms.running import refusal
from kupool.rooms.seeking import Seeking
from kupool.rooms.settings import RoomSettings
from kupool.session.connection import Connection
from kupool.timing.chunks import in_chunks


class Lobby(Registry):
    """Takes messages to the rooms, and keeps who waits for a match.

    ``members`` looks up users and connections, ``wheel`` has every timer, ``tasks`` counts
    their runs, ``matchmaker.statistics()`` the matches. Starts nothing by itself: without
    rooms there is no timer. ``tick`` is the wheel's, in seconds.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        hooks: IRoomHooks,
        settings: RoomSettings | None = None,
        *,
        wall: Callable[[], float] = time.time,
        tick: float = 0.05,
    ) -> None:
        super().__init__(clock, hooks, settings, wall, tick=tick)
        self._seeking = Seeking(
            self._house, lambda failure, outcome: self.refuse(None, failure, outcome, None)
        )
        self.matchmaker = self._seeking.matchmaker
        hooks.on_init(self)

    # -- messages

    def request(self, connection: Connection, body: object) -> Deferred[object]:
        """Take a message to its room; a handler for :class:`kupool.net.routing.router.Router`.

        Fires with what ``on_dispatch_message`` returned, or fails, with
        :class:`RequestError` where the message is refused.
        """
        answer: Deferred[object] = Deferred()
        self.receive(connection, body, answer)
        return answer

    def deliver(self, connection: Connection, body: object) -> None:
        """Take a message to its room without an answer; ``on_error`` hears of a refusal."""
        self.receive(connection, body, None)

    def receive(
        self, connection: Connection, body: object, answer: Deferred[object] | None
    ) -> None:
        """Take a message to its room, or first ask whose it is."""
        member = self.members.of(connection)
        if member is not None:
            self._post(Incoming(member, connection, body, answer))
            return

        def parsed(result: object) -> None:
            try:
                if isinstance(result, Failure):
                    result.raiseException()
                if result is None:
                    raise RequestError(FORBIDDEN)
                code, user = code_and_user(result)
            except BaseException:
                self.refuse(None, Failure(), body, answer)
            else:
                self.place(connection, code, user, body, answer=answer)

        introduce(self._house, connection, lambda: self.parse(connection, body), parsed)

    async def parse(self, connection: Connection, body: object) -> object:
        """Return what ``on_parse_user`` does, when that room can be entered."""
        result = self._hooks.on_parse_user(connection, body)
        if awaited(result):
            result = await deferred_of(result)
        if result is not None:
            code, _ = code_and_user(result)
            await self.ready(code)
        return result

    def place(
        self,
        connection: Peer,
        code: str,
        user: str,
        body: object,
        *,
        answer: Deferred[object] | None,
    ) -> None:
        """Let a user in, and take their first message to the room."""
        try:
            member = self.members.of(connection) or self.enter(code, user, connection)
        except RequestError:
            self.refuse(None, Failure(), body, answer)
        else:
            self._post(Incoming(member, connection, body, answer))

    def _post(self, incoming: Incoming) -> None:
        room = incoming.member.room
        try:
            room.post(incoming)
        except RequestError:
            self.refuse(room, Failure(), incoming.body, incoming.answer)

    def refuse(
        self,
        room: Room | None,
        failure: Failure,
        subject: object,
        answer: Deferred[object] | None,
    ) -> None:
        """Tell the sender why a message is not handled, or else the application."""
        if answer is None or not refusal(failure):
            called(self._hooks.on_error, room, failure, subject).addErrback(
                lambda failed: self._log.failure("on_error failed", failed)
            )
        if answer is not None:
            answer.errback(failure)

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection that has ended; call it from the observer's ``closed``."""
        self.members.disconnected(connection)
        self._seeking.disconnected(connection)

    # -- matches

    def match(self, connection: Connection, body: object) -> object:
        """Let a player wait for a match; a handler for a router.

        Returns True, or a Deferred of it where ``on_parse_match`` takes time. The player
        waits no longer when the connection ends. Raises :class:`RequestError`, or the
        Deferred fails with it, where ``on_parse_match`` or the matchmaker refuses.
        """
        if self._closing:
            raise RequestError(FORBIDDEN)
        request = self._hooks.on_parse_match(connection, body)
        if awaited(request):
            return deferred_of(request).addCallback(lambda parsed: self._seek(connection, parsed))
        return self._seek(connection, request)

    def _seek(self, connection: Connection, request: object) -> bool:
        if self._closing or not connection.sends:
            raise RequestError(FORBIDDEN)
        self._seeking.start(connection, request)
        return True

    def cancel_match(self, player: str) -> bool:
        """Let a player wait no longer; returns whether they did."""
        return self._seeking.cancel(player)

    # -- the end

    async def close(self, reason: str = "closed", *, handle_pending: bool = True) -> list[Incoming]:
        """Close every room; returns the messages that were not handled."""
        self._closing = True
        self._seeking.stop()
        closing: list[Deferred[list[Incoming]]] = []
        await in_chunks(
            self.clock,
            self._rooms.values(),
            lambda room: closing.append(room.close(reason, handle_pending=handle_pending)),
        )
        unhandled: list[Incoming] = []
        for closed in closing:
            unhandled += await closed
        self.wheel.stop()
        return unhandled


def code_and_user(result: object) -> tuple[str, str]:
    """Return what ``on_parse_user`` did; raises :class:`TypeError` for anything else."""
    match result:
        case (str(code), str(user)):
            return code, user
    raise TypeError(f"on_parse_user returned {result!r}")


__all__ = ["Lobby", "code_and_user"]
