"""Issue 12: what a worker process has of its parent, and when its end is noticed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server
from kupool.net.workers import child, processes
from kupool.net.workers.pool import WorkerPool, WorkerSettings
from kupool.net.workers.processes import CallFailed, ProcessEnded, Processes
from kupool.net.workers.threads import Threads
from kupool.session.connection import Connection
from tests.integration.test_worker_crews import CrewCase, alive, pid_and, talk, until

ROOT = Path(__file__).parents[2]

#: What ends a program, or a task, where nothing catches it.
ENDINGS: tuple[Callable[[], BaseException], ...] = (
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    CancelledError,
)


def copy_of_this_process(note: str) -> int:
    """Leave a copy of the worker, with all of its descriptors, and write down its id."""
    pid = os.fork()
    if not pid:
        time.sleep(600)
        os._exit(0)
    Path(note).write_text(str(pid))
    return pid


def die_and_leave_a_copy(note: str) -> None:
    copy_of_this_process(note)
    os._exit(3)


def close_the_pipe_of_answers() -> None:
    os.close(child.ANSWERS)
    time.sleep(600)


class Unpicklable:
    def __reduce__(self) -> str:
        raise SystemExit


def leave() -> object:
    raise SystemExit


class Explosive:
    """Its copy is what is wrong with it."""

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return leave, ()


def run_on_as_two() -> int:
    """Both of the two come back."""
    os.fork()
    return os.getpid()


def what_a_program_inherits() -> list[str]:
    """The descriptors of a program that is begun without closing any."""
    script = "import os; print(*sorted(map(int, os.listdir('/proc/self/fd'))))"
    done = subprocess.run(
        [sys.executable, "-c", script], close_fds=False, stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode().split()


def standard_input() -> bytes:
    return subprocess.run(["cat"], stdout=subprocess.PIPE, check=True).stdout


def ask() -> str:
    try:
        return input()
    except EOFError:
        return "nothing there"


def environment() -> dict[str, str]:
    return dict(os.environ)


def end(number: int) -> None:
    raise ENDINGS[number]


class EndTests(CrewCase):
    """The end of a process is noticed, whatever its children do."""

    def note(self) -> str:
        path = Path(self.mktemp()).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)

        def kill() -> None:
            if path.exists():
                os.kill(int(path.read_text()), signal.SIGKILL)

        self.addCleanup(kill)
        return str(path)

    async def test_with_a_call(self) -> None:
        """Issue 12: the call fails, and the next one has another process."""
        crew = self.keep(Processes(reactor, 1))
        with self.assertRaises(ProcessEnded):
            await crew.run(die_and_leave_a_copy, self.note())
        _, value = await crew.run(pid_and, 7)
        self.assertEqual(value, 7)

    async def test_without_a_call(self) -> None:
        """Issue 12: one that is killed while it is idle is not given the next call."""
        crew = self.keep(Processes(reactor, 1))
        await crew.run(copy_of_this_process, self.note())
        pid, _ = await crew.run(pid_and, None)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not crew._idle)
        other, _ = await crew.run(pid_and, None)
        self.assertNotEqual(pid, other)

    async def test_at_the_stop(self) -> None:
        """Issue 12: a stop does not wait for what a function left behind."""
        crew = Processes(reactor, 1)
        await crew.run(copy_of_this_process, self.note())
        self.assertEqual(await crew.stop(), 0)

    async def test_when_it_is_cut_off(self) -> None:
        """Issue 12: nor does one that follows a call that was abandoned."""
        crew = Processes(reactor, 1)
        await crew.run(copy_of_this_process, self.note())
        endless = crew.run(time.sleep, 600)
        endless.cancel()
        with self.assertRaises(CancelledError):
            await endless
        self.assertEqual(await crew.stop(), 0)

    async def test_the_last_answer_is_not_lost(self) -> None:
        """Issue 12: an answer that comes with the end of its process counts."""
        crew = self.keep(Processes(reactor, 1))
        text = "x" * 40_000  # less than a pipe holds, more than one read of the reactor's
        waiting = crew.run(pid_and, text)
        (hand,) = crew._busy
        pid = hand.transport.pid
        # Nothing is read here meanwhile: the answer and the end arrive together.
        hand.transport.pipes[4].stopReading()
        await until(lambda: asleep(pid))
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(await waiting, (pid, text))

    async def test_one_that_can_answer_no_more(self) -> None:
        """Issue 12: it is ended, however long it would go on."""
        crew = self.keep(Processes(reactor, 1))
        call = crew.run(close_the_pipe_of_answers)
        with self.assertRaises(ProcessEnded):
            await call.addTimeout(30.0, reactor)  # type: ignore[arg-type]
        _, value = await crew.run(pid_and, 7)
        self.assertEqual(value, 7)

    async def test_a_copy_that_comes_back(self) -> None:
        """Issue 12: it answers nobody; the worker goes on."""
        crew = self.keep(Processes(reactor, 1))
        pid = await crew.run(run_on_as_two)
        for number in range(5):
            self.assertEqual(await crew.run(pid_and, number), (pid, number))


def asleep(pid: int) -> bool:
    """Whether a process has nothing to do: it waits for its next call."""
    wchan = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return wchan[0] == "S" and alive(pid) and _written(pid)


def _written(pid: int) -> bool:
    """Whether it has written anything but its start: that is when it answered."""
    line = next(s for s in Path(f"/proc/{pid}/io").read_text().split("\n") if "wchar" in s)
    return int(line.split()[1]) > 40_000


class SurroundingsTests(CrewCase):
    """What a function finds around it."""

    async def test_standard_input_is_empty(self) -> None:
        """Issue 12: neither it nor a program that it runs reads the queue of calls, or ours."""
        before = os.dup(0)
        self.addCleanup(os.close, before)
        self.addCleanup(os.dup2, before, 0)
        ours = os.open(__file__, os.O_RDONLY)
        os.dup2(ours, 0)
        os.close(ours)
        crew = self.keep(Processes(reactor, 1))
        self.assertEqual(await crew.run(standard_input), b"")
        self.assertEqual(await crew.run(ask), "nothing there")
        self.assertEqual(await crew.run(pid_and, 1), (await crew.run(os.getpid), 1))

    async def test_programs_have_none_of_our_pipes(self) -> None:
        """Issue 12: also where the descriptors are not closed before."""
        crew = self.keep(Processes(reactor, 1))
        inherited = await crew.run(what_a_program_inherits)
        self.assertEqual(inherited[:3], ["0", "1", "2"])
        self.assertNotIn("4", inherited)  # 3 is what lists them

    def test_the_working_directory_is_not_of_the_path(self) -> None:
        """Issue 12: nor where the parent has it there, as ``python -c`` does."""
        self.patch(sys, "path", ["", *sys.path])
        self.assertNotIn("", child.own_surroundings().path)

    def child_beside_a_spoilt_module(self) -> str:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        (folder / "pickle.py").write_text("raise SystemExit(9)\n")
        program = folder / "child.py"
        program.write_bytes(Path(child.__file__).read_bytes())
        return str(program)

    async def test_nothing_is_imported_from_beside_the_child(self) -> None:
        """Issue 12: a file there may have the name of a module of the standard library."""
        self.patch(processes, "_PROGRAM", self.child_beside_a_spoilt_module())
        crew = self.keep(Processes(reactor, 1))
        self.assertEqual(await crew.run(abs, -1), 1)

    async def test_the_environment_is_the_parents(self) -> None:
        """Issue 12: other programs are not told where ours has its modules."""
        crew = self.keep(Processes(reactor, 1))
        self.assertEqual(
            (await crew.run(environment)).get("PYTHONPATH"), os.environ.get("PYTHONPATH")
        )


class RaisingTests(CrewCase):
    """Issue 12: whatever a function raises is a failure of that call, and of nothing else."""

    async def test_in_a_process(self) -> None:
        crew = self.keep(Processes(reactor, 1))
        pid, _ = await crew.run(pid_and, None)
        for number, ending in enumerate(ENDINGS):
            with self.assertRaises(CallFailed) as caught:
                await crew.run(end, number)
            self.assertIn(ending.__name__, str(caught.exception))
        self.assertEqual(await crew.run(pid_and, None), (pid, None))

    async def test_on_the_way(self) -> None:
        """Arguments that cannot be pickled, and a result whose copy cannot be made."""
        crew = self.keep(Processes(reactor, 1))
        with self.assertRaises(ValueError):
            await crew.run(abs, Unpicklable())
        with self.assertRaises(SystemExit):
            await crew.run(Explosive)
        self.assertEqual(await crew.run(abs, -1), 1)

    async def test_in_a_thread(self) -> None:
        crew = self.keep(Threads(reactor, 1))
        for number, ending in enumerate(ENDINGS):
            with self.assertRaises(ending):  # type: ignore[arg-type]
                await crew.run(end, number)
        self.assertEqual(await crew.run(pid_and, 1), (os.getpid(), 1))

    async def test_behind_a_pool(self) -> None:
        """The peer is answered, the worker takes the next message, the server goes on."""
        threads = self.keep(Threads(reactor, 1))
        processes = self.keep(Processes(reactor, 1))
        pool = WorkerPool(reactor, WorkerSettings(size=1))  # type: ignore[arg-type]
        router = IdRouter()

        def threaded(connection: Connection, number: int, data: bytes) -> bytes:
            raise ENDINGS[number]

        async def processed(connection: Connection, number: int, data: bytes) -> bytes:
            await processes.run(end, number - 100)
            return b"never"

        async def raised(connection: Connection, number: int, data: bytes) -> bytes:
            await threads.run(pid_and, 1)
            raise ENDINGS[number - 200]

        for number in range(len(ENDINGS)):
            router.add(number, threaded, use=[pool, threads])
            router.add(100 + number, processed, use=[pool])
            router.add(200 + number, raised, use=[pool])
        router.add(300, lambda c, n, data: data, use=[pool])
        server = Server(reactor, Observer(router), framing="tlv")
        await server.listen(["127.0.0.1:0"])
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop(timeout=1)))
        port = server.addresses[0].port
        peers = self.keep(Threads(reactor, 1))
        for number in router._routes:
            answer = await peers.run(talk, port, number)
            self.assertIn(b"x" if number == 300 else b'"code":20', answer, number)
        self.assertEqual(sum(router.failures.values()), 3 * len(ENDINGS))
        self.flushLoggedErrors()
        await pool.stop()


class ProgramTests(SynchronousTestCase):
    """Programs that run functions of their own file."""

    source = """
