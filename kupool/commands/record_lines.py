"""Records of topics as lines of text: how commands show them."""

from __future__ import annotations

import argparse
import sys
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from kupool.commands.api_flags import say_json
from kupool.commands.console import say
from kupool.commands.places import time_text
from kupool.printable import printable


def add_record_flags(parser: Any) -> None:
    """Add the flags that say how records are shown."""
    parser.add_argument(
        "--values",
        action="store_true",
        help="print only the values, each with a line end, unchanged if they go to a file or "
        "a pipe",
    )


class RecordLines:
    """Prints records on standard output, one in a line, as the flags of a command say."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._json: bool = arguments.json
        self._values: bool = arguments.values
        self._terminal = sys.stdout.isatty()

    def print(self, partition: int, record: Mapping[str, Any]) -> None:
        """Print a record of the API."""
        if self._json:
            say_json({"partition": partition, **record})
        elif self._values and self._terminal:
            say(text_of(value_of(record)))
        elif self._values:
            sys.stdout.buffer.write(value_of(record) + b"\n")
            sys.stdout.buffer.flush()
        else:
            say(record_line(partition, record))


def record_line(partition: int, record: Mapping[str, Any]) -> str:
    """Return partition, offset, time, key and value of a record in a line, separated by two
    spaces; what is not printable is escaped.
    """
    key = key_of(record)
    shown = "-" if key is None else text_of(key)
    place = f"{partition}/{record['offset']}"
    return "  ".join((place, time_text(record["timestamp"]), shown, text_of(value_of(record))))


def value_of(record: Mapping[str, Any]) -> bytes:
    """Return the value of a record as it was written."""
    return _bytes(record, "value") or b""


def key_of(record: Mapping[str, Any]) -> bytes | None:
    """Return the key of a record as it was written; None without one."""
    return _bytes(record, "key")


def _bytes(record: Mapping[str, Any], name: str) -> bytes | None:
    text = record.get(name)
    if text is None:
        return None
    return b64decode(text) if record.get("base64") else str(text).encode()


def text_of(data: bytes) -> str:
    """Return bytes as text that a terminal only shows; what is no UTF-8 is escaped."""
    return printable(data.decode("utf-8", "backslashreplace"))


__all__ = ["RecordLines", "add_record_flags", "key_of", "record_line", "text_of", "value_of"]
