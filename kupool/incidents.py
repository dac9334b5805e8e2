"""Unexpected errors: log the details under a reference, and show others only the reference."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import INTERNAL_ERROR, ErrorText


def report(log: Logger, text: str, failure: Failure | None = None, **fields: Any) -> ErrorText:
    """Log a failure under a new reference; returns the error to show to others.

    ``text`` is a log format with ``fields``; the reference is appended. Without a
    ``failure``, the current exception is logged.
    """
    reference = token_hex(8)
    text += ", reference {reference}"
    log.failure(text, failure or Failure(), reference=reference, **fields)
    return ErrorText(INTERNAL_ERROR.code, f"{INTERNAL_ERROR.text} {reference}")


__all__ = ["report"]
