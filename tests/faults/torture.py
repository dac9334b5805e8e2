"""Hurts the daemon, the broker, PostgreSQL, the disk and the ways between them, for hours.

    python -m tests.faults.torture --seed 1 --rounds 200 [--nodes 3]

Clients submit all the time. In each round one or two faults happen at moments that the
seed decides; then everything is healed, and what the clients were told is compared with
the log, and the log with the counts. Ends with status 1 on any difference: a submission
that counts and is missing, one that counts twice, one that nobody was told of, a count
that the log does not explain, a job id that comes twice, an error that nobody expected.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.faults.crowd import Crowd
from tests.faults.torture_accounts import Accounts, Findings
from tests.faults.torture_faults import Planned, Run, all_faults, plan
from tests.faults.torture_load import Load
from tests.faults.torture_site import Site
from tests.integration.test_commands import kupool
from tests.services import PostgresServer, RabbitCluster, RabbitServer

#: Seconds for everything to be answered, sent and counted once all is healed.
PATIENCE = 90.0

#: Seconds that what is counted may take to be seen.
SETTLING = 20.0


class Torture:
    """All rounds on one site."""

    def __init__(
        self,
        site: Site,
        crowd: Crowd,
        seed: int,
        clients: int,
        rate: float,
        say: Callable[[str], object],
    ) -> None:
        self.site = site
        self.seed = seed
        self.load = Load(crowd, site.to_daemon.port, clients, rate, seed)
        self.accounts: Accounts = site.accounts()
        self.faults = all_faults(site)
        self.done: Counter[str] = Counter()
        self.rounds = self.differences = self.lost = self.double = 0
        self.texts: list[str] = []
        self.seconds = 0.0
        self._crowd = crowd
        self._chance = random.Random(seed)
        self._say = say

    def round(self, forced: str = "") -> None:
        """Do one round; ``forced`` names the fault that happens."""
        began, books = time.monotonic(), self.load.books
        before = (books.submitted, books.answered_true, books.answered_again, self.accounts.in_log)
        planned = plan(self.faults, self._chance, forced)
        if not self._crowd.run(self.load.connected, PATIENCE):
            self._note("clients cannot connect")
        run = Run(self.site, planned, self._chance.uniform(0.1, 0.4))
        self.load.on = True
        run.start()
        while run.is_alive():
            self._crowd.turn()
        self.load.on = False
        if run.problem is not None:
            raise run.problem
        healed = time.monotonic()
        found = self.settle()
        self.rounds += 1
        self.done.update(one.fault.name for one in planned)
        wrong = self._account(found)
        submitted, true, again, logged = (
            now - then
            for now, then in zip(
                (books.submitted, books.answered_true, books.answered_again, self.accounts.in_log),
                before,
                strict=True,
            )
        )
        now = time.monotonic()
        self.seconds += now - began
        self._say(
            f"round {self.rounds:3}  {_shown(planned):64} submitted {submitted:5}  true {true:5}"
            f"  counted before {again:4}  log {logged:5}  differences {wrong}"
            f"  {healed - began:4.1f} + {now - healed:4.1f} s"
        )

    def settle(self) -> Findings:
        """Wait until everything is answered, sent and counted; return what does not agree."""
        if not self._crowd.run(lambda: not self.load.unanswered, PATIENCE):
            self._note(f"{self.load.unanswered} submissions are never answered")
        deadline = time.monotonic() + PATIENCE
        while left := self.site.quiet():
            if time.monotonic() > deadline:
                self._note(f"the daemon is not done: {left}")
                break
            self._crowd.run_for(0.05)
        self.accounts.told(*self.load.take())
        deadline = time.monotonic() + SETTLING
        while True:
            self.accounts.read()
            found = self.accounts.compare()
            if not found or time.monotonic() > deadline:
                return found
            self._crowd.run_for(0.2)

    def finish(self) -> None:
        """Compare everything once more, and with what ``kupool audit`` says."""
        self.accounts.close_round()
        self._account(self.accounts.compare_all())
        audit = kupool("audit", *self.site.audit_flags())
        if (audit.returncode, audit.stdout) != (0, "0 differences\n"):
            self._note(f"kupool audit: {audit.stdout}{audit.stderr}")

    def _account(self, found: Findings) -> int:
        """Note what was found in a round; returns in how much it differs."""
        self.accounts.close_round()
        self.site.look_for_complaints()
        complaints, self.site.complaints = self.site.complaints, []
        books = self.load.books
        texts = [*found.texts, *complaints, *books.differences.texts]
        count = len(found.texts) + len(complaints) + books.differences.count
        books.differences.texts, books.differences.count = [], 0
        self.lost += found.lost
        self.double += found.double
        self.differences += count
        for text in texts[:20]:
            self._show(text)
        return count

    def _note(self, text: str) -> None:
        self.differences += 1
        self._show(text)

    def _show(self, text: str) -> None:
        self.texts.append(text)
        self._say(f"    {text}")

    def summary(self) -> list[str]:
        """Return what all rounds gave, as a table."""
        books, accounts = self.load.books, self.accounts
        kills = ", ".join(f"{name} {number}" for name, number in sorted(self.done.items()))
        rows: list[tuple[str, object]] = [
            ("seed", self.seed),
            ("broker nodes", len(self.site.brokers.nodes)),
            ("rounds", self.rounds),
            ("seconds", f"{self.seconds:.0f}"),
            ("faults", sum(self.done.values())),
            ("faults by kind", kills),
            ("starts of the daemon that failed", self.site.failed_starts),
            ("submissions", books.submitted),
            ("sent again", books.resent),
            ("answered true", books.answered_true),
            ("  of these, sent again", books.true_again),
            ("true, but the answer was lost", books.answered_again),
            ("Temporarily unavailable, sent again", books.retried),
            ("Task does not exist (retired)", books.gone),
            ("connections lost or refused", books.reconnects),
            ("jobs", len(books.nonces)),
            ("submissions in the log", accounts.in_log),
            ("batches in the log", len(accounts.batches)),
            ("  and in it once more", accounts.copies),
            ("sum of submission_count", accounts.in_table),
            ("lost", self.lost),
            ("double", self.double),
            ("differences", self.differences),
        ]
        return [f"{name:36} {value}" for name, value in rows]


def _shown(planned: Sequence[Planned]) -> str:
    return ", ".join(map(str, planned))


def torture(
    site: Site,
    *,
    seed: int,
    rounds: int,
    clients: int = 50,
    rate: float = 500.0,
    forced: Sequence[str] = (),
    say: Callable[[str], object] = lambda line: None,
) -> Torture:
    """Do rounds on a site that is started; ``forced`` names the faults of the first ones.

    ``rate`` is the submissions a second of all clients together; ``say`` gets each line.
    """
    with Crowd() as crowd:
        made = Torture(site, crowd, seed, clients, rate, say)
        for number in range(rounds):
            made.round(forced[number] if number < len(forced) else "")
        made.finish()
        return made


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="of RabbitMQ")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rate", type=float, default=500.0, help="submissions a second of all")
    parser.add_argument(
        "--fault", action="append", default=[], help="of the first rounds, in order"
    )
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)

    # Stopped in whatever way, nothing of it stays behind.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(2))
    say(f"seed {arguments.seed}")
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(PostgresServer())
        broker: RabbitServer | RabbitCluster = (
            RabbitServer() if arguments.nodes == 1 else RabbitCluster(arguments.nodes)
        )
        stack.enter_context(broker)
        site = stack.enter_context(Site(broker, database))
        done = torture(
            site,
            seed=arguments.seed,
            rounds=arguments.rounds,
            clients=arguments.clients,
            rate=arguments.rate,
            forced=arguments.fault,
            say=say,
        )
    print("\n".join(done.summary()))
    return 1 if done.differences else 0


if __name__ == "__main__":
    sys.exit(main())
