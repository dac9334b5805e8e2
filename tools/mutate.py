"""Changes one thing at a time in the core modules, and sees whether a test fails.

    python -m tools.mutate --count 200 --seed 1
    python -m tools.mutate --package pool --count 50 --jobs 2
    python -m tools.mutate --at kupool/pool/judge.py:33

Each mutant is a copy of the tree with one operator, constant, comparison or call changed; the
unit and contract tests of the changed module run on it until one fails. Those that reach the
changed line come first: a run of the tests without a change, under coverage, shows which these are.
A mutant on which all pass has survived, and is printed with its place: a test is missing, or the
change is none, and then it is to stand in `tools/equivalent_mutants.txt` with the reason. A test
that takes a minute counts as failed. The checkout itself is never changed. RabbitMQ and PostgreSQL
are started once where tests need them, unless the environment names some, as
`tests/servers/services.py` says.

Ends with status 1 where a mutant survives that the list does not explain.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from typing import TypeVar

from tests.servers import services
from tools.mutants import Mutant, mutants_of
from tools.reached_lines import ReachedLines, command
from tools.tests_of_modules import TestsOfModules, servers_of

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")

#: The packages of the core.
CORE = ("bus", "log", "pool", "rooms", "session", "stats", "topics", "wire")

#: Seconds that one test may take: nothing is said for so long when it never ends.
PATIENCE = 60.0

#: The same in the run under coverage, which is slower, and tells nothing of a mutant.
UNHURRIED = 600.0

#: The arguments that run tests until one fails.
PYTEST = ("-m", "pytest", "-x", "-p", "no:cacheprovider")

#: Tests that reach a line run first, up to so many.
MOST_FIRST = 300

#: Parts of the run under coverage, for each of those that run at a time.
PARTS = 6

#: Bytes of memory that the tests of one mutant may have: some would take all there is.
MOST_MEMORY = 4 << 30

KILLED, SURVIVED, EQUAL = "killed", "survived", "equivalent"


class TestsFailed(Exception):
    """The tests do not even pass, or cannot run, without a change."""


class Checkout:
    """A copy of the tree of its own, in which one mutant after the other is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self._written = 0

    @contextlib.contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """Have the file changed for as long as this lasts."""
        path = self.folder / mutant.path
        source = path.read_bytes()
        self._write(path, mutant.applied(source))
        try:
            yield
        finally:
            self._write(path, source)

    def _write(self, path: Path, source: bytes) -> None:
        path.write_bytes(source)
        # What Python has compiled goes by size and by seconds: no two may have the same.
        self._written += 1
        os.utime(path, (self._written, self._written))

    def test(
        self,
        tests: Sequence[str],
        command: Sequence[str] = PYTEST,
        patience: float = PATIENCE,
    ) -> tuple[bool | None, str]:
        """Run tests until one fails; returns whether all passed, None if one takes too long.

        The text is the output.
        """
        process = subprocess.Popen(
            [sys.executable, *command, "-v", "--hypothesis-seed=0", *tests],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        resource.prlimit(process.pid, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        try:
            output = _read_to_the_end(process, patience)
            status = process.wait(patience) if output is not None else None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        if output is None or status is None:
            return None, ""
        if status in (4, 5):
            raise TestsFailed(f"pytest did not run {' '.join(tests)}:\n{output[-2000:]}")
        return status == 0, output


def _read_to_the_end(process: subprocess.Popen[bytes], patience: float) -> str | None:
    """The output of a process; None if nothing comes of it for too long."""
    assert process.stdout is not None
    pieces: list[bytes] = []
    while select.select([process.stdout], [], [], patience)[0]:
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            return b"".join(pieces).decode(errors="replace")
        pieces.append(piece)
    return None


@contextlib.contextmanager
def servers(tests: Iterable[str]) -> Iterator[None]:
    """Have the servers that some files of tests need, named in the environment meanwhile."""
    needed = {server for test in tests for server in servers_of(test)}
    named = {}
    if "rabbit" in needed:
        broker = services.rabbit()
        named = {"KUPOOL_TEST_AMQP_URL": broker.url(), "KUPOOL_TEST_AMQP_API": broker.api_url}
    if "postgres" in needed:
        named["KUPOOL_TEST_PG_DSN"] = services.postgres().dsn
    before = dict(os.environ)
    os.environ.update(named)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def side_by_side(
    checkouts: Sequence[Checkout], pieces: Iterable[T], do: Callable[[Checkout, T], None]
) -> None:
    """Do each piece of work in one of the checkouts, in a thread for each.

    Raises what the first piece raises that fails; no further one begins then.
    """
    left: Queue[T] = Queue()
    for piece in pieces:
        left.put(piece)
    problems: list[BaseException] = []

    def work(checkout: Checkout) -> None:
        try:
            while not problems:
                do(checkout, left.get_nowait())
        except Empty:
            pass
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(checkout,)) for checkout in checkouts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def reached_lines(checkouts: Sequence[Checkout], files: Sequence[str]) -> ReachedLines:
    """See which tests of some files reach which lines; raises :class:`TestsFailed` if one fails."""
    base = checkouts[0]
    part = -(-len(files) // (PARTS * len(checkouts))) or 1
    parts = {
        base.folder.with_name(f"reached{at}"): files[at : at + part]
        for at in range(0, len(files), part)
    }

    def measure(_: Checkout, data: Path) -> None:
        # All in one checkout: the data has its paths.
        passed, output = base.test(parts[data], command(data), UNHURRIED)
        if not passed:
            why = output[-2000:] or "nothing was printed for too long"
            raise TestsFailed(f"without any change, {' '.join(parts[data])}:\n{why}")

    side_by_side(checkouts, parts, measure)
    return ReachedLines(base.folder, parts)


class Trial:
    """Some mutants, each tried in one of the copies.

    ``equivalent`` are the lines of the list of those that change no behaviour.
    """

    def __init__(self, mutants: Sequence[Mutant], equivalent: set[str]) -> None:
        self._equivalent = equivalent
        tests = TestsOfModules(ROOT)
        self._tests = {m.path: tests.of(m.path) for m in mutants}
        self._mutants = mutants
        self._sound: set[str] = set()
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.survivors: list[Mutant] = []

    def run(self, jobs: int) -> None:
        """Try all of them, so many at a time."""
        needed = sorted({test for tests in self._tests.values() for test in tests})
        with servers(needed), tempfile.TemporaryDirectory(prefix="mutants-") as name:
            checkouts = [Checkout(Path(name) / f"copy{number}") for number in range(jobs)]
            reached = reached_lines(checkouts, needed)
            side_by_side(checkouts, self._mutants, partial(self._try, reached))

    def _try(self, reached: ReachedLines, checkout: Checkout, mutant: Mutant) -> None:
        if key(mutant) in self._equivalent:
            self._note(mutant, EQUAL, "")
            return
        tests = self._tests[mutant.path]
        if not tests:
            self._note(mutant, SURVIVED, "no tests")
            return
        began = time.monotonic()
        passed: bool | None = True
        with checkout.changed(mutant):
            if first := self._first(reached, mutant):
                passed, output = checkout.test(first)
            if passed:
                passed, output = checkout.test(tests)
        if passed:
            self._note(mutant, SURVIVED, f"{time.monotonic() - began:.0f} s")
            return
        failed = re.search(r"^(?:FAILED|ERROR) ([^: ]+)\S*", output, re.MULTILINE)
        if failed:
            self._require_a_pass(checkout, failed[1])
        self._note(mutant, KILLED, failed[0] if failed else "a test takes too long, or all end")

    def _first(self, reached: ReachedLines, mutant: Mutant) -> list[str]:
        """Return the ids of tests that reach the changed line, the nearest files first."""
        files = self._tests[mutant.path]
        with self._lock:  # the data is in SQLite
            reaching = reached.tests(mutant.path, mutant.line)

        def order(test: str) -> tuple[int, int, str]:
            file = test.partition("::")[0]
            place = files.index(file) if file in files else len(files)
            return len(servers_of(file)), place, test

        return sorted(reaching, key=order)[:MOST_FIRST]

    def _require_a_pass(self, checkout: Checkout, test: str) -> None:
        """See that a file of tests passes without a change."""
        if test not in self._sound:
            passed, output = checkout.test([test])
            if not passed:
                raise TestsFailed(f"{test} fails without any change:\n{output[-2000:]}")
            self._sound.add(test)

    def _note(self, mutant: Mutant, outcome: str, why: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1
            if outcome == SURVIVED:
                self.survivors.append(mutant)
            print(f"{outcome:10} {shown(mutant)}   [{why}]", flush=True)


def key(mutant: Mutant) -> str:
    """How a mutant stands in the list of equivalent ones; lines may move."""
    return f"{mutant.path} | {mutant.statement} | {mutant.change}"


def shown(mutant: Mutant) -> str:
    """The place of a mutant, and the change."""
    return f"{mutant.path}:{mutant.line}  {mutant.change}"


def listed(text: str) -> set[str]:
    """Return the keys in the text of the list: each has its reason in a comment above."""
    lines = (line.strip() for line in text.splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def all_mutants(packages: Sequence[str]) -> list[Mutant]:
    """Return all mutants of some packages, in the order of their paths and lines."""
    return [
        mutant
        for package in packages
        for path in sorted((ROOT / "kupool" / package).rglob("*.py"))
        for mutant in mutants_of(path.relative_to(ROOT).as_posix(), path.read_bytes())
    ]


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="how many mutants")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--package", action="append", choices=CORE, help="of these alone")
    parser.add_argument("--at", action="append", metavar="FILE:LINE", help="all of these lines")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    arguments = parser.parse_args()
    mutants = all_mutants(arguments.package or CORE)
    print(f"seed {arguments.seed}, {len(mutants)} mutants to choose from", flush=True)
    if arguments.at:
        chosen = [m for m in mutants if f"{m.path}:{m.line}" in arguments.at]
    else:
        count = min(arguments.count, len(mutants))
        chosen = random.Random(arguments.seed).sample(mutants, count)
    trial = Trial(chosen, listed(EQUIVALENT.read_text("utf-8")))
    try:
        trial.run(arguments.jobs)
    except TestsFailed as error:
        raise SystemExit(str(error)) from error
    tried = trial.outcomes[KILLED] + trial.outcomes[SURVIVED]
    share = 100 * trial.outcomes[KILLED] / tried if tried else 100.0
    print(f"{dict(trial.outcomes)}: {share:.1f} % of {tried} killed")
    for mutant in trial.survivors:
        print(f"survivor: {mutant.path}:{mutant.line}\n  {key(mutant)}")
    raise SystemExit(1 if trial.survivors else 0)


if __name__ == "__main__":
    main()
