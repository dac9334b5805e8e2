"""The log output of the process: JSON lines or text, above a level."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatEvent,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from kupool.printable import printable, printable_json

#: Keys of an event that are logged under another name, or not at all.
_NOT_FIELDS = frozenset(
    ("time", "isError", "failure", "why", "format", "message", "system", "msg", "level", "module")
)


@implementer(ILogObserver)
class JsonObserver:
    """Writes events as ``{"time":..,"level":..,"module":..,"message":.., ...}``.

    Further values of the event, such as ``username`` or ``remote``, become fields. A failure's
    traceback is the field ``error``.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def __call__(self, event: LogEvent) -> None:
        """Write one event as one line."""
        # Characters that cannot be encoded, as in the name of a file, are escaped.
        line = as_json(event).encode("utf-8", "backslashreplace").decode("utf-8")
        self._file.write(line + "\n")
        self._file.flush()


@implementer(ILogObserver)
class TextObserver:
    """Writes events as text: the time, the level if it is not ``info``, and the message.

    Control characters from peers are escaped, so that they do not reach the terminal. A traceback
    follows on lines of its own, which are indented: what it quotes cannot look like another event.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        text = as_text(event).encode("utf-8", "backslashreplace").decode("utf-8")
        self._file.write(text + "\n")
        self._file.flush()


def as_text(event: LogEvent) -> str:
    """Return an event as a line of text, with its traceback where it has one."""
    level = event.get("log_level", LogLevel.info)
    when = datetime.fromtimestamp(event["log_time"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    name = "" if level is LogLevel.info else f"{level.name.upper()}: "
    text = f"{when} {name}{printable(formatEvent(event))}"
    return f"{text}\n{_indented(_traceback(event))}" if "log_failure" in event else text


def _traceback(event: LogEvent) -> str:
    return eventAsText(
        {**event, "log_format": ""}, includeTimestamp=False, includeSystem=False
    ).strip()


def _indented(text: str) -> str:
    return "\n".join(f"  {printable(line)}" for line in text.split("\n"))


def as_json(event: LogEvent) -> str:
    """Return an event as one line of JSON."""
    level = event.get("log_level", LogLevel.info)
    line: dict[str, object] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds"),
        "level": level.name,
        "module": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    for key, value in event.items():
        if not key.startswith("log_") and key not in _NOT_FIELDS:
            line[key] = value if _is_json(value) else str(value)
    if "log_failure" in event:
        line["error"] = _traceback(event)
    return printable_json(json.dumps(line, ensure_ascii=False))


def _is_json(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    return isinstance(value, int | str | None)


class Level:
    """The lowest level that is logged; may be changed while the process runs."""

    def __init__(self, name: str) -> None:
        self.predicate = LogLevelFilterPredicate()
        self.set(name)

    def set(self, name: str) -> None:
        """Set the level by its name in the settings."""
        self.predicate.setLogLevelForNamespace("", LogLevel.levelWithName(name))


def make_observer(
    form: str, level: Level, twistd: Mapping[str, Any], reactor: Any
) -> ILogObserver | None:
    """Return an observer that logs in the given form to the place that twistd's options name.

    ``twistd`` are the options before the command. Returns None if these choose a logger themselves,
    with ``--logger`` or ``--syslog``. Raises :class:`OSError` if the file cannot be opened.
    """
    if twistd.get("logger") or twistd.get("syslog"):
        return None
    file = _destination(twistd.get("logfile") or "", bool(twistd.get("nodaemon")), reactor)
    if form == "auto":
        form = "text" if file is sys.stdout and file.isatty() else "json"
    observer = JsonObserver(file) if form == "json" else TextObserver(file)
    filtered: ILogObserver = FilteringLogObserver(observer, [level.predicate])
    return filtered


def _destination(logfile: str, nodaemon: bool, reactor: Any) -> Any:
    if nodaemon and logfile in ("", "-"):
        return sys.stdout
    if logfile == "-":
        raise SystemExit(
            "kupool: --logfile=-: in the background there is no standard output to log to; add "
            "--nodaemon, or name a file"
        )
    file = LogFile.fromFullPath(os.path.abspath(logfile or "twistd.log"))
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(file.rotate))
    return file
