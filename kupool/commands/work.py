"""``kupool work``: submit for every job, until told to stop."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from kupool.client import PoolClient, SubmissionAnswer, Worker
from kupool.client.crew import ClientCrew
from kupool.client.pace import PaceSettings
from kupool.client.servers import parse_server
from kupool.commands.console import complain
from kupool.commands.running import Ending, Output, raise_descriptor_limit, run
from kupool.commands.target import Target, add_target_flags, duration, positive, read_target
from kupool.timing.waiting import and_then
from kupool.wire.messages import JobParams

#: Seconds between two summaries of many sessions: on a terminal, and elsewhere.
LIVE_EVERY = 1.0
PLAIN_EVERY = 5.0

#: Explains the answer ``Temporarily unavailable`` to the user of the command.
NOT_STORED = (
    "the server could not store a submission {:,} times (Temporarily unavailable), which were "
    "submitted again; its log, and its page /ready, say why: a full disk, for example"
)


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "work",
        help="work for a pool: submit for every job",
        description="Work for a pool: submit at once for each new job, and then at the "
        "interval, as often as the server permits. Ends with Ctrl-C.",
        allow_abbrev=False,
    )
    add_target_flags(parser)
    parser.add_argument(
        "--sessions", type=positive, default=1, metavar="N", help="sessions in this process [1]"
    )
    parser.add_argument(
        "--ramp", type=positive, default=200, metavar="N", help="sessions started a second [200]"
    )
    parser.add_argument(
        "--interval",
        type=duration,
        default=1.0,
        metavar="D",
        help="time between two submissions of a session, at most 1m [1s]",
    )
    parser.add_argument(
        "--submit-interval",
        type=duration,
        default=1.0,
        metavar="D",
        help="value of the server's flag of this name; 0 if the server has no such limit [1s]",
    )
    parser.add_argument("--count", type=positive, metavar="N", help="end after N accepted")
    parser.add_argument("--duration", type=duration, metavar="D", help="end after this time")
    parser.set_defaults(func=work)


def work(arguments: argparse.Namespace) -> int:
    """Work until a signal, the count or the duration; returns the exit status."""
    try:
        pace = PaceSettings(arguments.interval, arguments.submit_interval)
        target = read_target(arguments)
        raise_descriptor_limit(arguments.sessions + 64)
    except ValueError as error:
        complain(str(error))
        return 1

    async def command(reactor: Any, ending: Ending) -> int:
        for text in target.servers:
            parse_server(reactor, text)
        shift = _Shift(reactor, ending, target, pace, arguments=arguments)
        return await shift.run()

    return run(command, LogLevel.warn if arguments.sessions == 1 else LogLevel.critical)


class _Shift:
    """One run of the command."""

    def __init__(
        self,
        reactor: Any,
        ending: Ending,
        target: Target,
        pace: PaceSettings,
        *,
        arguments: argparse.Namespace,
    ) -> None:
        self._reactor = reactor
        self._ending = ending
        self._target = target
        self._pace = pace
        self._sessions: int = arguments.sessions
        self._count: int | None = arguments.count
        self._duration: float | None = arguments.duration
        self._output = Output(ending)
        self._accepted = 0
        self._connected = False
        self._before = (reactor.seconds(), 0)
        self._crew = ClientCrew(
            reactor, self._make, self._sessions, ramp=arguments.ramp, gone=ending.fail
        )

    async def run(self) -> int:
        """Work to the end; returns the exit status."""
        reactor = self._reactor
        began = reactor.seconds()
        timer = None
        if self._duration is not None:
            timer = reactor.callLater(self._duration, self._ending.reach)
        summary = LoopingCall(self._summary)
        if self._sessions > 1:
            every = LIVE_EVERY if self._output.tty else PLAIN_EVERY
            summary.start(every, now=False).addErrback(self._failed)
        self._crew.start()

        async def stop() -> None:
            if timer is not None and timer.active():
                timer.cancel()
            if summary.running:
                summary.stop()
            await self._crew.close()
            self._output.end()

        await and_then(self._ending.wait(), stop)
        return self._report(reactor.seconds() - began)

    def _report(self, seconds: float) -> int:
        """Print the summary; returns the exit status: 1 if no session was ever authorized until the
        time was over.
        """
        crew = self._crew
        errors = _listed(crew.errors()) or "no errors"
        if not self._connected:
            errors = f"never connected: {crew.problem or 'no server answered yet'}"
        self._output.line(f"{crew.accepted:,} accepted in {seconds:.1f} s, {errors}")
        if crew.not_stored:
            complain(NOT_STORED.format(crew.not_stored))
        return 0 if self._connected or self._ending.asked else 1

    def _failed(self, failure: Failure) -> None:
        if failure.value is not None:
            self._ending.fail(failure.value)

    def _make(self, number: int) -> PoolClient:
        target = self._target
        client = PoolClient(
            self._reactor,
            target.servers,
            target.name(number),
            target.password,
            framing=target.framing,
        )
        worker = Worker(self._reactor, client, self._pace, on_answer=self._answered)
        name = target.name(number)

        def connected(server: str) -> None:
            self._connected = True
            if self._sessions == 1:
                self._output.line(f"authorized on {server} as {name}")

        client.on_connected = connected
        if self._sessions == 1:
            worker.on_job = lambda job: self._output.line(f"job {job.job_id}")
        return client

    def _answered(self, job: JobParams, nonce: str, answer: SubmissionAnswer) -> None:
        if answer.accepted:
            self._accepted += 1
        if self._sessions == 1:
            self._output.line(self._told(job, nonce, answer))
        if self._count is not None and self._accepted >= self._count:
            self._ending.reach()

    def _told(self, job: JobParams, nonce: str, answer: SubmissionAnswer) -> str:
        what = f"job {job.job_id} nonce {nonce[:4]}…"
        if not answer.accepted:
            return f"refused {what}: {answer.text}"
        counted = f"{self._accepted:,} total"
        if answer.resubmitted:
            counted += ", submitted again after a lost connection"
        return f"accepted {what} ({counted})"

    def _summary(self) -> None:
        now, accepted = self._reactor.seconds(), self._crew.accepted
        then, before = self._before
        self._before = (now, accepted)
        rate = (accepted - before) / max(now - then, 0.001)
        text = (
            f"{self._crew.connected:,} of {self._sessions:,} sessions, "
            f"{accepted:,} accepted, {rate:,.1f}/s"
        )
        errors = _listed(self._crew.errors())
        if errors:
            text += f", {errors}"
        if self._crew.connected < self._sessions and self._crew.problem:
            text += f" ({self._crew.problem})"
        if self._output.tty:
            self._output.live(text)
        else:
            self._output.line(text)


def _listed(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in errors.items())
