"""A server that sends its first visitor some bytes, whatever it asks, and hangs up."""

from __future__ import annotations

import socket
import threading

from tests.servers.sockets import PATIENCE


class Answering:
    """Listens on a free port; use it as a context manager."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._answer, daemon=True)

    @property
    def url(self) -> str:
        """The URL of it as an HTTP server."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE)
        self._server.close()

    def _answer(self) -> None:
        visitor, _ = self._server.accept()
        with visitor:
            visitor.recv(65536)
            visitor.sendall(self._data)
