"""Logins: known passwords are accepted at once, others are checked, and guessing is limited."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.accounts.authenticator import Authenticator, CannotTell
from kupool.accounts.login_guard import LoginGuard, LoginSettings, TryAgain


class Logins:
    """Decides about logins, for all protocols."""

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, authenticator: Authenticator, settings: LoginSettings
    ) -> None:
        self._clock = clock
        self.authenticator = authenticator
        self.guard = LoginGuard(clock, settings)

    def start(self) -> None:
        """Start the checkers."""
        self.authenticator.start()

    async def stop(self) -> None:
        """Stop the checkers, and log the refusals that are not logged yet."""
        self.guard.refusals.stop()
        await self.authenticator.stop()

    def reload(self) -> None:
        """Let the checkers reload their accounts."""
        Deferred.fromCoroutine(self.authenticator.reload()).addErrback(
            lambda failure: self._log.failure("The accounts could not be reloaded", failure)
        )

    def knows(self, user: str, password: str) -> str:
        """Return the role of a user whose password is known to be right; else empty."""
        return self.authenticator.knows(user, password)

    def check(self, user: str, password: str, host: str) -> Deferred[str]:
        """Return the role of a user who logs in from an address; empty if the password is wrong.

        The answer to a wrong password is delayed. Fails with :class:`TryAgain` if the
        password cannot be checked now, or if no login from there or of that user is allowed
        now.
        """
        return Deferred.fromCoroutine(self._check(user, password, host))

    async def _check(self, user: str, password: str, host: str) -> str:
        attempt = await self.guard.enter(user, host)
        role: str | None = None
        try:
            role = await self.authenticator.allowed(user, password)
        except CannotTell as error:
            if (
                self.guard.refusals.note(f"login, {error.kind}", host, user)
                and error.__cause__ is not None
            ):
                self._log.failure("A password could not be checked")
            raise TryAgain(str(error)) from error
        finally:
            self.guard.leave(attempt, failed=role == "")
        if role:
            self.guard.succeeded(attempt)
            return role
        self.guard.refused(attempt, "wrong password or token, or no such user")
        if self.guard.settings.delay:
            await deferLater(self._clock, self.guard.settings.delay)
        return ""


__all__ = ["Logins"]
