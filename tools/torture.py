"""Hurts the daemon, its clock, its log and its counts, and whatever it needs, for hours.

    python -m tools.torture --engines services --seed 1 --rounds 200 [--nodes 3]
    python -m tools.torture --engines sqlite --seed 1 --rounds 200

Clients submit all the time. In each round one or two faults happen at moments that the
seed decides; then everything is healed, and what the clients were told is compared with
the log, and the log with the counts, and ``kupool audit`` is asked, also with a row that is
false. Ends with status 1 on any difference: a submission that counts and is missing, one that
counts twice, one that nobody was told of, a count that the log does not explain, a job id
that comes twice, an audit that is wrong, an error that nobody expected.

What a fault takes away is known: the log may be moved away, or replaced by an older copy,
when all of it is counted, and the store replaced by an older copy while the log is whole. So
everything that was answered ``true`` must always be counted exactly once.
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

from tests.servers.services import PostgresServer, RabbitCluster, RabbitServer
from tools.crowd import Crowd
from tools.torture_accounts import Accounts, Findings
from tools.torture_audit import Auditor
from tools.torture_faults import Planned, Run, plan
from tools.torture_files import FilesSite
from tools.torture_load import Load
from tools.torture_services import ServicesSite

#: Seconds for everything to be answered, sent and counted once all is healed.
PATIENCE = 300.0

#: Seconds that what is counted may take to be seen.
SETTLING = 20.0

#: How often log and store are copied before a round.
COPIES = 0.25

Site = FilesSite | ServicesSite


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
        audit_every: int,
    ) -> None:
        self.site = site
        self.seed = seed
        self.load = Load(crowd, site.books, site.to_daemon.port, clients, rate, seed)
        self.accounts: Accounts = site.accounts
        self.auditor = Auditor(site, seed)
        self.faults = site.faults()
        self.done: Counter[str] = Counter()
        self.rounds = self.differences = self.lost = self.double = 0
        self.texts: list[str] = []
        self.seconds = 0.0
        self._crowd = crowd
        self._audit_every = audit_every
        self._chance = random.Random(seed)
        self._say = say

    def round(self, forced: str = "") -> None:
        """Do one round; ``forced`` names the fault that happens."""
        began, books = time.monotonic(), self.load.books
        before = (books.submitted, books.answered_true, books.answered_again, self.accounts.in_log)
        planned = plan(self.faults, self._chance, forced)
        if not self._crowd.run(self.load.connected, PATIENCE):
            self._note("clients cannot connect")
        calm, copies = self._chance.uniform(0.1, 0.4), self._chance.random() < COPIES
        run = Run(self.site, planned, calm, copies)
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
        if self._audit_every and not self.rounds % self._audit_every:
            wrong += self._audit()
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
        self._audit()

    def _audit(self) -> int:
        """Ask what ``kupool audit`` says; returns how often it is wrong."""
        wrong = self.auditor.check()
        for text in wrong:
            self._note(text)
        return len(wrong)

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
        if texts:
            for line in self.site.evidence():
                self._say(f"      {line}")
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
            ("engines", self.site.name),
            ("rounds", self.rounds),
            ("seconds", f"{self.seconds:.0f}"),
            ("faults", sum(self.done.values())),
            ("faults by kind", kills),
            ("logs moved, replaced or deleted", accounts.logs_taken),
            ("starts of the daemon that failed", self.site.failed_starts),
            ("  and that a folder made necessary", self.site.restarts),
            ("submissions", books.submitted),
            ("sent again", books.resent),
            ("answered true", books.answered_true),
            ("  of these, sent again", books.true_again),
            ("true, but the answer was lost", books.answered_again),
            ("Temporarily unavailable, sent again", books.retried),
            ("Task does not exist (retired)", books.gone),
            ("true before, and sent again", books.probes),
            ("connections lost or refused", books.reconnects),
            ("jobs", len(books.nonces)),
            ("  whose ids skipped some", books.jumps),
            ("submissions in the log", accounts.in_log),
            ("batches in the log", len(accounts.batches)),
            ("  and in it once more", accounts.copies),
            ("sum of submission_count", accounts.in_table),
            ("lost", self.lost),
            ("double", self.double),
            ("audits", self.auditor.asked),
            ("  by their status", dict(sorted(self.auditor.statuses.items()))),
            ("  of these, with a row that is false", self.auditor.forged),
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
    audit_every: int = 1,
) -> Torture:
    """Do rounds on a site that is started; ``forced`` names the faults of the first ones.

    ``rate`` is the submissions a second of all clients together; ``say`` gets each line.
    After every ``audit_every`` rounds the audit is asked; 0: only at the end.
    """
    with Crowd() as crowd:
        made = Torture(site, crowd, seed, clients, rate, say, audit_every)
        for number in range(rounds):
            made.round(forced[number] if number < len(forced) else "")
        made.finish()
        return made


def _services(stack: contextlib.ExitStack, nodes: int, seed: int) -> ServicesSite:
    """Start RabbitMQ and PostgreSQL, and return a site with them."""
    database = stack.enter_context(PostgresServer())
    broker: RabbitServer | RabbitCluster = RabbitServer() if nodes == 1 else RabbitCluster(nodes)
    stack.enter_context(broker)
    return ServicesSite(broker, database, seed)


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engines", choices=("sqlite", "services"), default="services")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="of RabbitMQ")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rate", type=float, default=500.0, help="submissions a second of all")
    parser.add_argument("--audit-every", type=int, default=1, help="rounds; 0: only at the end")
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
        site: Site
        if arguments.engines == "sqlite":
            site = FilesSite(arguments.seed)
        else:
            site = _services(stack, arguments.nodes, arguments.seed)
        stack.enter_context(site)
        done = torture(
            site,
            seed=arguments.seed,
            rounds=arguments.rounds,
            clients=arguments.clients,
            rate=arguments.rate,
            forced=arguments.fault,
            say=say,
            audit_every=arguments.audit_every,
        )
    print("\n".join(done.summary()))
    return 1 if done.differences else 0


if __name__ == "__main__":
    sys.exit(main())
