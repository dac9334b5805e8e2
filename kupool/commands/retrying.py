"""Asks the API again after a failure that passes: a daemon that restarts, or has too much to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar

from twisted.internet.task import deferLater

from kupool.commands.api import ApiAway, ApiRefused
from kupool.commands.console import complain
from kupool.net.dialling.backoff import Backoff

T = TypeVar("T")

#: Seconds of the waits between attempts, which grow from the first to the second.
FIRST_WAIT = 0.5
LONGEST_WAIT = 10.0


class Retrying:
    """Repeats requests, each for ``patience`` seconds; says so once, on standard error."""

    def __init__(self, reactor: Any, *, patience: float = inf) -> None:
        self._reactor = reactor
        self._patience = patience
        self._told = False

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what ``ask`` returns; raises its last error."""
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT, steady=LONGEST_WAIT)
        until = self._reactor.seconds() + self._patience
        while True:
            try:
                found = await ask()
            except (ApiAway, ApiRefused) as error:
                if not _passes(error) or self._reactor.seconds() >= until:
                    raise
                if not self._told:
                    self._told = True
                    complain(f"{error}; trying again")
            else:
                if self._told:
                    self._told = False
                    complain("the daemon answers again")
                return found
            wait = backoff.after(None)
            await deferLater(self._reactor, wait or 0.0)


def _passes(error: ApiAway | ApiRefused) -> bool:
    return isinstance(error, ApiAway) or error.later


__all__ = ["Retrying"]
