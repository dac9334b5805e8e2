"""The accounts in memory, read again when their file changes.

The file may be away for a moment while something replaces it, or be broken after an edit:
then the last good copy stays in use, and the log says why. Reading happens in a thread,
since the disk may hang.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.accounts.entries import BrokenAccounts, KnownAccounts
from kupool.accounts.file import AccountFile, Fingerprint
from kupool.errors import RequestError
from kupool.net.workers.threads import Threads

#: Seconds between two looks at the file.
LOOK = 1.0

#: Names that a line of the log shows at most.
_SHOWN = 5

#: What no file is.
_NEVER: Fingerprint = (0, 0, 0)


class _Look(NamedTuple):
    """What one look at the file found; ``accounts`` where there was something to read."""

    fingerprint: Fingerprint
    accounts: KnownAccounts | None = None
    problem: str = ""
    open_to_others: bool = False


def _look(file: AccountFile, before: Fingerprint | None, taken: Fingerprint | None) -> _Look:
    """Read the file if it has changed since ``taken``, and is the same as ``before``.

    So a file that is written in place is not read in the middle of that. Blocking. Raises
    :class:`OSError`.
    """
    found = file.fingerprint()
    if found == taken or (found != before and taken is not None):
        return _Look(found)
    try:
        return _Look(found, file.read(), open_to_others=file.open_to_others)
    except BrokenAccounts as error:
        return _Look(found, problem=str(error))


class AccountWatcher:
    """Keeps the accounts of a file in memory.

    Reads the file when it is made, and raises :class:`OSError` where there is none or
    :class:`BrokenAccounts` where no line of it can be read. ``start`` begins to look at it
    each second.
    """

    _log = Logger()

    def __init__(self, reactor: Any, file: AccountFile) -> None:
        first = _look(file, None, None)
        if first.accounts is None:
            raise BrokenAccounts(first.problem)
        self._file = file
        #: What the file was at the last look, and when what is in use was read.
        self._seen: Fingerprint | None = first.fingerprint
        self._taken: Fingerprint | None = first.fingerprint
        self._first = first
        self.accounts = first.accounts
        #: Why the last good copy is in use; empty when the file is.
        self.problem = ""
        self._threads = Threads(reactor, 1, queue=1, most_stuck=1)
        self._looking: Deferred[None] | None = None
        self._looks = LoopingCall(self.look)
        self._looks.clock = reactor

    def start(self) -> None:
        """Begin to look at the file, and name what an operator should know of it."""
        self._remark(self.accounts, self._first.open_to_others)
        self._looks.start(LOOK, now=False).addErrback(
            lambda failure: self._log.failure("The account file is not watched", failure)
        )

    async def stop(self) -> None:
        """Stop looking; waits a second at most for a look that is under way."""
        if self._looks.running:
            self._looks.stop()
        await self._threads.stop(1.0)

    def reread(self) -> Deferred[None]:
        """Read the file now, whether it has changed or not; never fails."""
        self._taken = None
        return self.look()

    def look(self) -> Deferred[None]:
        """Look at the file now, unless a look is under way; never fails."""
        if self._looking is not None:  # the disk hangs: there is no second look beside it
            return succeed(None)
        self._looking = Deferred()
        found = self._threads.run(_look, self._file, self._seen, self._taken)
        found.addCallbacks(self._took, self._failed).addErrback(
            lambda failure: self._log.failure("The account file cannot be taken", failure)
        ).addBoth(self._looked)
        return self._looking or succeed(None)

    def _looked(self, _: object) -> None:
        done, self._looking = self._looking, None
        if done is not None:
            done.callback(None)

    def _took(self, look: _Look) -> None:
        self._seen = look.fingerprint
        if look.problem:
            self._taken = look.fingerprint
            self._keep(look.problem)
        elif look.accounts is not None:
            self._taken = look.fingerprint
            if len(look.accounts.problems) > len(self.accounts.problems):
                self._keep(look.accounts.problems[-1])
            else:
                self._use(look.accounts, look.open_to_others)

    def _use(self, accounts: KnownAccounts, open_to_others: bool) -> None:
        old, self.accounts = set(self.accounts.names), accounts
        new = set(accounts.names)
        self.problem = ""
        self._log.info(
            "Read {count} accounts from {path}: {came} new, {gone} gone",
            count=len(new),
            path=str(self._file.path),
            came=len(new - old),
            gone=len(old - new),
        )
        self._remark(accounts, open_to_others)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, BrokenAccounts | OSError):
            # Whatever comes back in its place is read.
            self._seen, self._taken = None, _NEVER
            self._keep(getattr(error, "strerror", None) or str(error))
        elif not isinstance(error, CancelledError | RequestError):
            # Those two: it ends, or the system has no thread.
            failure.raiseException()

    def _keep(self, why: str) -> None:
        if why != self.problem:
            self._log.error(
                "The account file {path} is not usable: {why}. The copy read before stays in use",
                path=str(self._file.path),
                why=why,
            )
        self.problem = why

    @property
    def concern(self) -> str:
        """Why what is in memory may be old, for ``/ready``; empty where it is not."""
        if not self.problem:
            return ""
        return f"{self._file.path}: {self.problem}; the copy read before stays in use"

    def _remark(self, accounts: KnownAccounts, open_to_others: bool) -> None:
        path = str(self._file.path)
        for problem in accounts.problems[:_SHOWN]:
            self._log.warn("Account file {path}: {problem}", path=path, problem=problem)
        plain = accounts.plain
        if plain:
            more = f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else ""
            self._log.warn(
                "Account file {path} holds passwords in plain text, of {names}{more}. "
                "Hash them with: kupool user hash --file {path}",
                path=path,
                names=", ".join(plain[:_SHOWN]),
                more=more,
            )
        if open_to_others:
            self._log.warn(
                "Other users of this machine can read the account file {path}: chmod 600 {path}",
                path=path,
            )


__all__ = ["LOOK", "AccountWatcher"]
