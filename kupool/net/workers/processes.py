"""Processes for functions that compute, and can be killed when they do not end."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from kupool.net.workers.crew import Call, Crew, Hand
from kupool.wire.framing import Int32Splitter, encode_int32

#: The largest arguments, or result, of one call, in bytes once pickled.
MAX_PICKLE = 64 * 1024 * 1024

#: The descriptor on which a child answers: its standard output is free for printing.
ANSWERS = 3


class ProcessEnded(Exception):
    """A process ended with a call in its hands."""


class CallFailed(Exception):
    """What a function raised in a process; the text is that of its traceback."""


def _pickled(call: Call) -> bytes:
    """Return a call as bytes; raises :class:`ValueError` where it cannot be sent."""
    try:
        order = pickle.dumps((call.function, call.arguments))
    except Exception as error:  # pickle raises whatever an object's own methods do
        raise ValueError(f"the call cannot be pickled: {error}") from error
    if len(order) > MAX_PICKLE:
        raise ValueError(f"the arguments are over {MAX_PICKLE} bytes")
    return order


class Processes(Crew):
    """Calls functions in processes of its own, as :class:`~kupool.net.workers.crew.Crew` says.

    The function is one of a module that the child can import, and it, its arguments and
    its result can be pickled; a call fails otherwise. What it raises comes as
    :class:`CallFailed`. An abandoned call, and so one that takes too long behind a worker
    pool's timeout, is killed. The reactor provides ``IReactorProcess``.
    """

    def _hire(self) -> Hand:
        return _ProcessHand(self)


class _ProcessHand(ProcessProtocol, Hand):
    prompt = True

    def __init__(self, crew: Processes) -> None:
        self._crew = crew
        self._splitter = Int32Splitter(MAX_PICKLE)
        self._over = False
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        crew.reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-m", "kupool.net.workers.child"],
            env=environment,
            childFDs={0: "w", 1: 1, 2: 2, ANSWERS: "r"},
        )

    def take(self, call: Call) -> None:
        try:
            order = _pickled(call)
        except Exception:
            # Not now: whoever called has not got the Deferred yet.
            self._crew.reactor.callLater(0, self._crew.ended, self, Failure())
            return
        self._transport().write(encode_int32(order))

    def dismiss(self) -> None:
        self._over = True
        self._transport().closeStdin()

    def abandon(self) -> None:
        self._over = True
        try:
            self._transport().signalProcess("KILL")
        except Exception:
            pass  # it has ended already, as it was to

    def _transport(self) -> Any:
        return self.transport

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Take an answer."""
        for item in self._splitter.feed(data):
            try:
                succeeded, value = pickle.loads(item)  # type: ignore[arg-type]  # noqa: S301
            except Exception:  # a result of a class that is not here, say
                result: object = Failure()
            else:
                result = value if succeeded else Failure(CallFailed(value))
            self._crew.ended(self, result)
        if self._splitter.too_large and not self._over:
            self._lost(f"the result is over {MAX_PICKLE} bytes")

    def childConnectionLost(self, childFD: int) -> None:
        """The child has closed a pipe: it has ended, or does so."""
        if childFD == ANSWERS and self._over:
            self._crew.gone(self)
        elif childFD == ANSWERS:
            self._lost("the process ended")

    def _lost(self, why: str) -> None:
        self.abandon()
        self._crew.ended(self, Failure(ProcessEnded(why)), alive=False)


__all__ = ["CallFailed", "ProcessEnded", "Processes"]
