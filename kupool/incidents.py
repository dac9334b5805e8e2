"""An unexpected error: all of it goes to the log, and others are told a reference to that."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import INTERNAL_ERROR, ErrorText


def report(log: Logger, text: str, failure: Failure | None = None, **fields: Any) -> ErrorText:
    """Log a failure under a new reference; returns what anybody else may know of it.

    ``text`` is a format of the log, made of ``fields``; the reference is put after it. Without
    a ``failure`` it is the exception that is being handled.
    """
    reference = token_hex(8)
    text += ", reference {reference}"
    log.failure(text, failure or Failure(), reference=reference, **fields)
    return ErrorText(INTERNAL_ERROR.code, f"{INTERNAL_ERROR.text} {reference}")


__all__ = ["report"]
