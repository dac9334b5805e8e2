"""The spool: a local file for entries that a remote log cannot take now.

Entries go directly to the remote log while it accepts them. If it fails or is slow, entries are
written to a file, and sent from there in order once it is available. An entry counts as appended
when either of the two has it.

The remote log may have stored an entry without confirming it. Such an entry is sent again under the
same id, and so are all entries sent after it. So the log may contain an entry more than once, but
its last copy is after the last copy of every earlier entry.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.log import (
    Entry,
    Extent,
    Identity,
    IdentityMismatch,
    ILog,
    ILogReader,
    ISpool,
    ISubscription,
    LogStatus,
    LogUnavailable,
    Mark,
)
from kupool.log.spool_file import SpoolFile
from kupool.timing.doubling import Doubling
from kupool.timing.waiting import after

#: If only this many entries of the file are left to send, new ones wait in memory instead of
#: joining them. Otherwise the file would never be empty while entries keep coming.
HANDOVER = 16

#: The most entries that wait in memory this way.
MOST_HELD = 200


@dataclass(frozen=True)
class SpoolSettings:
    """Limits of a spool.

    ``timeout`` is the time limit of the remote log for an entry whose appender waits,
    ``drain_timeout`` that for an entry that is on disk already. ``in_flight`` entries of the file
    are sent at once. After a failure the next attempt is after ``backoff`` seconds, doubled each
    time up to ``longest_backoff``, less a random part. With ``hold``, entries of the file are sent
    only after the pool of the remote log is known.
    """

    timeout: float = 2.0
    drain_timeout: float = 30.0
    in_flight: int = 64
    backoff: float = 0.1
    longest_backoff: float = 5.0
    hold: bool = False


class _Item:
    """An entry that is being sent, or waits in memory for it."""

    __slots__ = ("body", "done", "entry_id", "position", "sent", "settled", "timer")

    def __init__(self, entry_id: str, body: bytes, position: int = 0) -> None:
        self.entry_id = entry_id
        self.body = body
        #: Its position in the file; 0 if it is not there.
        self.position = position
        #: The Deferreds of appenders that have not been answered.
        self.done: Deferred[None] | None = None
        #: Whether the remote log may have it.
        self.sent = self.settled = False
        self.timer: IDelayedCall | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def answer(self, failure: Exception | None = None) -> None:
        """Answer the appender, if it still waits."""
        done, self.done = self.done, None
        if done is None:
            return
        if failure is None:
            done.callback(None)
        else:
            done.errback(failure)


@implementer(ILog, ISpool)
class SpooledLog:
    """A log that accepts entries even while the log behind it, ``remote``, does not.

    ``jitter`` returns a random number from 0 to 1.
    """

    _log = Logger()

    instant = False

    def __init__(
        self,
        remote: ILog,
        file: SpoolFile,
        clock: IReactorTime,
        settings: SpoolSettings | None = None,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._remote: Any = remote
        self._file = file
        self._clock = clock
        self._settings = settings or SpoolSettings()
        self._jitter = jitter
        self.persistent: bool = self._remote.persistent
        self.positional: bool = self._remote.positional
        #: Whether the pool of the remote log is known.
        self._owned = not self._settings.hold
        self._refusal = ""
        #: Sent entries, from the first unsettled one; entries of the file come before others.
        self._window: deque[_Item] = deque()
        #: Entries that are not in the file, to be sent after all of the file.
        self._held: deque[_Item] = deque()
        #: How many entries are in the file, or being written to it, and not in the window; and the
        #: position of the last entry of the file that was sent.
        self._unsent = self._last_sent = 0
        #: Whether the remote log accepted the last entry sent.
        self._flowing = True
        self._away = ""
        #: Grows with each failure, so that older answers are recognized.
        self._round = 0
        self._reading = self._pumping = False
        #: Whether an entry was refused since there was last room.
        self._full = False
        self._backoffs = Doubling(self._settings.backoff, self._settings.longest_backoff)
        self._backoff = 0.0
        self._retry: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    def open(self) -> Deferred[None]:
        """Open the file and the remote log, and start to send the file's entries."""
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        await self._file.open()
        await self._remote.open()
        self._unsent = self._file.count
        if self._unsent:
            self._flowing = False
            self._log.info("{count} entries are in the spool", count=self._unsent)
            self._pump()

    # -- identity

    def extent(self, known: Identity | None, mark: Mark) -> Deferred[Extent]:
        """Return the extent of the remote log."""
        return self._remote.extent(known, mark)  # type: ignore[no-any-return]

    def identify(self, identity: Identity) -> Deferred[None]:
        """Set the identity, and start to send the file's entries.

        Fails with :class:`kupool.log.IdentityMismatch` if the file's entries are of another pool.
        """
        return Deferred.fromCoroutine(self._identify(identity))

    async def _identify(self, identity: Identity) -> None:
        owner = self._file.pool_id
        if owner and owner != identity.pool_id and self._file.count:
            raise IdentityMismatch(
                f"the {self._file.count} batches in the spool belong to pool {owner}, and log and "
                f"store to pool {identity.pool_id}; put back the spool of this pool, or move this "
                "one away"
            )
        if owner != identity.pool_id:
            await self._file.belong_to(identity.pool_id)
        await self._remote.identify(identity)
        self._owned = True
        self._pump()

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called when the remote log may have been replaced."""
        self._remote.watch(told)

    def refuse(self, reason: str) -> None:
        """Refuse all entries from now on, for a reason; an empty reason ends this."""
        self._refusal = reason
        self._remote.refuse(reason)

    # -- append

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry; fires when the remote log or the file has it.

        Fails with :class:`kupool.log.LogUnavailable` if neither can take it.
        """
        if self._closed is not None or self._refusal:
            return fail(LogUnavailable(self._refusal or "the log is closed"))
        item = _Item(entry_id, body)
        done = item.done = Deferred()
        if self._flowing and not self._unsent and not self._held:
            self._send(item)
        elif self._flowing and (self._held or self._unsent <= HANDOVER):
            self._hold(item)
        elif self._held:
            # The file cannot be written; these entries only waited for it.
            item.answer(LogUnavailable(f"the spool: {self._file.problem}"))
        elif not self._file.has_room(body):
            self._full = True
            item.answer(LogUnavailable("the spool is full"))
        else:
            self._full = False
            self._put([item])
        return done

    def _hold(self, item: _Item) -> None:
        item.timer = self._clock.callLater(self._settings.timeout, self._held_too_long, item)
        self._held.append(item)
        if len(self._held) > MOST_HELD:
            self._put_held()  # otherwise they are sent when the file is empty

    def _held_too_long(self, item: _Item) -> None:
        item.timer = None
        self._put_held()

    def _put_held(self) -> None:
        held, self._held = self._held, deque()
        self._put(held)

    # -- the file

    def _put(self, items: Collection[_Item]) -> None:
        """Write entries to the file, after all that are in it."""
        if not items:
            return
        for item in items:
            item.stop_timer()
        self._unsent += len(items)
        self._file.put([(item.entry_id, item.body) for item in items]).addCallbacks(
            self._was_put, self._not_put, callbackArgs=(items,), errbackArgs=(items,)
        ).addErrback(lambda failure: self._log.failure("The spool failed unexpectedly", failure))

    def _was_put(self, _: object, items: Collection[_Item]) -> None:
        self._pump()
        for item in items:
            item.answer()

    def _not_put(self, failure: Failure, items: Collection[_Item]) -> None:
        self._unsent -= len(items)
        error = LogUnavailable(f"the spool: {failure.getErrorMessage()}")
        for item in items:
            if item.sent and item.done is not None and self._closed is None:
                # The remote log may have the entry, so its failure must not be reported. It stays
                # in memory until one of the two certainly has it.
                self._held.append(item)
            else:
                item.answer(error)
        self._pump()

    # -- the remote log

    def _send(self, item: _Item) -> None:
        self._window.append(item)
        item.sent = True
        item.stop_timer()
        limit = self._settings.drain_timeout if item.position else self._settings.timeout
        item.timer = self._clock.callLater(limit, self._late, item, limit)
        try:
            appended = self._remote.append(item.entry_id, item.body)
        except BaseException:
            appended = fail(Failure())
        appended.addCallbacks(
            self._taken,
            self._refused,
            callbackArgs=(item, self._round),
            errbackArgs=(self._round,),
        ).addErrback(lambda failure: self._log.failure("The spool failed unexpectedly", failure))

    def _taken(self, _: object, item: _Item, round_: int) -> None:
        if round_ != self._round:
            return
        item.settled = True
        item.stop_timer()
        if not self._flowing or self._away:
            self._flowing, self._away, self._backoff, self._full = True, "", 0.0, False
            self._log.info(
                "The log accepts entries again; {n} wait in the spool", n=self._file.count
            )
        position = 0
        while self._window and self._window[0].settled:
            position = self._window.popleft().position or position
        if position:
            self._file.drop(position)
        self._pump()
        item.answer()

    def _refused(self, failure: Failure, round_: int) -> None:
        if round_ == self._round:
            self._lose(failure.getErrorMessage())

    def _late(self, item: _Item, limit: float) -> None:
        item.timer = None
        self._lose(f"no answer within {limit:g} s")

    def _lose(self, reason: str) -> None:
        """Handle the loss of the remote log: entries it did not confirm in order are sent again."""
        if self._flowing:
            self._log.warn(
                "The log is not available, so entries go to the spool: {reason}", reason=reason
            )
        self._away, self._flowing = reason, False
        self._take_back()
        self._backoff = self._backoffs.after(self._backoff)
        delay = self._backoff * (1 - self._jitter() / 2)
        self._retry = self._clock.callLater(delay, self._try_again)

    def _take_back(self) -> None:
        """Write the entries in memory to the file, after all that are in it."""
        self._round += 1
        window, self._window = self._window, deque()
        for item in window:
            item.stop_timer()
        spooled = [item for item in window if item.position]
        if spooled:
            self._last_sent = spooled[0].position - 1
            self._unsent += len(spooled)
        held, self._held = self._held, deque()
        self._put([*(item for item in window if not item.position), *held])

    def _try_again(self) -> None:
        self._retry = None
        self._put_held()
        if not self._unsent:
            self._flowing = True  # the next entry tells
        self._pump()

    def _pump(self) -> None:
        """Send waiting entries: the file's first; after a failure only one entry alone."""
        if self._retry is not None or self._closed is not None or self._pumping or not self._owned:
            return
        if self._unsent:
            room = (self._settings.in_flight if self._flowing else 1) - len(self._window)
            if room > 0 and not self._reading:
                self._reading = True
                self._file.read(self._last_sent, room).addBoth(
                    self._fetched, self._round
                ).addErrback(
                    lambda failure: self._log.failure("The spool failed unexpectedly", failure)
                )
            return
        self._pumping = True  # an immediate answer calls this again
        while self._held and self._retry is None and (self._flowing or not self._window):
            self._send(self._held.popleft())
        self._pumping = False

    def _fetched(self, found: Any, round_: int) -> None:
        if self._closed is not None:
            return
        if isinstance(found, Failure):
            self._reading = False
            if self._retry is None:
                self._lose(f"the spool cannot be read: {found.getErrorMessage()}")
            return
        for entry in found:
            if self._round == round_:
                self._unsent -= 1
                self._last_sent = entry.position
                self._send(_Item(entry.entry_id, entry.body, entry.position))
        self._reading = False
        # If nothing was found, the entries are still being written, and this is called again.
        if found or self._round != round_:
            self._pump()

    # -- calls for one of the two only

    def read_spool(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` waiting entries after a position in the spool."""
        return self._file.read(after, limit)

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries of the remote log after a position."""
        return self._remote.read(after, limit)  # type: ignore[no-any-return]

    def consume(
        self, group: str, consumer: Any, prefetch: int, after: int | None = None
    ) -> Deferred[ISubscription]:
        """Deliver the entries of the remote log that a group has not acknowledged."""
        return self._remote.consume(group, consumer, prefetch, after)  # type: ignore[no-any-return]

    def trim(self, now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        """Drop acknowledged entries of the remote log."""
        return self._remote.trim(now, max_age, max_bytes)  # type: ignore[no-any-return]

    def trimmed(self) -> Deferred[int | None]:
        """Return the newest position that a trim dropped from the remote log."""
        return self._remote.trimmed()  # type: ignore[no-any-return]

    def reader(self) -> ILogReader:
        """Return a reader of the remote log: what waits in the file is not there yet."""
        return self._remote.reader()  # type: ignore[no-any-return]

    def status(self) -> LogStatus:
        """Return the status of the remote log, and the size of the file."""
        found: LogStatus = self._remote.status()
        problem = self._file.problem and f"the spool: {self._file.problem}"
        away = found.problem or self._away
        if self._flowing and (self._held or self._unsent <= HANDOVER):
            # The file is not needed while the remote log accepts entries.
            problem, away = "", away or problem
        return found._replace(
            problem=self._refusal or ("the spool is full" if self._full else problem),
            spooled=self._file.count,
            spooled_since=self._file.since,
            away=away,
        )

    def close(self) -> Deferred[None]:
        """Save unsettled entries, and close; may be called again."""
        if self._closed is None:
            self._closed = Deferred()
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            self._take_back()
            closing = Deferred.fromCoroutine(self._close())
            closing.addErrback(lambda f: self._log.failure("The log could not be closed", f))
            closing.addCallback(self._closed.callback)
        return after(self._closed)

    async def _close(self) -> None:
        if self._file.count:
            self._log.info(
                "{count} entries stay in the spool until the next start", count=self._file.count
            )
        await self._file.close()
        await self._remote.close()


__all__ = ["HANDOVER", "SpoolSettings", "SpooledLog"]
