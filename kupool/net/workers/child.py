"""The process of :mod:`kupool.net.workers.processes`: takes calls and answers them.

Run as ``python -m kupool.net.workers.child``: calls come on standard input, answers go
to descriptor 3, each pickled, behind its length as u32 big-endian.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from typing import BinaryIO


def answer(order: bytes) -> bytes:
    """Make one call; returns (whether it succeeded, the result or the traceback)."""
    try:
        function, arguments = pickle.loads(order)  # noqa: S301  from our own parent
        return pickle.dumps((True, function(*arguments)))
    except Exception:
        return pickle.dumps((False, traceback.format_exc()))


def serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """Answer calls until there are no more."""
    while len(head := calls.read(4)) == 4:
        result = answer(calls.read(int.from_bytes(head, "big")))
        answers.write(len(result).to_bytes(4, "big") + result)
        answers.flush()


def main() -> None:
    """Serve the parent; what it is interrupted by is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with os.fdopen(3, "wb") as answers:
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
