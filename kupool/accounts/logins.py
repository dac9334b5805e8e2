"""One login: what is known is let in at once, who guesses waits, the others are checked."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.accounts.authenticator import Authenticator, CannotTell
from kupool.accounts.login_guard import LoginGuard, LoginSettings, TryAgain


class Logins:
    """Decides who may come in, for every way there is."""

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
        """Stop the checkers, and log what was refused since the last line about it."""
        self.guard.refusals.stop()
        await self.authenticator.stop()

    def reload(self) -> None:
        """Have the checkers go by what is there now."""
        Deferred.fromCoroutine(self.authenticator.reload()).addErrback(
            lambda failure: self._log.failure("The accounts could not be read again", failure)
        )

    def knows(self, user: str, password: str) -> str:
        """Return the role of a user who may come in by what is known already; else empty."""
        return self.authenticator.knows(user, password)

    def check(self, user: str, password: str, host: str) -> Deferred[str]:
        """Return the role of a user who may come in from an address; empty for one who may not.

        The answer to a wrong password is delayed. Fails with :class:`TryAgain` where nobody
        can tell now, or nobody may try there now.
        """
        return Deferred.fromCoroutine(self._check(user, password, host))

    async def _check(self, user: str, password: str, host: str) -> str:
        attempt = await self.guard.enter(user, host)
        role: str | None = None
        try:
            role = await self.authenticator.allowed(user, password)
        except CannotTell as error:
            if self.guard.refusals.note(f"login, {error.kind}") and error.__cause__ is not None:
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
