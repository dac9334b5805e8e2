"""How a client of one's own works: its limits, how long it waits, and what it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random as _random
from typing import Any

from kupool.net.manager import ConnectionManager
from kupool.net.transport.protocols import FACTORIES, CodecFactory
from kupool.wire.codecs import CODECS, Codec

#: Seconds that a server can tell its clients to wait at most.
LONGEST_WAIT = 3600.0


@dataclass(frozen=True)
class ClientSettings:
    """Times are in seconds, sizes in bytes.

    ``attempts`` is how many fail before ``connect`` gives up; with 0 it never does. After
    that the client comes back for ever, with a wait chosen at random below a limit that
    doubles from ``backoff_first`` to ``backoff_most``, and begins anew after a connection
    that stood for as long; what the server asks for comes on top. A request is answered within
    ``timeout``, and at most ``most_pending`` wait for that; nothing is sent while more
    than ``most_outbound`` bytes wait for a server that does not read. ``keepalive`` is the time
    between two signs of life, 0 for none; a server from which nothing came for
    ``silence`` is left, 0 for never.
    """

    attempts: int = 1
    backoff_first: float = 0.5
    backoff_most: float = 30.0
    timeout: float = 10.0
    most_pending: int = 1000
    most_outbound: int = 1_048_576
    keepalive: float = 55.0
    silence: float = 0.0
    max_frame: int = 65536
    close_timeout: float = 5.0


class Backoff:
    """How long to wait before the next attempt: longer each time, and never as others do."""

    def __init__(self, settings: ClientSettings, random: Callable[[], float] = _random) -> None:
        self._settings = settings
        self._random = random
        self._steps = 0
        self._least = 0.0

    def failed(self) -> None:
        """Note that an attempt failed."""
        self._steps += 1

    def wanted(self, seconds: float | None) -> None:
        """Note how long the server wants to be left alone, if it said so."""
        self._least = min(max(seconds or 0.0, 0.0), LONGEST_WAIT)

    def after(self, stood: float) -> float:
        """Return the seconds to wait after a connection that stood for some."""
        if stood >= self._settings.backoff_most:
            self._steps = 0
        seconds = self.next()
        # A server that accepts and closes at once is to be asked less and less, too.
        self._steps += 1
        return seconds

    def next(self) -> float:
        """Return the seconds to wait now."""
        settings = self._settings
        steps = settings.backoff_first * 2.0 ** min(self._steps, 32)
        least, self._least = self._least, 0.0
        return least + self._random() * min(settings.backoff_most, steps)


def client_factory(manager: ConnectionManager, codec: str | Codec) -> Any:
    """Return what builds the protocols of a codec; raises :class:`ValueError` for none."""
    if not isinstance(codec, str):
        return CodecFactory(manager, codec)
    if codec in FACTORIES:
        return FACTORIES[codec](manager)
    if codec in CODECS:
        return CodecFactory(manager, CODECS[codec](0))
    raise ValueError(f"{codec!r} is no codec; there are {', '.join(CODECS)}")


__all__ = ["LONGEST_WAIT", "Backoff", "ClientSettings", "client_factory"]
