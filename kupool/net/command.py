"""Run a server as a program: command-line options, output and Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import react
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from kupool.callbacks import awaited, deferred_of
from kupool.net.clock import use_monotonic
from kupool.net.collector import collect_rarely
from kupool.net.server import Server
from kupool.net.stalls import StallWatch

#: Gets the reactor and the program's arguments. Returns a server that has not been
#: started, or a coroutine or Deferred of one. May raise :class:`SystemExit` with a text.
Make = Callable[[Any, argparse.Namespace], object]


def run(
    make: Make,
    description: str | None = None,
    options: Callable[[argparse.ArgumentParser], object] | None = None,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Run a server as a program, until SIGINT, SIGTERM or its own stop; exits with 0.

    The program takes ``--host``, ``--port``, ``--log-level`` and the options that
    ``options`` adds to its parser. A server with addresses of its own listens on those
    instead.

    It prints ``listening on PORT``. To stderr it writes log events from that level on, and
    the stacks when a handler blocks the reactor for two seconds. If it cannot listen, it
    prints one line to stderr and exits with status 1.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port; 0 (default) is any free one")
    levels = [level.name for level in LogLevel.iterconstants()]
    parser.add_argument("--log-level", default="warn", choices=levels, help="(%(default)s)")
    if options is not None:
        options(parser)
    parsed = parser.parse_args(arguments)
    log = FilteringLogObserver(
        textFileLogObserver(sys.stderr),
        [LogLevelFilterPredicate(LogLevel.lookupByName(parsed.log_level))],
    )
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
    react(lambda reactor: Deferred.fromCoroutine(_program(reactor, make, parsed)))


async def _program(reactor: Any, make: Make, arguments: argparse.Namespace) -> None:
    def tell(line: str) -> None:
        collect_rarely()
        print(line, flush=True)

    use_monotonic(reactor)
    watch = StallWatch(reactor)
    watch.start()
    try:
        await serve(reactor, make, arguments, tell)
    finally:
        watch.stop()


async def serve(
    reactor: Any,
    make: Make,
    arguments: argparse.Namespace,
    tell: Callable[[str], object],
) -> None:
    """Do what :func:`run` does, with parsed arguments and on any reactor.

    ``tell`` gets the line that says where the server listens. Raises :class:`SystemExit` if
    it cannot listen, and what ``make`` raises.
    """
    made = make(reactor, arguments)
    server = await deferred_of(made) if awaited(made) else made
    if not isinstance(server, Server):
        raise TypeError(f"a {type(server).__name__} was made, not a Server")
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    server.after_start(lambda started: tell(f"listening on {started.port}"))
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(server.stop())
    )
    try:
        await server.serve(server.planned or [f"{host}:{arguments.port}"])
    except (CannotListenError, ValueError) as error:
        raise SystemExit(f"cannot listen: {error}") from error


__all__ = ["Make", "run", "serve"]
