"""Gives and checks the sequences of devices, as their events are published to channels.

The sequence of a device is that of one channel. In a durable channel it goes on after a restart:
before the first event of a device, the newest publications of the log tell the last numbers. And
when numbers are missing, the log is asked: somebody else may have written them to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.live.alarms import LiveAlarm, LiveAlarms
from kupool.live.channel import LiveChannel
from kupool.live.interfaces import IChannelStore
from kupool.live.publications import HistoryPart, NewPublication, PublishedRecord
from kupool.live.rules import ChannelKind
from kupool.live.sequences import DeviceSequences, SequenceFault, SequenceFinding
from kupool.timing.waiting import Waiters

#: How many of the newest publications of a durable channel are read.
LOOK_BACK = 500

#: Seconds that the events of devices wait for the log to tell the last numbers.
PATIENCE = 5.0

#: The most devices whose gaps wait to be looked for in the log; others are told at once.
MOST_LOOKED_FOR = 1000

#: A channel and a device.
_Key = tuple[str, str]


class SequencedPublishing:
    """Publishes events of devices with their sequences; up to ``most`` devices are remembered.

    ``counts`` has gaps, and the numbers that are ``missing`` in them, came ``late`` or were found
    in the log (``repaired``), and those that went back (``inversion``).
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, alarms: LiveAlarms, *, most: int) -> None:
        self.sequences = DeviceSequences(most)
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._alarms = alarms
        #: The durable channels whose log was read, and those who wait for that.
        self._learned: set[str] = set()
        self._learning: dict[str, Waiters[None]] = {}
        #: The gaps that are to be looked for, by channel; and the channels where that is under way.
        self._open: dict[str, dict[_Key, SequenceFinding]] = {}
        self._looking: set[str] = set()

    def publish(self, channel: LiveChannel, new: NewPublication) -> Deferred[PublishedRecord]:
        """Publish an event of a device; fires and fails as the channel does."""
        durable = channel.rule.kind is ChannelKind.DURABLE
        if durable and channel.name not in self._learned and channel.store is not None:
            return self._learn(channel.name, channel.store).addCallback(
                lambda _: self._numbered(channel, new)
            )
        return self._numbered(channel, new)

    def shown(self) -> Mapping[str, int]:
        """Return the counts, and how many devices are remembered."""
        names = ("gap", "missing", "late", "repaired", "inversion")
        return {"devices": len(self.sequences), **{name: self.counts[name] for name in names}}

    def _numbered(self, channel: LiveChannel, new: NewPublication) -> Deferred[PublishedRecord]:
        key = (channel.name, new.device)
        if new.sequence:
            finding = self.sequences.take(key, new.sequence, new.merged)
            if finding is not None:
                self._found(channel, key, finding)
        else:
            new = msgspec.structs.replace(new, sequence=self.sequences.next(key))
        return channel.publish(new).addErrback(self._not_published, key, new.sequence)

    def _not_published(self, failure: Failure, key: _Key, number: int) -> Failure:
        self.counts["missing"] += self.sequences.withdraw(key, number)
        return failure

    # -- faults

    def _found(self, channel: LiveChannel, key: _Key, finding: SequenceFinding) -> None:
        self.counts[finding.fault.value] += 1
        if finding.fault is SequenceFault.LATE:
            self.counts["missing"] -= 1
        elif finding.fault is SequenceFault.INVERSION:
            self._tell(key, finding)
        else:
            self.counts["missing"] += finding.last - finding.first + 1
            waiting = self._open.setdefault(channel.name, {})
            durable = channel.rule.kind is ChannelKind.DURABLE
            if channel.store is None or not durable or len(waiting) >= MOST_LOOKED_FOR:
                self._tell(key, finding)
            else:
                first = waiting[key].first if key in waiting else finding.first
                waiting[key] = finding._replace(first=first)
                self._look(channel.name, channel.store)
            if not waiting:
                del self._open[channel.name]

    def _tell(self, key: _Key, finding: SequenceFinding) -> None:
        channel, device = key
        self._alarms.note(
            LiveAlarm.SEQUENCE,
            {
                "channel": channel,
                "device": device,
                "what": finding.fault.value,
                "first": finding.first,
                "last": finding.last,
            },
        )

    # -- the log

    def _learn(self, name: str, store: IChannelStore) -> Deferred[None]:
        """Read the last numbers of devices; fires also if that fails, or takes long."""
        waiters = self._learning.get(name)
        if waiters is None:
            waiters = self._learning[name] = Waiters()
            waiter = waiters.wait()
            self._read(store).addCallbacks(
                self._have_learned,
                self._unread,
                callbackArgs=(name,),
                errbackArgs=(name,),
            ).addErrback(self._failed).addBoth(self._go_on, name)
            return waiter
        return waiters.wait()

    def _go_on(self, _: object, name: str) -> None:
        self._learned.add(name)
        self._learning.pop(name).tell(None)

    def _have_learned(self, part: HistoryPart, name: str) -> None:
        last: dict[str, int] = {}
        for record in part.publications:
            if record.device and record.sequence:
                last[record.device] = record.sequence
        for device, number in last.items():
            self.sequences.learn((name, device), number)

    def _read(self, store: IChannelStore) -> Deferred[HistoryPart]:
        read: Deferred[HistoryPart] = store.newest(LOOK_BACK)
        return read.addTimeout(PATIENCE, self._clock)

    def _unread(self, failure: Failure, name: str) -> None:
        self._log.warn(
            "The sequences of devices in channel {channel} begin anew, as its log cannot be read: "
            "{reason}",
            channel=name,
            reason=failure.getErrorMessage() or "no answer",
        )

    def _look(self, name: str, store: IChannelStore) -> None:
        """Look for what is missing in the log: once for all gaps that there are now."""
        if name in self._looking or name not in self._open:
            return
        self._looking.add(name)
        gaps = self._open.pop(name)
        self._read(store).addCallbacks(
            self._have_read, self._unread, callbackArgs=(name,), errbackArgs=(name,)
        ).addErrback(self._failed).addBoth(self._looked, name, store, gaps)

    def _have_read(self, part: HistoryPart, name: str) -> None:
        for record in part.publications:
            if record.sequence and self.sequences.fill((name, record.device), record.sequence):
                self.counts["repaired"] += 1
                self.counts["missing"] -= 1

    def _looked(
        self, _: object, name: str, store: IChannelStore, gaps: Mapping[_Key, SequenceFinding]
    ) -> None:
        self._looking.discard(name)
        for key, finding in gaps.items():
            for first, last in self.sequences.missing(key):
                if first <= finding.last and last >= finding.first:
                    self._tell(key, SequenceFinding(SequenceFault.GAP, first, last))
        self._look(name, store)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("The log cannot be searched for the events of devices", failure)


__all__ = ["LOOK_BACK", "MOST_LOOKED_FOR", "PATIENCE", "SequencedPublishing"]
