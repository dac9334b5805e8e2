"""Which daemon owns a database: only one at a time writes to it.

The owner holds a lock as long as its session lasts. Its name is in the table ``owner``, with a term
that each new owner increases. A later daemon finds the lock held, and says by whom. A daemon that
lost its session, for example because it was paused, takes the lock again and compares the term with
its own. Each transaction that writes compares it, too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kupool.storage.clocks import process_started, read_boot_id

#: The first half of the lock's key: "kupo" in ASCII. The other is the schema of the tables.
_LOCK = 0x6B75706F
_SCHEMA = (
    "coalesce((SELECT relnamespace FROM pg_class WHERE oid = to_regclass('schema_version')), "
    "to_regnamespace(current_schema()::text)::oid, 0)::bigint & 2147483647"
)

_TAKE = f"SELECT pg_try_advisory_lock({_LOCK}, ({_SCHEMA})::int)"

#: The session of the server that holds the lock.
_HOLDER = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) "
    f"AND classid = {_LOCK} AND objid = {_SCHEMA} AND objsubid = 2"
)

#: These end a session within some tens of seconds when its daemon or the network is gone silently,
#: or the daemon was stopped within a transaction; the system would take hours. A server that does
#: not know one of them works without it.
_KEEPALIVES = (
    "SELECT set_config(name, given.value, false) FROM (VALUES ('tcp_keepalives_idle', '10'), "
    "('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'), "
    "('tcp_user_timeout', '25000'), ('idle_in_transaction_session_timeout', '20000')) "
    "AS given (name, value) JOIN pg_settings USING (name)"
)

_ROW_OF = (
    "SELECT term, host, pid, boot_id, process_started, "
    "to_char(since, 'YYYY-MM-DD HH24:MI:SS') || ' UTC', released"
)
_ROW = f"{_ROW_OF} FROM owner"
_ROW_AND_SESSION = f"{_ROW_OF}, session FROM owner RIGHT JOIN pg_backend_pid() AS session ON true"

#: The error for connections that do not keep one session of the server.
SWITCHES = (
    "a connection pooler in between switches the sessions of the server; let it pool sessions "
    "(pool_mode = session), or connect without it"
)


class NotOwner(Exception):
    """This daemon may not write to the database; says why."""


class OwnerProcess(NamedTuple):
    """A process of a machine: ``started`` is in seconds since the boot, 0 if unknown."""

    host: str
    pid: int
    boot_id: str
    started: float

    @property
    def gone(self) -> bool:
        """Whether it ran on this machine since its boot, and has certainly ended."""
        here = this_process()
        if not self.boot_id or (self.host, self.boot_id) != (here.host, here.boot_id):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is somebody else's
        started = process_started(Path(f"/proc/{self.pid}/stat"))
        return bool(started and self.started and abs(started - self.started) > 0.5)


def this_process() -> OwnerProcess:
    """Return this process. A container has its own boot id, because its pids are its own."""
    boot_id = read_boot_id()
    try:
        boot_id += f":{os.stat('/proc/self/ns/pid').st_ino}" if boot_id else ""
    except OSError:
        boot_id = ""
    return OwnerProcess(socket.gethostname(), os.getpid(), boot_id, process_started() or 0.0)


class DatabaseOwner(NamedTuple):
    """A daemon that owns or owned a database; ``since`` is a time as text."""

    term: int
    process: OwnerProcess
    since: str
    released: bool

    @property
    def gone(self) -> bool:
        """Whether it released the database, or has certainly ended."""
        return self.released or self.process.gone

    def __str__(self) -> str:
        return f"host {self.process.host}, pid {self.process.pid}, since {self.since}"


class Ownership:
    """The claim of this process to a database, over all its sessions there.

    Raises :class:`NotOwner` if another daemon owns the database.
    """

    def __init__(self, process: OwnerProcess | None = None) -> None:
        self.process = process or this_process()
        #: The term of this process; 0 before it has one.
        self.term = 0
        #: The owner before, None for nobody, and whether it has certainly ended.
        self.previous: DatabaseOwner | None = None
        self.previous_gone = True
        #: Who has taken over; empty while nobody has. It never becomes empty again, because the
        #: other daemon does not know what this process has in memory.
        self.taken_over = ""
        self._backend = 0

    async def begin(
        self, cursor: Any, backend: int, switches: Callable[[], Awaitable[bool]]
    ) -> None:
        """Take the lock for a new session, outside a transaction.

        ``backend`` is the server process according to the connection. ``switches`` finds out
        whether a pooler gives each transaction another session.
        """
        if self.taken_over:
            raise NotOwner(self.taken_over)
        await cursor.execute("SELECT pg_backend_pid()")
        (real,) = cursor.fetchone()
        if real != backend and await switches():
            raise NotOwner(SWITCHES)
        await set_keepalives(cursor)
        await cursor.execute(_TAKE)
        if not cursor.fetchone()[0]:
            await self._explain(cursor)
        await cursor.execute(_HOLDER)
        if (real,) not in cursor.fetchall():
            raise NotOwner(SWITCHES)
        if self.term:
            await self._go_on(cursor)
        self._backend = real

    async def _explain(self, cursor: Any) -> None:
        """Raise the reason why the lock is held."""
        await cursor.execute(_HOLDER)
        holder = cursor.fetchone()
        owner = await read(cursor)
        if self.term and owner is not None:
            self._compare(owner)
            if holder == (self._backend,):
                # The server has not noticed yet that our old connection is gone.
                await cursor.execute("SELECT pg_terminate_backend(%s)", holder)
                raise NotOwner("the session that was lost has not ended yet")
        raise InUse(owner)

    async def _go_on(self, cursor: Any) -> None:
        """Check whether the database is still ours, now that nobody else can take it."""
        await cursor.execute("SELECT to_regclass('owner') IS NOT NULL")
        if cursor.fetchone()[0]:
            owner = await read(cursor)
            if owner is not None:
                self._compare(owner)
            await self._write(cursor, self.term)

    def _compare(self, owner: DatabaseOwner) -> None:
        """Raise if another daemon has taken over. A lower term is from a backup."""
        if owner.term > self.term or (owner.term == self.term and owner.process != self.process):
            self.taken_over = f"another daemon ({owner}) has taken over"
            raise NotOwner(self.taken_over)

    async def claim(self, cursor: Any, retire_jobs: bool) -> DatabaseOwner | None:
        """Record that the database is ours, under a new term; returns the owner before.

        With ``retire_jobs``, the jobs of an owner that may still run are retired for good, as if no
        log reached back to them. Call :meth:`settled` when the transaction is committed.
        """
        previous = await read(cursor, "FOR UPDATE")
        if previous is not None and previous.process != self.process:
            self.previous, self.previous_gone = previous, previous.gone
            if retire_jobs and not self.previous_gone:
                await cursor.execute("UPDATE job_history SET log_position = -1")
        await self._write(cursor, 1 if previous is None else previous.term + 1)
        return previous

    def settled(self, previous: DatabaseOwner | None) -> None:
        """Note that a claim is committed."""
        self.term = 1 if previous is None else previous.term + 1

    async def _write(self, cursor: Any, term: int) -> None:
        await cursor.execute(
            "INSERT INTO owner (only_row, term, host, pid, boot_id, process_started, since, "
            "released) VALUES (1, %s, %s, %s, %s, %s, now() AT TIME ZONE 'UTC', false) "
            "ON CONFLICT (only_row) DO UPDATE SET (term, host, pid, boot_id, process_started, "
            "since, released) = (excluded.term, excluded.host, excluded.pid, excluded.boot_id, "
            "excluded.process_started, CASE owner.term WHEN excluded.term THEN owner.since "
            "ELSE excluded.since END, false)",
            (term, *self.process),
        )

    async def check(self, cursor: Any, hold: bool) -> None:
        """Check in a transaction whether the database is still ours.

        With ``hold``, nobody else takes it before the end of the transaction. The session with the
        lock does not need that.
        """
        if self.taken_over:
            raise NotOwner(self.taken_over)
        await cursor.execute(f"{_ROW} FOR SHARE" if hold else _ROW)
        row = cursor.fetchone()
        if row is not None:
            self._compare(_owner(row))

    async def check_session(self, cursor: Any) -> None:
        """Do the same in the session that holds the lock, and check that it still does."""
        if self.taken_over:
            raise NotOwner(self.taken_over)
        await cursor.execute(_ROW_AND_SESSION)
        *row, backend = cursor.fetchone()
        if row[0] is not None:
            self._compare(_owner(row))
        if backend != self._backend:
            raise NotOwner(SWITCHES)
        if row[0] is None:  # the table was dropped, and made again
            await self._write(cursor, self.term)

    async def release(self, cursor: Any) -> None:
        """Record that this process ends properly and writes no more."""
        await self.check(cursor, hold=False)
        await cursor.execute("UPDATE owner SET released = true WHERE term = %s", (self.term,))


class InUse(NotOwner):
    """A running daemon owns the database; says which, if that is known."""

    def __init__(self, owner: DatabaseOwner | None) -> None:
        who = f" ({owner})" if owner is not None and not owner.released else ""
        super().__init__(
            f"another daemon{who} uses the database; stop it first, or give each its own"
        )
        self.owner = owner


async def read(cursor: Any, lock: str = "") -> DatabaseOwner | None:
    """Return the current or last owner of the database; None if there was none yet."""
    await cursor.execute("SELECT to_regclass('owner') IS NOT NULL")
    if not cursor.fetchone()[0]:
        return None
    await cursor.execute(f"{_ROW} {lock}")
    row = cursor.fetchone()
    return None if row is None else _owner(row)


def _owner(row: Sequence[Any]) -> DatabaseOwner:
    term, *process, since, released = row
    return DatabaseOwner(term, OwnerProcess(*process), since, released)


async def set_keepalives(cursor: Any) -> None:
    """Make the server end the session within some tens of seconds after this process is gone."""
    await cursor.execute(_KEEPALIVES)


def switches_sessions(connect: Callable[[], Any]) -> bool:
    """Say whether two connections may share one session of the server; blocks.

    ``connect`` makes a connection, of psycopg2.
    """
    one, two = connect(), connect()
    try:
        one.autocommit = True
        with one.cursor() as first, two.cursor() as second:
            first.execute("SELECT pg_backend_pid()")
            before = first.fetchone()
            second.execute("SELECT pg_backend_pid()")  # its transaction stays open
            other = second.fetchone()
            first.execute("SELECT pg_backend_pid()")
            return bool(other == before or first.fetchone() != before)
    finally:
        one.close()
        two.close()


__all__ = [
    "DatabaseOwner",
    "InUse",
    "OwnerProcess",
    "Ownership",
    "switches_sessions",
    "this_process",
]
