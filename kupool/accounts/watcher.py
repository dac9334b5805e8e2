"""Keep the accounts in memory, and reload them when their file changes.

The file may be missing for a moment while it is replaced, or be broken after an edit. Then
the last valid copy stays in use, and the log says why. A thread reads the file, because the
disk may hang.
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

#: Seconds between two checks of the file.
LOOK = 1.0

#: Most names in a log line.
_SHOWN = 5

#: The version of a missing file.
_NEVER: Fingerprint = (0, 0, 0)


class _Look(NamedTuple):
    """The result of one check of the file; ``accounts`` is set if it was read."""

    fingerprint: Fingerprint
    accounts: KnownAccounts | None = None
    problem: str = ""
    open_to_others: bool = False


def _look(file: AccountFile, before: Fingerprint | None, taken: Fingerprint | None) -> _Look:
    """Read the file if it has changed since ``taken``, and is the same as at ``before``.

    So a file is not read while it is being written. Blocking. Raises :class:`OSError`.
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

    The constructor reads the file. It raises :class:`OSError` if there is none, and
    :class:`BrokenAccounts` if no line can be read. After ``start`` it checks the file every
    second.
    """

    _log = Logger()

    def __init__(self, reactor: Any, file: AccountFile) -> None:
        first = _look(file, None, None)
        if first.accounts is None:
            raise BrokenAccounts(first.problem)
        self._file = file
        #: The version of the file at the last check, and that of the accounts in use.
        self._seen: Fingerprint | None = first.fingerprint
        self._taken: Fingerprint | None = first.fingerprint
        self._first = first
        self.accounts = first.accounts
        #: Why an old copy is in use; empty if the current file is.
        self.problem = ""
        self._threads = Threads(reactor, 1, queue=1, most_stuck=1)
        self._looking: Deferred[None] | None = None
        self._looks = LoopingCall(self.look)
        self._looks.clock = reactor

    def start(self) -> None:
        """Start checking the file, and log its problems."""
        self._remark(self.accounts, self._first.open_to_others)
        self._looks.start(LOOK, now=False).addErrback(
            lambda failure: self._log.failure("The account file is not watched", failure)
        )

    async def stop(self) -> None:
        """Stop checking; waits up to a second for a running check."""
        if self._looks.running:
            self._looks.stop()
        await self._threads.stop(1.0)

    def reread(self) -> Deferred[None]:
        """Read the file now, even if it has not changed; never fails."""
        self._taken = None
        return self.look()

    def look(self) -> Deferred[None]:
        """Check the file now, unless a check is running; never fails."""
        if self._looking is not None:  # the disk hangs: do not start a second check
            return succeed(None)
        self._looking = Deferred()
        found = self._threads.run(_look, self._file, self._seen, self._taken)
        found.addCallbacks(self._took, self._failed).addErrback(
            lambda failure: self._log.failure("The account file could not be checked", failure)
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
            # Read whatever replaces it.
            self._seen, self._taken = None, _NEVER
            self._keep(getattr(error, "strerror", None) or str(error))
        elif not isinstance(error, CancelledError | RequestError):
            # The pool is stopping, or the system has no thread left.
            failure.raiseException()

    def _keep(self, why: str) -> None:
        if why != self.problem:
            self._log.error(
                "The account file {path} cannot be used: {why}. The previous copy stays in use",
                path=str(self._file.path),
                why=why,
            )
        self.problem = why

    @property
    def concern(self) -> str:
        """Why the accounts in memory may be out of date, for ``/ready``; empty if they are not."""
        if not self.problem:
            return ""
        return f"{self._file.path}: {self.problem}; the previous copy stays in use"

    def _remark(self, accounts: KnownAccounts, open_to_others: bool) -> None:
        path = str(self._file.path)
        for problem in accounts.problems[:_SHOWN]:
            self._log.warn("Account file {path}: {problem}", path=path, problem=problem)
        plain = accounts.plain
        if plain:
            more = f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else ""
            self._log.warn(
                "Account file {path} contains plain-text passwords of {names}{more}. "
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
