"""An observer that reports ended connections to a lobby."""

from __future__ import annotations

from twisted.python.failure import Failure

from kupool.net.observer import Observer
from kupool.net.routing.interfaces import IRouter
from kupool.rooms.lobby import Lobby
from kupool.session.connection import Connection


class LobbyObserver(Observer):
    """The observer of a server whose connections enter rooms."""

    def __init__(self, router: IRouter, lobby: Lobby) -> None:
        super().__init__(router)
        self.lobby = lobby

    def closed(self, connection: Connection, reason: Failure) -> None:
        """Report an ended connection to the lobby."""
        self.lobby.disconnected(connection)


__all__ = ["LobbyObserver"]
