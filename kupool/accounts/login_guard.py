"""Failed logins: how many an address and a user may have, and what is said of them.

Guessing is slowed at both ends. An address that has used up its failures, or a user for whom
too many were tried, is told to try again later, before a password costs a thread anything.
What can be checked at once, a token or a password that was right before, is not held up: so
nobody can lock others out. Nor can a user be locked out where they logged in before.

As many are checked at once as may still fail. The others of that address wait for these, so
that guessing many at once tries no more than guessing one after the other.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.net.networks import network_of
from kupool.net.refusals import Refusals
from kupool.timing.shared_buckets import SharedBuckets
from kupool.timing.waiting import Waiters

#: Pairs of a user and a network that are remembered for having logged in.
REMEMBERED = 10_000

#: Logins of one address, or for one user, that wait for others to be checked.
MAX_WAITING = 1000

#: Characters of a name that the log shows.
_SHOWN = 64


class TryAgain(Exception):
    """Whether a user may come in cannot be said now; ``wait`` is how many seconds to stay away,
    0 where nobody knows.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class LoginSettings:
    """How many logins may fail in a minute, of an address and of a user; 0: no limit.

    ``delay`` is the time, in seconds, after which a wrong password is answered.
    """

    address_failures: float = 20.0
    user_failures: float = 100.0
    delay: float = 1.0


class _Budget:
    """The failures that each of many may have, where those under way count until they end."""

    def __init__(self, clock: IReactorTime, a_minute: float, subject: str) -> None:
        self._clock = clock
        self._buckets = SharedBuckets(a_minute / 60.0, max(1.0, a_minute)) if a_minute else None
        self._under_way: Counter[str] = Counter()
        self._waiters: dict[str, Waiters[None]] = {}
        self._subject = subject

    async def enter(self, key: str) -> None:
        """Wait until one more may be checked; raises :class:`TryAgain` where none may."""
        while self._buckets is not None and key:
            level = self._buckets.level(key, self._clock.seconds())
            if level >= self._under_way[key] + 1:
                break
            if not self._under_way[key]:
                wait = self._buckets.wait(key, self._clock.seconds())
                del self._under_way[key]
                raise TryAgain(f"too many failures {self._subject}", wait)
            waiters = self._waiters.setdefault(key, Waiters())
            if len(waiters) >= MAX_WAITING:
                raise TryAgain(f"too many at once {self._subject}")
            await waiters.wait()
        self._under_way[key] += 1

    def leave(self, key: str, *, failed: bool) -> None:
        """One has been checked."""
        if failed and self._buckets is not None and key:
            self._buckets.spend(key, self._clock.seconds())
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]
        waiters = self._waiters.pop(key, None)
        if waiters is not None:
            waiters.tell(None)


class LoginGuard:
    """Lets logins be checked as far as those before them have not failed too often."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, settings: LoginSettings) -> None:
        self.settings = settings
        self._by_network = _Budget(clock, settings.address_failures, "of one address")
        self._by_user = _Budget(clock, settings.user_failures, "for one user")
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()
        #: What was refused, by reason: one line of the log each, then one a minute.
        self.refusals = Refusals(clock)

    async def enter(self, user: str, host: str) -> LoginAttempt:
        """Wait for a turn to check a password; raises :class:`TryAgain`, counted and logged."""
        network = network_of(host)
        known = (user, network) in self._welcome
        try:
            await self._by_network.enter(network)
            try:
                await self._by_user.enter("" if known else user)
            except TryAgain:
                self._by_network.leave(network, failed=False)
                raise
        except TryAgain as error:
            self.refusals.note(f"login, {error}")
            raise
        return LoginAttempt(user, host, network, "" if known else user)

    def leave(self, attempt: LoginAttempt, *, failed: bool = False) -> None:
        """A password was checked, or could not be."""
        self._by_network.leave(attempt.network, failed=failed)
        self._by_user.leave(attempt.budget, failed=failed)

    def succeeded(self, attempt: LoginAttempt) -> None:
        """Remember that a user has logged in there."""
        key = attempt.user, attempt.network
        self._welcome[key] = None
        self._welcome.move_to_end(key)
        if len(self._welcome) > REMEMBERED:
            self._welcome.popitem(last=False)

    def refused(self, attempt: LoginAttempt, reason: str) -> None:
        """Count a login that was refused, and log it."""
        self.refusals.counts["login"] += 1
        self._log.warn(
            "Login refused: user {username!r} from {remote}: {reason}",
            username=attempt.user[:_SHOWN],
            remote=attempt.host or "a local socket",
            reason=reason,
        )


@dataclass(frozen=True)
class LoginAttempt:
    """A login that is being checked; ``budget`` is the user whose failures it counts among."""

    user: str
    host: str
    network: str
    budget: str


__all__ = ["LoginAttempt", "LoginGuard", "LoginSettings", "TryAgain"]
