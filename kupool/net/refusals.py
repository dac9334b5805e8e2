"""Count refusals and limit their log lines, so that a flood of them does not fill the log."""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.net.networks import network_of
from kupool.timing.summaries import Summaries

#: Seconds between two log lines for the same reason, and the same address where there is one.
PERIOD = 60.0

#: Most addresses with log lines of their own in such a time; others are logged together.
MAX_ADDRESSES = 1000

#: What the log calls addresses without lines of their own, and a peer without an address.
OTHERS = "other addresses"
LOCAL = "a local socket"

#: Most characters of a name in the log.
SHOWN = 64

#: A reason, and the address or an empty text for refusals that have none.
_Key = tuple[str, str]


class Refusals:
    """Counts refusals by reason; logs the first at once, and then a summary each minute.

    Refusals of an address have lines for the address.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        #: Number of refusals by reason.
        self.counts: Counter[str] = Counter()
        self._users: dict[_Key, str] = {}
        self._summaries: Summaries[_Key] = Summaries(clock, PERIOD, self._say)

    def note(self, reason: str, host: str | None = None, user: str = "") -> bool:
        """Count a refusal; ``reason`` is one of a few texts that say what was refused and why.

        ``host`` is the address that was refused, empty for a local socket. Returns whether it was
        logged, so that the caller can log details at the same time.
        """
        self.counts[reason] += 1
        key = (reason, "" if host is None else network_of(host) or LOCAL)
        known = self._summaries
        if host is not None and key not in known and len(known) >= MAX_ADDRESSES:
            key = (reason, OTHERS)
        if user:
            self._users[key] = user
        return self._summaries.note(key)

    def _say(self, key: _Key, count: int) -> None:
        reason, remote = key
        user = self._users.pop(key, "")
        total = self.counts[reason]
        if not remote:
            self._log.warn(
                "Refused: {reason}: {count}, {total} since the start",
                reason=reason,
                count=count,
                total=total,
            )
            return
        # The address comes first: what peers choose, as a name, cannot pass for it.
        self._log.warn(
            "Refused {remote}: {reason}: {count}, {total} of all addresses since the start"
            + (", the last was user {username!r}" if user else ""),
            remote=remote,
            reason=reason,
            count=count,
            total=total,
            **({"username": user[:SHOWN]} if user else {}),
        )

    def stop(self) -> None:
        """Log the refusals that are not logged yet, and stop the timers."""
        self._summaries.stop()


__all__ = ["LOCAL", "MAX_ADDRESSES", "OTHERS", "PERIOD", "SHOWN", "Refusals"]