import sys
from typing import NamedTuple
from twisted.internet import task
from kupool.net.workers.processes import Processes

{extra}

class Point(NamedTuple):
    x: int

class Shift:
    def __init__(self, by):
        self.by = by
    def __eq__(self, other):
        return type(other) is type(self) and other.by == self.by

def move(point, shift):
    return Point(point.x + shift.by), shift, sys.argv[1:]

async def main(reactor):
    processes = Processes(reactor, 1)
    try:
        print(await processes.run(move, Point(1), Shift(2)) == (Point(3), Shift(2), ["a"]))
        print(await processes.run(abs, -1))
    finally:
        await processes.stop(1)
"""
    begin = '\nif __name__ == "__main__":\n    task.react(main)\n'

    def folder(self, **files: str) -> Path:
        folder = Path(self.mktemp()).absolute()
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    def run_program(
        self, *arguments: str, cwd: Path, **env: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **env}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def test_a_file(self) -> None:
        """Issue 12: its functions and classes, there and back."""
        folder = self.folder(**{"app.py": self.source.format(extra="") + self.begin})
        done = self.run_program("app.py", "a", cwd=folder)
        self.assertEqual((done.stdout, done.stderr), ("True\n1\n", ""))

    def test_a_module_of_a_package(self) -> None:
        """Issue 12: run with ``-m``, with what it imports from beside it."""
        extra = "from .beside import HERE\n"
        folder = self.folder(
            **{
                "pack/__init__.py": "",
                "pack/beside.py": "HERE = 1\n",
                "pack/__main__.py": self.source.format(extra=extra) + self.begin,
            },
        )
        done = self.run_program("-m", "pack", "a", cwd=folder)
        self.assertEqual((done.stdout, done.stderr), ("True\n1\n", ""))

    def test_one_that_begins_itself(self) -> None:
        """Issue 12: it is told what is missing, instead of beginning processes for ever."""
        folder = self.folder(**{"app.py": self.source.format(extra="") + "\ntask.react(main)\n"})
        done = self.run_program("app.py", "a", cwd=folder)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn('under if __name__ == "__main__":', done.stderr)

    def test_a_file_that_fails_there(self) -> None:
        """Issue 12: that is a failure of the call."""
        extra = 'if __name__ != "__main__":\n    sys.exit("not here")\n'
        folder = self.folder(**{"app.py": self.source.format(extra=extra) + self.begin})
        done = self.run_program("app.py", "a", cwd=folder)
        self.assertIn("CallFailed", done.stderr)
        self.assertIn("SystemExit: not here", done.stderr)

    def test_nothing_is_imported_from_the_working_directory(self) -> None:
        """Issue 12: whatever lies where the daemon was started."""
        spoilt = 'import os; os.write(2, b"imported from the working directory\\n")\n'
        names = ("pickle", "io", "signal", "traceback", "kupool", "queue", "types", "sitecustomize")
        cwd = self.folder(**{f"{name}.py": spoilt for name in names})
        folder = self.folder(**{"app.py": self.source.format(extra="") + self.begin})
        done = self.run_program(str(folder / "app.py"), "a", cwd=cwd)
        self.assertEqual((done.stdout, done.stderr), ("True\n1\n", ""))
