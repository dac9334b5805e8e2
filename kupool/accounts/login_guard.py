"""Limit failed logins by address and by user.

If an address has used up its failures, or too many passwords were tried for a user, further
logins are told to try again later, before a password costs any thread time. Tokens, and
passwords that were right before, are checked at once and not limited, so an attacker cannot
lock others out. A user is also not locked out of networks where they logged in before.

At most as many logins are checked at the same time as may still fail. The others of that
address wait for them, for a limited time. So guessing in parallel tries no more passwords than
guessing in sequence.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.net.networks import network_of
from kupool.net.refusals import LOCAL, SHOWN, Refusals
from kupool.timing.shared_buckets import SharedBuckets
from kupool.timing.waiting import Waiters

#: Most pairs of a user and a network with a successful login that are remembered.
REMEMBERED = 10_000

#: Most logins of one address, or of one user, that wait for others to be checked.
MAX_WAITING = 1000


class TryAgain(Exception):
    """The login cannot be checked now; try again in ``wait`` seconds, 0 if unknown."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class LoginSettings:
    """How many logins of an address and of a user may fail in a minute; 0 means no limit.

    ``delay`` is the time in seconds before a wrong password is answered. A login waits at most
    ``wait`` seconds for others of its address and its user together.
    """

    address_failures: float = 20.0
    user_failures: float = 100.0
    delay: float = 1.0
    wait: float = 15.0


class _Budget:
    """The allowed failures per key; running checks count as failures until they end."""

    def __init__(self, clock: IReactorTime, a_minute: float, subject: str) -> None:
        self._clock = clock
        self._buckets = SharedBuckets(a_minute / 60.0, max(1.0, a_minute)) if a_minute else None
        self._under_way: Counter[str] = Counter()
        self._waiters: dict[str, Waiters[None]] = {}
        self._subject = subject

    async def enter(self, key: str, deadline: float) -> None:
        """Wait until one more may be checked; raises :class:`TryAgain` if none may.

        ``deadline`` is the time of the clock until which it waits.
        """
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
            waiting = waiters.wait()
            waiting.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock)
            try:
                await waiting
            except TimedOut:
                raise TryAgain(f"others {self._subject} took too long") from None
        self._under_way[key] += 1

    def leave(self, key: str, *, failed: bool) -> None:
        """Record that a check has ended."""
        if failed and self._buckets is not None and key:
            self._buckets.spend(key, self._clock.seconds())
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]
        waiters = self._waiters.pop(key, None)
        if waiters is not None:
            waiters.tell(None)


class LoginGuard:
    """Allows logins to be checked unless too many earlier ones have failed."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, settings: LoginSettings) -> None:
        self.settings = settings
        self._clock = clock
        self._by_network = _Budget(clock, settings.address_failures, "of one address")
        self._by_user = _Budget(clock, settings.user_failures, "for one user")
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()
        #: The refusals by reason; logged at once, then once a minute.
        self.refusals = Refusals(clock)

    async def enter(self, user: str, host: str) -> LoginAttempt:
        """Wait for a turn to check a password; raises :class:`TryAgain`, counted and logged."""
        network = network_of(host)
        known = (user, network) in self._welcome
        deadline = self._clock.seconds() + self.settings.wait
        try:
            await self._by_network.enter(network, deadline)
            try:
                await self._by_user.enter("" if known else user, deadline)
            except TryAgain:
                self._by_network.leave(network, failed=False)
                raise
        except TryAgain as error:
            self.refusals.note(f"login, {error}", host, user)
            raise
        return LoginAttempt(user, host, network, "" if known else user)

    def leave(self, attempt: LoginAttempt, *, failed: bool = False) -> None:
        """Record that a check has ended."""
        self._by_network.leave(attempt.network, failed=failed)
        self._by_user.leave(attempt.budget, failed=failed)

    def succeeded(self, attempt: LoginAttempt) -> None:
        """Remember that a user has logged in from a network."""
        key = attempt.user, attempt.network
        self._welcome[key] = None
        self._welcome.move_to_end(key)
        if len(self._welcome) > REMEMBERED:
            self._welcome.popitem(last=False)

    def refused(self, attempt: LoginAttempt, reason: str) -> None:
        """Count and log a refused login."""
        self.refusals.counts["login"] += 1
        self._log.warn(
            # The address comes first: what peers choose, as a name, cannot pass for it.
            "Login refused from {remote}: user {username!r}: {reason}",
            username=attempt.user[:SHOWN],
            remote=attempt.host or LOCAL,
            reason=reason,
        )


@dataclass(frozen=True)
class LoginAttempt:
    """A login that is being checked; ``budget`` is the user whose failures include it."""

    user: str
    host: str
    network: str
    budget: str


__all__ = ["LoginAttempt", "LoginGuard", "LoginSettings", "TryAgain"]
