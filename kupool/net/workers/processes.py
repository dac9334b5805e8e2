"""Processes for functions that compute, and can be killed when they do not end."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from kupool.net.workers import child
from kupool.net.workers.crew import BlockingCall, Crew, Hand
from kupool.wire.framing import Int32Splitter, encode_int32

#: The largest arguments, or result, of one call, in bytes once pickled.
MAX_PICKLE = 64 * 1024 * 1024


#: What a child runs; the folder of the program may change later.
_PROGRAM = os.path.abspath(child.__file__)


class ProcessEnded(Exception):
    """A process ended with a call in its hands."""


class CallFailed(Exception):
    """What a function raised in a process; the text is that of its traceback."""


def _pickled(call: BlockingCall) -> bytes:
    """Return a call as bytes; raises :class:`ValueError` where it cannot be sent."""
    try:
        order = pickle.dumps((call.function, call.arguments))
    except BaseException as error:  # pickle raises whatever an object's own methods do
        raise ValueError(f"the call cannot be pickled: {error}") from error
    if len(order) > MAX_PICKLE:
        raise ValueError(f"the arguments are over {MAX_PICKLE} bytes")
    return order


class Processes(Crew):
    """Calls functions in processes of its own, as :class:`~kupool.net.workers.crew.Crew` says.

    The function is one that the child can import, and it, its arguments and its result can
    be pickled; a call fails otherwise. One of the file that is running is found by importing
    that file in the child, under another name than ``__main__``: what only the program itself
    does has to stand under ``if __name__ == "__main__":``. What a function raises comes as
    :class:`CallFailed`, :class:`SystemExit` included. Its standard input is empty. An
    abandoned call, and so one that takes too long behind a worker pool's timeout, is killed.
    The reactor provides ``IReactorProcess``.

    Raises :class:`RuntimeError` in such an import, where a file would begin itself for ever.
    """

    def __init__(
        self, reactor: Any, size: int = 4, *, queue: int = 1024, most_stuck: int = 16
    ) -> None:
        if getattr(sys.modules["__main__"], "__file__", None) == _PROGRAM:
            raise RuntimeError(
                "a process imports the file that is running, which begins processes of its "
                'own then: that has to stand under if __name__ == "__main__":'
            )
        super().__init__(reactor, size, queue=queue, most_stuck=most_stuck)

    def _hire(self) -> Hand:
        return _ProcessHand(self)


class _ProcessHand(ProcessProtocol, Hand):
    prompt = True

    def __init__(self, crew: Processes) -> None:
        self._crew = crew
        self._splitter = Int32Splitter(MAX_PICKLE)
        self._over = self._ended = False
        with open(os.devnull, "rb") as nothing:
            crew.reactor.spawnProcess(
                self,
                sys.executable,
                # Nothing is imported from the working directory, nor from beside the child.
                [sys.executable, "-P", _PROGRAM],
                env=None,
                childFDs={
                    0: nothing.fileno(),
                    1: 1,
                    2: 2,
                    child.CALLS: "w",
                    child.ANSWERS: "r",
                },
            )
        self._send(pickle.dumps(tuple(child.own_surroundings())))

    def take(self, call: BlockingCall) -> None:
        try:
            order = _pickled(call)
        except Exception:
            # Not now: whoever called has not got the Deferred yet.
            self._crew.reactor.callLater(0, self._crew.ended, self, Failure())
            return
        self._send(order)

    def dismiss(self) -> None:
        self._over = True
        self._transport().closeChildFD(child.CALLS)

    def abandon(self) -> None:
        self._over = True
        try:
            self._transport().signalProcess("KILL")
        except Exception:
            pass  # it has ended already, as it was to

    def _transport(self) -> Any:
        return self.transport

    def _send(self, message: bytes) -> None:
        try:
            self._transport().writeToChild(child.CALLS, encode_int32(message))
        except KeyError:
            pass  # it has closed that pipe: its end is about to be noticed

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Take an answer."""
        for item in self._splitter.feed(data):
            try:
                succeeded, value = child.read_answer(item)  # type: ignore[arg-type]
            except BaseException:  # a result of a class that is not here, say
                result: object = Failure()
            else:
                result = value if succeeded else Failure(CallFailed(value))
            self._crew.ended(self, result)
        if self._splitter.too_large and not self._over:
            self._lost(f"the result is over {MAX_PICKLE} bytes")

    def processExited(self, reason: Failure) -> None:
        """The child has ended, whoever else has its pipes still."""
        self._read_rest()
        self._over_now()

    def _read_rest(self) -> None:
        """Take what the child said last: that may come after the news of its end."""
        pipe = self._transport().pipes.get(child.ANSWERS)
        left = MAX_PICKLE
        try:
            while pipe is not None and left > 0 and (data := os.read(pipe.fileno(), 65536)):
                left -= len(data)
                self.childDataReceived(child.ANSWERS, data)
        except OSError:
            pass  # there is no more, and somebody else could write

    def childConnectionLost(self, childFD: int) -> None:
        """The child has closed a pipe: it has ended, or is to."""
        if childFD == child.ANSWERS:
            self._over_now()

    def _over_now(self) -> None:
        if self._ended:
            return
        self._ended = True
        for pipe in list(self._transport().pipes.values()):
            # At once: who reads the other end, if anybody, is not the child.
            pipe.connectionLost(Failure(ConnectionDone()))
        if self._over:
            self._crew.gone(self)
        else:
            self._lost("the process ended")

    def _lost(self, why: str) -> None:
        self.abandon()
        self._crew.ended(self, Failure(ProcessEnded(why)), alive=False)


__all__ = ["CallFailed", "ProcessEnded", "Processes"]
