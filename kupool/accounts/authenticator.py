"""Check passwords for authorize with Twisted's credential checkers."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface

from kupool.callbacks import called
from kupool.errors import RequestError
from kupool.permissions.roles import WORKER

#: Timeout of a checker, in seconds.
TIMEOUT = 10.0


class NoUsableChecker(ValueError):
    """None of the configured checkers accepts a username and a password."""


class CannotTell(Exception):
    """A checker could not check a password; the client may try again.

    ``kind`` is one of a few texts, for counters.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


class IQuickChecker(Interface):
    """A checker that can verify some passwords at once, and knows the role of users."""

    def owner(token: str) -> tuple[str, str] | None:
        """Return the user and the role of a token; None for one that is not known."""

    def role_of(username: str) -> str:
        """Return the role of an account; empty where there is none."""

    def quick(username: str, password: str) -> str:
        """Return the role of a user whose password or token is known to be right, else empty.

        Never blocks. If the result is empty, ``requestAvatarId`` may still accept the user;
        after that, this method knows the password.
        """


class IRunningChecker(Interface):
    """A checker with background work while the daemon runs."""

    problem = Attribute("Why its accounts may be out of date; empty if they are not.")

    def start() -> None:
        """Start."""

    def stop() -> Awaitable[None]:
        """Stop."""

    def reload() -> Deferred[None]:
        """Reload the accounts; never fails."""


class Authenticator:
    """Asks each checker in turn, until one accepts the user.

    Checkers come from :mod:`twisted.cred.strcred` (``--auth``) or from a program that
    embeds the pool. Each has ``timeout`` seconds. Raises :class:`NoUsableChecker` if no
    checker takes a username and a password.
    """

    def __init__(
        self,
        clock: IReactorTime,
        checkers: Sequence[ICredentialsChecker],
        timeout: float = TIMEOUT,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._checkers: list[Any] = [
            checker for checker in checkers if IUsernamePassword in checker.credentialInterfaces
        ]
        if not self._checkers:
            raise NoUsableChecker("no checker given takes a username and a password")
        self._quick = [c for c in self._checkers if IQuickChecker.providedBy(c)]
        self._running = [c for c in self._checkers if IRunningChecker.providedBy(c)]

    @property
    def problems(self) -> list[str]:
        """Why a checker's accounts may be out of date."""
        return [checker.problem for checker in self._running if checker.problem]

    def start(self) -> None:
        """Start the checkers with background work."""
        for checker in self._running:
            checker.start()

    async def stop(self) -> None:
        """Stop the checkers with background work."""
        for checker in self._running:
            await checker.stop()

    async def reload(self) -> None:
        """Let the checkers reload their accounts."""
        for checker in self._running:
            await checker.reload()

    def knows(self, user: str, password: str | None) -> str:
        """Return the role of a user whose password is known to be right; else empty."""
        found = (checker.quick(user, password or "") for checker in self._quick)
        return next(filter(None, found), "")

    def owner(self, token: str) -> tuple[str, str] | None:
        """Return the user and the role of an account's token; None for one that is not known."""
        found = (checker.owner(token) for checker in self._quick)
        return next((owner for owner in found if owner is not None), None)

    def role_of(self, user: str) -> str:
        """Return the role of an account as it is now; empty where there is none."""
        found = (checker.role_of(user) for checker in self._quick)
        return next(filter(None, found), "")

    async def allowed(self, user: str, password: str | None) -> str:
        """Return the role of a user, or empty if no checker accepts the password.

        Raises :class:`CannotTell`.
        """
        credentials = UsernamePassword(user.encode(), (password or "").encode())
        for checker in self._checkers:
            asked = called(checker.requestAvatarId, credentials)
            asked.addTimeout(self._timeout, self._clock)
            try:
                await asked.addErrback(self._could_not)
            except UnauthorizedLogin:
                continue
            # A checker that is not ours knows no roles.
            return self.knows(user, password) or WORKER
        return ""

    def _could_not(self, failure: Failure) -> Failure:
        if failure.check(UnauthorizedLogin):
            return failure
        if failure.check(TimedOut):
            raise CannotTell(f"a checker has not answered in {self._timeout:g} s")
        if failure.check(RequestError):
            raise CannotTell("too many passwords are waiting for a checker")
        error = failure.value
        raise CannotTell(f"a checker failed, {type(error).__name__}", str(error)) from error


__all__ = [
    "TIMEOUT",
    "Authenticator",
    "CannotTell",
    "IQuickChecker",
    "IRunningChecker",
    "NoUsableChecker",
]
