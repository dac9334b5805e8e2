"""Run functions in processes, which can be killed if they do not end."""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from kupool.net.workers import child
from kupool.net.workers.executor import BlockingCall, Executor, ExecutorWorker
from kupool.wire.framing import Int32Splitter, encode_int32

#: The largest pickled arguments or result of one call, in bytes.
MAX_PICKLE = 64 * 1024 * 1024


#: The program of a child; absolute, because the working directory may change.
_PROGRAM = os.path.abspath(child.__file__)


class ProcessEnded(Exception):
    """A process ended during a call."""


class CallFailed(Exception):
    """A function raised in a process; the text is its traceback."""


def _pickled(call: BlockingCall) -> bytes:
    """Return a pickled call; raises :class:`ValueError` if it cannot be pickled."""
    try:
        order = pickle.dumps((call.function, call.arguments))
    except BaseException as error:  # pickle raises what an object's own methods raise
        raise ValueError(f"the call cannot be pickled: {error}") from error
    if len(order) > MAX_PICKLE:
        raise ValueError(f"the arguments are over {MAX_PICKLE} bytes")
    return order


class Processes(Executor):
    """Calls functions in processes; see :class:`~kupool.net.workers.executor.Executor`.

    The child must be able to import the function. The function, its arguments and its
    result must be picklable; otherwise the call fails. For a function of the program's own
    file, the child imports that file under another name than ``__main__``. So code for the
    program alone must be under ``if __name__ == "__main__":``.

    An exception of the function, including :class:`SystemExit`, arrives as
    :class:`CallFailed`. The function's standard input is empty. An abandoned call is
    killed, and so is one that exceeds the timeout of a worker pool. The reactor must
    provide ``IReactorProcess``.

    Raises :class:`RuntimeError` while a child imports the program's file, because the file
    would start itself again without end.
    """

    def __init__(
        self, reactor: Any, size: int = 4, *, queue: int = 1024, most_stuck: int = 16
    ) -> None:
        if getattr(sys.modules["__main__"], "__file__", None) == _PROGRAM:
            raise RuntimeError(
                "the program's file starts processes while a child process imports it; "
                'put that code under if __name__ == "__main__":'
            )
        super().__init__(reactor, size, queue=queue, most_stuck=most_stuck)

    def _start_worker(self) -> ExecutorWorker:
        return _WorkerProcess(self)


class _WorkerProcess(ProcessProtocol, ExecutorWorker):
    prompt = True

    def __init__(self, executor: Processes) -> None:
        self._executor = executor
        self._splitter = Int32Splitter(MAX_PICKLE)
        self._over = self._ended = False
        with open(os.devnull, "rb") as nothing:
            executor.reactor.spawnProcess(
                self,
                sys.executable,
                # -P: nothing is imported from the working directory or the child's folder.
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
            # Not now: the caller does not have the Deferred yet.
            self._executor.reactor.callLater(0, self._executor.ended, self, Failure())
            return
        self._send(order)

    def stop(self) -> None:
        self._over = True
        self._transport().closeChildFD(child.CALLS)

    def abandon(self) -> None:
        self._over = True
        try:
            self._transport().signalProcess("KILL")
        except Exception:
            pass  # it has already ended

    def _transport(self) -> Any:
        return self.transport

    def _send(self, message: bytes) -> None:
        try:
            self._transport().writeToChild(child.CALLS, encode_int32(message))
        except KeyError:
            pass  # it has closed that pipe: processExited follows

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Handle answers."""
        for item in self._splitter.feed(data):
            try:
                succeeded, value = child.read_answer(item)  # type: ignore[arg-type]
            except BaseException:  # for example, the class of the result is missing here
                result: object = Failure()
            else:
                result = value if succeeded else Failure(CallFailed(value))
            self._executor.ended(self, result)
        if self._splitter.too_large and not self._over:
            self._lost(f"the result is over {MAX_PICKLE} bytes")

    def processExited(self, reason: Failure) -> None:
        """Handle the end of the child, even if another process still holds its pipes."""
        self._read_rest()
        self._over_now()

    def _read_rest(self) -> None:
        """Read the child's last answers, which may arrive after the news of its end."""
        pipe = self._transport().pipes.get(child.ANSWERS)
        left = MAX_PICKLE
        try:
            while pipe is not None and left > 0 and (data := os.read(pipe.fileno(), 65536)):
                left -= len(data)
                self.childDataReceived(child.ANSWERS, data)
        except OSError:
            pass  # no more data; another process may hold the pipe open

    def childConnectionLost(self, childFD: int) -> None:
        """Handle the end of a pipe: the child has ended, or is about to."""
        if childFD == child.ANSWERS:
            self._over_now()

    def _over_now(self) -> None:
        if self._ended:
            return
        self._ended = True
        for pipe in list(self._transport().pipes.values()):
            # Close at once: any process at the other end is not the child.
            pipe.connectionLost(Failure(ConnectionDone()))
        if self._over:
            self._executor.gone(self)
        else:
            self._lost("the process ended")

    def _lost(self, why: str) -> None:
        self.abandon()
        self._executor.ended(self, Failure(ProcessEnded(why)), alive=False)


__all__ = ["CallFailed", "ProcessEnded", "Processes"]
