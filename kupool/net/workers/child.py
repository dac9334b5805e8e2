"""The process of :mod:`kupool.net.workers.processes`: takes calls and answers them.

It is run as a program of its own and needs the standard library alone. Calls come on the
descriptor ``CALLS``, answers go to ``ANSWERS``, each pickled, behind its length as u32
big-endian. The first message is no call: it says what the parent's surroundings are.
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

#: The descriptors of the queue. Standard input, output and error are the job's own.
CALLS = 3
ANSWERS = 4

#: The name under which a child imports the file that its parent runs. It is the one of the
#: standard library's ``multiprocessing``, which files may know already.
MAIN = "__mp_main__"


class ChildSurroundings(NamedTuple):
    """What a child has from its parent.

    ``path`` is where modules are found, ``arguments`` those of the command line. ``main`` is
    the file that the parent runs and ``package`` the package that it is of; empty where there
    is none.
    """

    path: list[str]
    arguments: list[str]
    main: str
    package: str


def own_surroundings() -> ChildSurroundings:
    """Return those of this process, for its children.

    An empty entry of the path, which stands for the working directory, is left out.
    """
    main = sys.modules.get("__main__")
    return ChildSurroundings(
        path=[entry for entry in sys.path if entry],
        arguments=list(sys.argv),
        main=os.path.abspath(file) if (file := getattr(main, "__file__", None)) else "",
        package=getattr(main, "__package__", None) or "",
    )


class _Calls(pickle.Unpickler):
    """Reads calls: what is of the parent's running file is found in a copy of it."""

    def __init__(self, data: bytes, surroundings: ChildSurroundings) -> None:
        super().__init__(io.BytesIO(data))
        self._surroundings = surroundings

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name in ("__main__", MAIN):
            import_main(self._surroundings)
            module_name = MAIN
        return super().find_class(module_name, global_name)


class _Answers(pickle.Unpickler):
    """Reads answers: what is of the child's copy of the running file is that file's here."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        return super().find_class("__main__" if module_name == MAIN else module_name, global_name)


def read_answer(data: bytes) -> tuple[bool, Any]:
    """Return what :func:`answer` said; raises whatever unpickling does."""
    succeeded, value = _Answers(io.BytesIO(data)).load()
    return succeeded, value


def import_main(surroundings: ChildSurroundings) -> None:
    """Import the file that the parent runs, once, when something of it is needed first.

    It is not called ``__main__`` meanwhile, so that it does not do here what it does there.
    """
    if MAIN in sys.modules:
        return
    if not surroundings.main:
        raise ImportError("the parent runs no file: its functions cannot be found here")
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
    """Make one call; returns (whether it succeeded, the result or the traceback), pickled.

    Whatever is raised is an answer, also what asks the process to exit.
    """
    try:
        function, arguments = _Calls(order, surroundings).load()
        return pickle.dumps((True, function(*arguments)))
    except BaseException:
        return pickle.dumps((False, traceback.format_exc()))


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """Answer calls until there are no more."""
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
            os._exit(0)  # a copy that the function made of this process, and let go on
        answers.write(len(result).to_bytes(4, "big") + result)
        answers.flush()


def _message(calls: BinaryIO) -> bytes | None:
    head = calls.read(4)
    return calls.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def main() -> None:
    """Serve the parent; what it is interrupted by is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (CALLS, ANSWERS):
        os.set_inheritable(descriptor, False)  # no program that a function runs has them
    with os.fdopen(CALLS, "rb") as calls, os.fdopen(ANSWERS, "wb") as answers:
        serve(calls, answers)


if __name__ == "__main__":
    main()
