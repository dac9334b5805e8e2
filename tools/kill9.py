"""Kills the daemon again and again while clients submit, then compares the counts.

    python -m tools.kill9 --clients 200 --rate 5 --kills 20 --seed 1

Every client keeps what it has not been answered for and sends it again, with the same
nonce, once it has authorized on the daemon that was started next. What is answered with
``true``, and what is a duplicate only because it is sent again, is what must have been
counted: once, under the right user and worker. Ends with status 1 on any difference.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kupool.wire.batches import decode_batch
from kupool.wire.framing import FRAMINGS, Item
from kupool.wire.messages import split_username
from tests.servers.running_daemon import UNLIMITED, RunningDaemon, StartFailed
from tools.crowd import Crowd, Peer, decode, submission
from tools.process import complaints

USERS = 20

#: A submission: the name of the session, the job, the nonce.
Key = tuple[str, int, str]


class Differences:
    """What is not as it should be; only the first few are kept as texts."""

    def __init__(self) -> None:
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < 30:
            self.texts.append(text)

    def unless(self, fine: object, text: str) -> None:
        if not fine:
            self.add(text)


class Books:
    """What all clients together were told."""

    def __init__(self) -> None:
        self.true: Counter[Key] = Counter()
        self.true_again = 0
        self.duplicate_again: Counter[Key] = Counter()
        self.submitted = self.resent = self.reconnects = self.retried = 0
        self.other: Counter[str] = Counter()
        self.nonces: dict[int, str] = {}
        self.newest = 0
        #: No job below this one may be given out: it was the newest before the last kill.
        self.floor = 0
        self.differences = Differences()

    def job(self, job_id: int, server_nonce: str) -> None:
        known = self.nonces.setdefault(job_id, server_nonce)
        self.differences.unless(
            known == server_nonce, f"job {job_id} came with {known} and with {server_nonce}"
        )
        self.differences.unless(
            job_id >= self.floor, f"job {job_id} came after a restart, after job {self.floor}"
        )
        self.newest = max(self.newest, job_id)

    @property
    def counted(self) -> Counter[Key]:
        return self.true + self.duplicate_again


class Client:
    """A session that outlives its connections."""

    def __init__(
        self,
        crowd: Crowd,
        port: Callable[[], int],
        books: Books,
        name: str,
        framing: str,
        seed: str,
    ) -> None:
        self.crowd = crowd
        self.port = port
        self.books = books
        self.name = name
        self.framing = framing
        self.job: dict[str, Any] = {}
        self.stopping = False
        #: What has no answer yet: id -> (job, nonce, whether it was sent before).
        self.unanswered: dict[int, tuple[dict[str, Any], str, bool]] = {}
        self._next_id = 1
        self._random = random.Random(seed)
        self.connection: _Connection | None = None
        self.ready = False
        self.connect()

    def connect(self) -> None:
        self.ready = False
        self.connection = _Connection(self)

    def authorized(self) -> None:
        """A new connection stands: send again what was not answered."""
        self.ready = True
        again, self.unanswered = self.unanswered, {}
        for job, nonce, _ in again.values():
            self.books.resent += 1
            self._send(job, nonce, True)

    def new_job(self, job: dict[str, Any], first_of_connection: bool) -> None:
        job_id = job["job_id"]
        self.books.job(job_id, job["server_nonce"])
        before = self.job.get("job_id", 0)
        grows = job_id >= before if first_of_connection else job_id > before
        self.books.differences.unless(grows, f"{self.name}: job {job_id} after job {before}")
        self.job = job

    def submit(self) -> None:
        """Submit something new, if a connection stands."""
        if self.ready and self.job and not self.stopping:
            self.books.submitted += 1
            self._send(self.job, f"{self._random.getrandbits(96):024x}", False)

    def _send(self, job: dict[str, Any], nonce: str, again: bool) -> None:
        self._next_id += 1
        self.unanswered[self._next_id] = (job, nonce, again)
        assert self.connection is not None
        self.connection.send(submission(self._next_id, job, nonce))

    def answered(self, message: dict[str, Any]) -> None:
        pending = self.unanswered.pop(message["id"], None)
        if pending is None:
            self.books.differences.add(f"{self.name}: an answer to nothing: {message}")
            return
        job, nonce, again = pending
        key = (self.name, job["job_id"], nonce)
        error = message.get("error")
        if message["result"] is True:
            self.books.true[key] += 1
            self.books.true_again += again
        elif error == "Duplicate submission" and again:
            self.books.duplicate_again[key] += 1
        elif error == "Temporarily unavailable":
            # Not counted, and the nonce is free again. It may have been sent before,
            # so it stays one that is sent again.
            self.books.retried += 1
            self._send(job, nonce, again)
        else:
            self.books.other[str(error)] += 1
            self.books.differences.add(
                f"{key}: answered {message}, {'sent again' if again else 'sent once'}"
            )

    def lost(self) -> None:
        """The connection is gone: come back a little later."""
        self.books.reconnects += 1
        self.ready = False
        self.connection = None
        self.crowd.call_later(self._random.uniform(0.02, 0.2), self.connect)


class _Connection(Peer):
    def __init__(self, client: Client) -> None:
        self._client = client
        self._jobs = 0
        Peer.__init__(self, client.crowd, client.port(), client.framing)

    def on_connected(self) -> None:
        self.send({"id": 1, "method": "authorize", "params": {"username": self._client.name}})

    def on_item(self, item: Item) -> None:
        if not isinstance(item, bytes):
            return  # the close of the framing `frame`; the end of the connection follows
        message = decode(item)
        if message.get("method") == "job":
            self._jobs += 1
            self._client.new_job(message["params"], self._jobs == 1)
        elif message.get("id") == 1:
            assert message == {"id": 1, "result": True}, message
            self._client.authorized()
        elif message.get("id") is not None:
            self._client.answered(message)

    def on_ended(self, reason: str) -> None:
        self._client.lost()


class Killer(threading.Thread):
    """Kills the daemon at random moments and starts it again, on the same port and data."""

    def __init__(
        self, daemon: RunningDaemon, books: Books, kills: int, seed: int, longest: float
    ) -> None:
        threading.Thread.__init__(self, daemon=True)
        self._daemon = daemon
        self._books = books
        self._kills = kills
        self._random = random.Random(seed)
        self._longest = longest
        self.moments: list[float] = []
        self.restarts: list[float] = []
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self._kills):
                moment = self._random.uniform(0.2, self._longest)
                time.sleep(moment)
                self._daemon.kill()
                self.moments.append(moment)
                self._books.differences.count += self._complain()
                self._books.floor = self._books.newest
                began = time.monotonic()
                self._start()
                self.restarts.append(time.monotonic() - began)
            time.sleep(self._longest / 2)
        except BaseException as error:
            self.problem = error

    def _start(self) -> None:
        try:
            self._daemon.start()
        except StartFailed as error:
            # One of our own clients may have been given the port for a moment.
            if "cannot listen" not in str(error):
                raise
            time.sleep(0.5)
            self._daemon.start()

    def _complain(self) -> int:
        found = complaints(self._daemon)
        self._books.differences.texts += found[:3]
        return len(found)


class Report:
    """What a run found."""

    def __init__(self, killer: Killer, books: Books, seconds: float) -> None:
        self.books = books
        self.seconds = seconds
        self.kills = len(killer.moments)
        self.slowest_start = max(killer.restarts, default=0.0)
        self.in_table = self.in_log = self.jobs_kept = self.batches = 0

    @property
    def differences(self) -> Differences:
        return self.books.differences

    def lines(self) -> list[str]:
        books = self.books
        return [
            f"kills                                {self.kills}",
            f"seconds                              {self.seconds:.1f}",
            f"slowest start after a kill           {self.slowest_start:.2f} s",
            f"jobs seen                            {len(books.nonces)}",
            f"connections lost or refused          {books.reconnects}",
            f"submissions                          {books.submitted}",
            f"sent again after a kill              {books.resent}",
            f"answered true                        {sum(books.true.values())}",
            f"  of these, sent again               {books.true_again}",
            f"sent again and counted before        {sum(books.duplicate_again.values())}",
            f"Temporarily unavailable, sent again  {books.retried}",
            f"other answers                        {dict(books.other)}",
            f"sum of submission_count              {self.in_table}",
            f"submissions in the log               {self.in_log} in {self.batches} batches",
            f"differences                          {self.differences.count}",
            *(f"  {text}" for text in self.differences.texts),
        ]


def compare(data: Path, report: Report) -> None:
    """Compare what the clients were told with what the daemon kept."""
    books, wrong = report.books, report.differences
    told = books.counted
    for key, times in told.items():
        wrong.unless(times == 1, f"{key}: answered as counted {times} times")
    logged: Counter[Key] = Counter()
    batches: Counter[str] = Counter()
    with sqlite3.connect(data / "log.sqlite") as log:
        for (body,) in log.execute("SELECT body FROM entries"):
            batch = decode_batch(body)
            batches[batch.batch] += 1
            rows = zip(batch.usernames, batch.job_ids, batch.client_nonces, strict=True)
            logged.update(rows)
        (buried,) = log.execute("SELECT count(*) FROM dead_letters").fetchone()
    report.in_log, report.batches = sum(logged.values()), len(batches)
    wrong.unless(not buried, f"{buried} dead letters")
    by_user = Counter((split_username(name)[0], job, nonce) for name, job, nonce in logged)
    for what, times in [*logged.items(), *by_user.items(), *batches.items()]:
        wrong.unless(times == 1, f"{what}: {times} times in the log")
    for key in told.keys() - logged.keys():
        wrong.add(f"{key}: answered as counted, and not in the log")
    for key in logged.keys() - told.keys():
        wrong.add(f"{key}: in the log, and not answered as counted")
    _compare_counts(data, report, told)


def _compare_counts(data: Path, report: Report, told: Counter[Key]) -> None:
    """Compare the tables of counts with what the clients were told."""
    wrong = report.differences
    users = Counter(split_username(name)[0] for name, _, _ in told.elements())
    workers = Counter(split_username(name) for name, _, _ in told.elements())
    with sqlite3.connect(data / "store.sqlite") as store:
        table = dict(
            store.execute("SELECT username, sum(submission_count) FROM submissions GROUP BY 1")
        )
        by_worker = {
            (user, worker): count
            for user, worker, count in store.execute(
                "SELECT username, worker, sum(submission_count) FROM worker_submissions"
                " GROUP BY 1, 2"
            )
        }
        jobs = dict(store.execute("SELECT job_id, server_nonce FROM job_history"))
    report.in_table = sum(table.values())
    wrong.unless(report.in_table == report.in_log, "the log and the table have different totals")
    for user in table.keys() | users.keys():
        wrong.unless(
            table.get(user, 0) == users[user],
            f"{user}: {table.get(user, 0)} in the table, {users[user]} answered as counted",
        )
    named = {key: count for key, count in workers.items() if key[1]}
    kept = {key: count for key, count in by_worker.items() if key[1]}
    wrong.unless(named == kept, f"workers: {kept} in the table, {named} answered as counted")
    report.jobs_kept = len(jobs)
    for job_id, nonce in jobs.items():
        seen = report.books.nonces.get(job_id, nonce)
        wrong.unless(seen == nonce, f"job {job_id}: kept with {nonce}, given out with {seen}")


def session_name(number: int) -> str:
    """Return the name of a client: several sessions of each user, two in three workers."""
    user = f"u{number % USERS}"
    kind = number // USERS % 3
    return f"{user}.rig{kind}" if kind else user


def run(
    *, clients: int, rate: float, kills: int, seed: int, interval: str = "2s", longest: float = 3.0
) -> Report:
    """Do all of it; returns what was found. ``longest`` is the most between two kills."""
    books = Books()
    began = time.monotonic()
    flags = (*UNLIMITED, f"--interval={interval}", "--log-level=info")
    with RunningDaemon(*flags) as daemon, Crowd() as crowd:
        members = [
            Client(
                crowd,
                lambda: daemon.port,
                books,
                session_name(i),
                list(FRAMINGS)[i % 3],
                f"{seed}/{i}",
            )
            for i in range(clients)
        ]
        for number, member in enumerate(members):
            _submit_often(crowd, member, 1 / rate, number / clients / rate)
        killer = Killer(daemon, books, kills, seed, longest)
        killer.start()
        while killer.is_alive():
            crowd.turn()
        if killer.problem is not None:
            raise killer.problem
        for member in members:
            member.stopping = True
        answered = crowd.run(lambda: not any(m.unanswered for m in members), 30)
        left = sum(len(m.unanswered) for m in members)
        books.differences.unless(answered, f"{left} submissions were never answered")
        status = daemon.stop()
        books.differences.unless(status == 0, f"the daemon ended with status {status}")
        for text in complaints(daemon):
            books.differences.add(text)
        report = Report(killer, books, time.monotonic() - began)
        compare(daemon.data, report)
    return report


def _submit_often(crowd: Crowd, client: Client, every: float, first: float) -> None:
    def again() -> None:
        if not client.stopping:
            client.submit()
            crowd.call_later(every, again)

    crowd.call_later(first, again)


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5.0, help="submissions a second of each")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--interval", default="2s", help="time between jobs")
    parser.add_argument("--longest", type=float, default=3.0, help="most seconds between kills")
    arguments = parser.parse_args()
    print(f"seed                                 {arguments.seed}", flush=True)
    report = run(**vars(arguments))
    print("\n".join(report.lines()))
    return 1 if report.differences.count else 0


if __name__ == "__main__":
    sys.exit(main())
