"""The child process of :mod:`kupool.net.workers.processes`: receives calls and answers them.

It runs as a program of its own and needs only the standard library. Calls arrive on the
descriptor ``CALLS``, answers are sent on ``ANSWERS``. Each is pickled, after its length as
u32 big-endian. The first message is not a call but a :class:`ChildSurroundings`.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import traceback
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

#: The descriptors of calls and answers. The functions may use the standard ones.
CALLS = 3
ANSWERS = 4

#: The name under which a child imports the file that its parent runs. The standard library's
#: ``multiprocessing`` uses the same name.
MAIN = "__mp_main__"


class ChildSurroundings(NamedTuple):
    """What a child gets from its parent.

    ``path`` is ``sys.path``, ``arguments`` are the command line. ``main`` is the file that
    the parent runs, and ``package`` its package; both are empty if there is none.
    """

    path: list[str]
    arguments: list[str]
    main: str
    package: str


def own_surroundings() -> ChildSurroundings:
    """Return the surroundings of this process, for its children.

    An empty entry of the path, which means the working directory, is left out.
    """
    main = sys.modules.get("__main__")
    return ChildSurroundings(
        path=[entry for entry in sys.path if entry],
        arguments=list(sys.argv),
        main=os.path.abspath(file) if (file := getattr(main, "__file__", None)) else "",
        package=getattr(main, "__package__", None) or "",
    )


class _Calls(pickle.Unpickler):
    """Unpickles calls; objects of the parent's ``__main__`` come from a copy of that file."""

    def __init__(self, data: bytes, surroundings: ChildSurroundings) -> None:
        super().__init__(io.BytesIO(data))
        self._surroundings = surroundings

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name in ("__main__", MAIN):
            import_main(self._surroundings)
            module_name = MAIN
        return super().find_class(module_name, global_name)


class _Answers(pickle.Unpickler):
    """Unpickles answers; objects of the child's copy of the file become those of ``__main__``."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        return super().find_class("__main__" if module_name == MAIN else module_name, global_name)


def read_answer(data: bytes) -> tuple[bool, Any]:
    """Return the result of :func:`answer`; raises what unpickling raises."""
    succeeded, value = _Answers(io.BytesIO(data)).load()
    return succeeded, value


def import_main(surroundings: ChildSurroundings) -> None:
    """Import the file that the parent runs, once, when something of it is first needed.

    It is not named ``__main__`` during the import, so that its ``if __name__ ==
    "__main__":`` block does not run.
    """
    if MAIN in sys.modules:
        return
    if not surroundings.main:
        raise ImportError("the parent process runs no file, so its functions cannot be imported")
    with open(surroundings.main, "rb") as source:
        code = compile(source.read(), surroundings.main, "exec")
    module = ModuleType(MAIN)
    module.__file__ = surroundings.main
    module.__package__ = surroundings.package
    sys.modules[MAIN] = module
    try:
        exec(code, module.__dict__)  # noqa: S102  the parent's own program
    except BaseException:
        del sys.modules[MAIN]
        raise
    sys.modules["__main__"] = module


def answer(order: bytes, surroundings: ChildSurroundings) -> bytes:
    """Make one call; returns the pickled tuple (success, result or traceback).

    Every exception is an answer, including ``SystemExit``.
    """
    try:
        function, arguments = _Calls(order, surroundings).load()
        return pickle.dumps((True, function(*arguments)))
    except BaseException:
        return pickle.dumps((False, traceback.format_exc()))


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """Answer calls until the input ends."""
    head = _message(calls)
    if head is None:
        return
    surroundings = ChildSurroundings(*pickle.loads(head))  # noqa: S301  from our own parent
    sys.path[:] = surroundings.path
    sys.argv[:] = surroundings.arguments
    worker = os.getpid()
    while (order := _message(calls)) is not None:
        result = answer(order, surroundings)
        if os.getpid() != worker:
            os._exit(0)  # the function forked, and this is the fork
        answers.write(len(result).to_bytes(4, "big") + result)
        answers.flush()


def _message(calls: BinaryIO) -> bytes | None:
    head = calls.read(4)
    return calls.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def main() -> None:
    """Serve the parent. SIGINT is ignored: the parent handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (CALLS, ANSWERS):
        os.set_inheritable(descriptor, False)  # programs that a function runs do not inherit them
    with os.fdopen(CALLS, "rb") as calls, os.fdopen(ANSWERS, "wb") as answers:
        serve(calls, answers)


if __name__ == "__main__":
    main()
