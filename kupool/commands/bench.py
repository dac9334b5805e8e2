"""``kupool bench``: put load on a pool, and report its speed."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from kupool.client.answers import SubmissionOutcome
from kupool.client.failures import ClientError
from kupool.client.load import Load, LoadSettings
from kupool.client.servers import parse_server
from kupool.commands.console import complain, make_console, say
from kupool.commands.running import Ending, raise_descriptor_limit, run
from kupool.commands.target import Target, add_target_flags, duration, positive, read_target
from kupool.printable import printable
from kupool.timing.waiting import and_then

#: Seconds between two updates of the progress bar, or between two plain lines.
BAR_EVERY = 0.2
PLAIN_EVERY = 2.0

#: Seconds to wait at the end for the missing answers.
DRAIN = 2.0

LIMITED = (
    "The server limits submissions: start it with --submit-interval 0 --attempts-rate 0 "
    "to measure what it can do."
)


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "bench",
        help="put load on a pool and measure it",
        description="Keep many submissions in flight for some time, and print rates, answers "
        "and latencies. Start the server with --submit-interval 0 --attempts-rate 0.",
        allow_abbrev=False,
    )
    add_target_flags(parser)
    parser.add_argument(
        "--sessions", type=positive, default=100, metavar="N", help="sessions [100]"
    )
    parser.add_argument(
        "--in-flight",
        type=positive,
        default=16,
        metavar="K",
        help="submissions that each session keeps unanswered [16]",
    )
    parser.add_argument(
        "--duration", type=duration, default=10.0, metavar="D", help="how long [10s]"
    )
    parser.set_defaults(func=bench)


def bench(arguments: argparse.Namespace) -> int:
    """Run the load and print what was measured; returns the exit status."""
    settings = LoadSettings(arguments.sessions, arguments.in_flight, framing=arguments.framing)
    if arguments.duration <= 0:
        complain("--duration: the load needs more than 0 seconds")
        return 1
    try:
        target = read_target(arguments)
        raise_descriptor_limit(settings.sessions + 64)
    except ValueError as error:
        complain(str(error))
        return 1

    async def command(reactor: Any, ending: Ending) -> int:
        return await _Bench(reactor, ending, target, settings, seconds=arguments.duration).run()

    return run(command, LogLevel.critical)


class _Bench:
    """One run of the command."""

    def __init__(
        self,
        reactor: Any,
        ending: Ending,
        target: Target,
        settings: LoadSettings,
        *,
        seconds: float,
    ) -> None:
        self._reactor = reactor
        self._ending = ending
        self._settings = settings
        self._seconds = seconds
        self._console = make_console()
        self._load = Load(
            reactor,
            [parse_server(reactor, text) for text in target.servers],
            target.name,
            target.password,
            settings=settings,
        )
        self._began = 0.0
        self._limited = False
        self._before = (0.0, 0)
        # The reactor updates the bar: a separate thread could take the CPU from the load at any
        # time.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            auto_refresh=False,
            disable=not self._console.is_terminal,
        )

    async def run(self) -> int:
        """Connect, load, and report; returns the exit status."""
        with self._progress:
            shown = LoopingCall(self._show)
            every = BAR_EVERY if self._console.is_terminal else PLAIN_EVERY
            total = self._settings.sessions
            self._task = self._progress.add_task("Connecting", total=total, told="")
            shown.start(every, now=False).addErrback(self._failed)

            def close() -> Deferred[None]:
                shown.stop()
                return Deferred.fromCoroutine(self._load.close())

            seconds = await and_then(self._connect_and_measure(), close)
        if seconds is None:
            return 0
        self._report(seconds)
        return 0 if self._load.counts.accepted else 1

    async def _connect_and_measure(self) -> float | None:
        """Return how many seconds the load ran; None if connecting was interrupted."""
        return await self._measure() if await self._connect() else None

    async def _connect(self) -> bool:
        """Open the sessions; returns False if that was interrupted."""
        connecting = Deferred.fromCoroutine(self._load.connect())

        def interrupt(_: None) -> Deferred[None] | None:
            if self._began:
                return None
            return Deferred.fromCoroutine(self._load.close())

        Deferred.fromCoroutine(self._ending.wait()).addCallback(interrupt).addErrback(
            lambda failure: self._console.print(printable(failure.getErrorMessage()))
        )
        try:
            await connecting
        except ClientError:
            if not self._ending.over:
                raise
        return not self._ending.over

    async def _measure(self) -> float:
        """Let the load run; returns for how many seconds it did."""
        reactor, load = self._reactor, self._load
        gc.collect()
        gc.freeze()
        self._progress.reset(self._task, total=self._seconds, description="Submitting")
        self._began = began = reactor.seconds()
        self._before = (began, 0)
        load.start()
        timer = reactor.callLater(self._seconds, self._ending.reach)
        try:
            await self._ending.wait()
        finally:
            if timer.active():
                timer.cancel()
        seconds: float = reactor.seconds() - began
        self._answered = load.counts.answered
        self._accepted = load.counts.accepted
        load.stop()
        await load.drain(DRAIN)
        return seconds

    def _failed(self, failure: Failure) -> None:
        if failure.value is not None:
            self._ending.fail(failure.value)

    # -- while it runs

    def _show(self) -> None:
        load, now = self._load, self._reactor.seconds()
        if not self._began:
            self._tell(load.connected, f"{load.connected:,} of {self._settings.sessions:,}")
            return
        answered = load.counts.answered
        then, before = self._before
        rate = (answered - before) / max(now - then, 0.001)
        self._before = (now, answered)
        self._tell(now - self._began, f"{rate:,.0f}/s, {answered:,} answered")
        if not self._limited and load.counts.refused[SubmissionOutcome.TOO_FREQUENT.value]:
            self._limited = True
            self._progress.console.print(LIMITED, soft_wrap=True)
        if not load.connected:
            self._ending.reach()

    def _tell(self, completed: float, told: str) -> None:
        if self._console.is_terminal:
            self._progress.update(
                self._task, completed=completed, told=printable(told), refresh=True
            )
        else:
            say(f"{'submitting' if self._began else 'connecting'}: {told}")

    # -- at the end

    def _report(self, seconds: float) -> None:
        rows = list(self._rows(seconds))
        if self._console.is_terminal:
            settings = self._settings
            table = Table(
                title=f"{settings.sessions:,} sessions, {settings.in_flight} in flight, "
                f"{seconds:.1f} s, {settings.framing}",
                show_header=False,
            )
            table.add_column()
            table.add_column(justify="right")
            for name, value in rows:
                table.add_row(name, value)
            self._console.print(table)
        else:
            for name, value in rows:
                say(f"{name}: {value}")
        if self._load.counts.refused[SubmissionOutcome.TOO_FREQUENT.value] and not self._limited:
            say(LIMITED)

    def _rows(self, seconds: float) -> Iterator[tuple[str, str]]:
        load, counts = self._load, self._load.counts
        yield "submissions", f"{counts.answered + counts.unanswered:,}"
        yield "answers a second", f"{self._answered / seconds:,.0f}"
        yield "accepted a second", f"{self._accepted / seconds:,.0f}"
        yield "accepted", f"{counts.accepted:,}"
        for name, number in counts.refused.most_common():
            yield name, f"{number:,}"
        if counts.unanswered:
            yield "unanswered", f"{counts.unanswered:,}"
        latency = counts.latency
        for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
            yield f"latency {name}", f"{latency.quantile(part) * 1000:.2f} ms"
        yield "latency max", f"{latency.largest * 1000:.2f} ms"
        widest = counts.spread.widest()
        if widest is not None:
            job_id, spread, sessions = widest
            yield (
                "job fan-out, first to last",
                f"{spread * 1000:.1f} ms (job {job_id}, {sessions:,} sessions)",
            )
        for reason, number in load.lost.most_common(5):
            yield f"sessions lost: {reason}", f"{number:,}"
