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

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.net.networks import network_of
from kupool.net.refusals import LOCAL, SHOWN, Refusals
from kupool.timing.shared_buckets import SharedBuckets

#: Most pairs of a user and a network with a successful login that are remembered.
REMEMBERED = 10_000

#: Most logins of one address, or of one user, that wait for others to be checked.
MAX_WAITING = 1000

#: Seconds between two of them that are refused because the failures are used up: a thousand at
#: once would delay everybody.
REFUSAL_GAP = 0.005


class TryAgain(Exception):
    """The login cannot be checked now; try again in ``wait`` seconds, 0 if unknown."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class LoginSettings:
    """How many logins of an address and of a user may fail in a minute; 0 means no limit.

    ``at_once`` is the part of these failures that may come at once; the others come back evenly
    over the minute. ``delay`` is the time in seconds before a wrong password is answered. A login
    waits at most ``wait`` seconds for others of its address and its user together.
    """

    address_failures: float = 20.0
    user_failures: float = 100.0
    at_once: float = 0.25
    delay: float = 1.0
    wait: float = 15.0


class _Budget:
    """The allowed failures per key; running checks count as failures until they end.

    Those that wait are let in one at a time, in the order in which they came.
    """

    def __init__(self, clock: IReactorTime, a_minute: float, at_once: float, subject: str) -> None:
        self._clock = clock
        burst = max(1.0, a_minute * at_once)
        self._buckets = SharedBuckets(a_minute / 60.0, burst) if a_minute else None
        self._under_way: Counter[str] = Counter()
        #: Those that wait, by key; a dictionary keeps their order, and any may leave.
        self._waiting: dict[str, dict[Deferred[None], None]] = {}
        self._subject = subject
        #: The keys whose failures are used up while others wait.
        self._spent: dict[str, None] = {}
        self._refusing: IDelayedCall | None = None
        self._letting_in: set[str] = set()

    async def enter(self, key: str, deadline: float) -> None:
        """Wait until one more may be checked; raises :class:`TryAgain` if none may.

        ``deadline`` is the time of the clock until which it waits.
        """
        if key and not self._may(key):
            if not self._under_way[key]:
                raise self._used_up(key)
            await self._turn(key, deadline)
        self._under_way[key] += 1

    def leave(self, key: str, *, failed: bool) -> None:
        """Record that a check has ended."""
        if failed and self._buckets is not None and key:
            self._buckets.spend(key, self._clock.seconds())
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]
        self._let_in(key)

    def _may(self, key: str) -> bool:
        if self._buckets is None:
            return True
        return self._buckets.level(key, self._clock.seconds()) >= self._under_way[key] + 1

    def _used_up(self, key: str) -> TryAgain:
        wait = 0.0 if self._buckets is None else self._buckets.wait(key, self._clock.seconds())
        return TryAgain(f"too many failures {self._subject}", wait)

    async def _turn(self, key: str, deadline: float) -> None:
        waiting = self._waiting.setdefault(key, {})
        if len(waiting) >= MAX_WAITING:
            raise TryAgain(f"too many at once {self._subject}")
        turn: Deferred[None] = Deferred()
        waiting[turn] = None
        turn.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock)
        try:
            await turn
        except TimedOut:
            raise TryAgain(f"others {self._subject} took too long") from None
        finally:
            waiting.pop(turn, None)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    def _let_in(self, key: str) -> None:
        """Let in those whose turn it is; refuse the rest if none may be checked any more."""
        if key in self._letting_in:
            return  # one that was let in has left at once: the loop below goes on
        self._letting_in.add(key)
        while (waiting := self._waiting.get(key)) and self._may(key):
            next(iter(waiting)).callback(None)
        self._letting_in.discard(key)
        if waiting and not self._under_way[key]:
            self._spent[key] = None
            if self._refusing is None:
                self._refusing = self._clock.callLater(0, self._refuse)

    def _refuse(self) -> None:
        """Refuse one that waits in vain, and the next a moment later."""
        self._refusing = None
        key = next(iter(self._spent))
        if (waiting := self._waiting.get(key)) and not self._may(key):
            next(iter(waiting)).errback(self._used_up(key))
        if key not in self._waiting or self._may(key):
            del self._spent[key]
            self._let_in(key)
        if self._spent and self._refusing is None:
            self._refusing = self._clock.callLater(REFUSAL_GAP, self._refuse)


class LoginGuard:
    """Allows logins to be checked unless too many earlier ones have failed."""

    _log = Logger()

    def __init__(self, clock: IReactorTime, settings: LoginSettings) -> None:
        self.settings = settings
        self._clock = clock
        self._by_network = _Budget(
            clock, settings.address_failures, settings.at_once, "of one address"
        )
        self._by_user = _Budget(clock, settings.user_failures, settings.at_once, "for one user")
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
