"""Compare the keys of applications with the right one, and make those who guess wait.

The right key is never delayed or refused, whoever else guesses from the same address.
"""

from __future__ import annotations

import hmac

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kupool.accounts.login_guard import LoginGuard, LoginSettings

#: How a refused key is counted and logged.
WRONG_KEY = "wrong API key"


class KeyGuard:
    """Limits wrong keys as failed logins are limited, by address.

    Its failures are counted apart from those of passwords: an application with an old key must
    not lock out the users behind its address.
    """

    def __init__(self, clock: IReactorTime, settings: LoginSettings) -> None:
        self._clock = clock
        self._guard = LoginGuard(clock, settings)
        #: The refusals by reason; logged at once, then once a minute.
        self.refusals = self._guard.refusals

    def check(self, given: str, right: str, host: str) -> Deferred[bool]:
        """Say whether a key from an address is the right one; an empty one never is.

        The answer to a wrong key is delayed. Fails with
        :class:`~kupool.accounts.login_guard.TryAgain` if the address has used up its failures.
        """
        return Deferred.fromCoroutine(self._check(given, right, host))

    async def _check(self, given: str, right: str, host: str) -> bool:
        if given and right and hmac.compare_digest(given.encode(), right.encode()):
            return True
        # No user: the failures of the address are counted, and nobody else's.
        self._guard.leave(await self._guard.enter("", host), failed=True)
        self.refusals.note(WRONG_KEY, host)
        if self._guard.settings.delay:
            await deferLater(self._clock, self._guard.settings.delay)
        return False

    def stop(self) -> None:
        """Log the refusals that are not logged yet."""
        self.refusals.stop()


__all__ = ["WRONG_KEY", "KeyGuard"]
