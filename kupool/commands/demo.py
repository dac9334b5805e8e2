"""``kupool demo``: a daemon, a few workers, and a table of their counts."""

from __future__ import annotations

import argparse
import json
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel
from twisted.web.client import Agent, readBody

from kupool.client import PoolClient, SubmissionAnswer, Worker
from kupool.client.pace import PaceSettings
from kupool.commands.console import complain, make_console, print_table
from kupool.commands.daemon_process import DaemonProcess
from kupool.commands.running import Ending, Output, run
from kupool.commands.settings_flags import add_settings_parser, given_flags, load_settings
from kupool.commands.times import minute_text, parse_time
from kupool.daemon.checks import check
from kupool.daemon.service import explain
from kupool.net.transport.endpoints import Address, parse_address, probe
from kupool.settings import ListenSettings
from kupool.timing.waiting import and_then
from kupool.wire.messages import JobParams

#: The sample workers, and the seconds between two submissions of each.
WORKERS = {
    "alice.rig1": 1.0,
    "alice.rig2": 2.0,
    "bob": 1.5,
    "carol.gpu": 3.0,
    "dave": 5.0,
}

#: Seconds until the first table, and between two tables.
FIRST_TABLE = 4.0
TABLE_EVERY = 10.0


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    add_settings_parser(
        subparsers,
        "demo",
        "start the daemon with a few sample workers; Ctrl-C stops all",
        demo,
    )


def demo(arguments: argparse.Namespace) -> int:
    """Run the daemon and the workers until a signal; returns the exit status."""
    loaded = load_settings(arguments)
    if loaded is None:
        return 1
    try:
        check(loaded)
        listen = loaded.settings.listen
        pool, http = parse_address(listen.addr[0]), _http_address(listen)
        if pool is None or not pool.port:
            raise ValueError("addr: the demo needs a TCP address with a port, such as --addr :8080")
        for name, texts in (("addr", listen.addr), ("http", (listen.http,))):
            for text in texts:
                _probe(name, text)
    except ValueError as error:
        complain(str(error))
        return 1

    async def command(reactor: Any, ending: Ending) -> int:
        flags = given_flags(arguments)
        if "log_format" not in loaded.sources or loaded.sources["log_format"] == "default":
            flags.append("--log-format=text")
        return await _Demo(reactor, ending, pool, http, flags=flags).run()

    return run(command, LogLevel.critical)


def _probe(name: str, text: str) -> None:
    """Check that a TCP address is free; raises :class:`ValueError` that names the setting."""
    try:
        probe(text)
    except CannotListenError as error:
        raise ValueError(f"{name}: {explain(error)}") from None


def _http_address(settings: ListenSettings) -> Address | None:
    address = parse_address(settings.http) if settings.http else None
    return address if address is not None and address.port else None


def _reached_at(address: Address) -> str:
    everywhere = address.host in ("", "0.0.0.0", "::")  # noqa: S104
    host = "127.0.0.1" if everywhere else address.host
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


class _Demo:
    """One run of the command."""

    def __init__(
        self, reactor: Any, ending: Ending, pool: Address, http: Address | None, *, flags: list[str]
    ) -> None:
        self._reactor = reactor
        self._ending = ending
        self._address = _reached_at(pool)
        self._stats = f"http://{_reached_at(http)}/stats" if http is not None else ""
        self._flags = flags
        self._output = Output(ending)
        self._console = make_console()
        self._daemon = DaemonProcess(self._said, self._died)
        self._clients: list[PoolClient] = []
        self._tables = LoopingCall(self._show_table)
        self._status = 0

    async def run(self) -> int:
        """Run to the end; returns the exit status."""
        self._daemon.start(self._reactor, self._flags)
        await and_then(self._ending.wait(), self._stop)
        if not self._status:
            self._output.line("The workers and the daemon have stopped.")
        return self._status

    async def _stop(self) -> None:
        if self._tables.running:
            self._tables.stop()
        await gatherResults([client.close() for client in self._clients])
        await self._daemon.stop()

    def _said(self, line: str) -> None:
        self._output.line(f"daemon | {line}")
        if not self._clients and "Ready: " in line:
            self._begin()

    def _died(self, status: int) -> None:
        self._status = status or 1
        self._ending.reach()

    def _begin(self) -> None:
        """Start the workers and the tables, once the daemon is ready."""
        self._output.line(f"Starting {len(WORKERS)} sample workers; Ctrl-C stops everything.")
        for username, interval in WORKERS.items():
            client = PoolClient(self._reactor, [self._address], username)
            worker = Worker(self._reactor, client, PaceSettings(interval))
            worker.on_answer = self._report(username)
            self._clients.append(client)
            client.connect().addErrback(
                lambda failure: self._output.line(failure.getErrorMessage())
            )
        if self._stats:
            self._output.line(f"The dashboard: {self._stats.removesuffix('stats')}")
            self._output.line(f"The counts: curl {self._stats}")
            self._reactor.callLater(FIRST_TABLE, self._begin_tables)

    def _begin_tables(self) -> None:
        if not self._ending.over:
            self._tables.start(TABLE_EVERY).addErrback(
                lambda failure: self._output.line(f"no table: {failure.getErrorMessage()}")
            )

    def _report(self, username: str) -> Any:
        def told(job: JobParams, nonce: str, answer: SubmissionAnswer) -> None:
            verdict = "accepted" if answer.accepted else f"refused ({answer.text})"
            self._output.line(f"{verdict}  {username:<10}  job {job.job_id}  nonce {nonce[:8]}…")

        return told

    def _show_table(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._fetch_and_show())

    async def _fetch_and_show(self) -> None:
        response = await Agent(self._reactor).request(b"GET", self._stats.encode())
        found = json.loads(await readBody(response))
        if self._ending.over:
            return
        rows = [
            (minute_text(parse_time(row["minute"])), row["users"], row["count"])
            for row in found["per_minute"][-5:]
        ]
        if not rows:
            self._output.line("No submission is counted yet; the next table shows the first ones.")
            return
        title = "Accepted submissions a minute"
        print_table(
            self._console, ("minute (UTC)", "users", "accepted"), rows, title=title, numbers=2
        )
        self._output.line(f"{found['accepted_total']:,} in all")
