"""The channels that there are at the moment, by name.

A channel comes into being when somebody subscribes or publishes to it. It is dropped when nobody is
subscribed and its history is empty. Its position in memory is remembered longer: otherwise a client
that comes back would not know whether it has missed something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kupool.live.channel import ChannelOwner, LiveChannel
from kupool.live.failures import LiveLimitExceeded, UnknownChannel
from kupool.live.history import MemoryHistory
from kupool.live.hub import Hub
from kupool.live.interfaces import IChannelStore
from kupool.live.publications import StreamPosition
from kupool.live.rules import ChannelKind, ChannelRule, ChannelRules, check_channel
from kupool.timing.chunks import in_chunks

#: Seconds between two looks for publications that are too old. A reader never gets those.
SWEEP = 10.0


@dataclass(frozen=True)
class ChannelSources:
    """What channels are made with.

    ``wall`` returns seconds since the epoch, ``make_epoch`` a random text for each new stream.
    ``durable`` makes the store of a durable channel from its rule; without it there is none.
    """

    clock: IReactorTime
    hub: Hub
    wall: Callable[[], float]
    make_epoch: Callable[[], str]
    durable: Callable[[ChannelRule], IChannelStore] | None = None


class EndedStreams:
    """Where streams ended that are not kept, so that they can go on there.

    A client that comes back recovers by such a position, also where nothing was published before
    it left. Those positions are easy to make, so they are kept apart: at most ``most`` of each.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        #: Those of streams with publications and of others, the oldest first.
        self._used: dict[str, StreamPosition] = {}
        self._unused: dict[str, StreamPosition] = {}

    def remember(self, name: str, end: StreamPosition) -> None:
        """Remember the end of a stream; the oldest one is forgotten if there are too many."""
        ends = self._used if end.offset else self._unused
        ends.pop(name, None)
        ends[name] = end
        if len(ends) > self._most:
            del ends[next(iter(ends))]

    def take(self, name: str) -> StreamPosition | None:
        """Forget the end of a stream and return it, if there is one."""
        return self._used.pop(name, None) or self._unused.pop(name, None)


class ChannelTable:
    """The channels, at most ``most`` of them, and as many remembered positions."""

    def __init__(
        self, sources: ChannelSources, rules: ChannelRules, owner: ChannelOwner, *, most: int
    ) -> None:
        self._sources = sources
        self._rules = rules
        self._owner = owner
        self._most = most
        self._channels: dict[str, LiveChannel] = {}
        self._ended = EndedStreams(most)
        self._sweep_call: IDelayedCall | None = None
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[LiveChannel]:
        """Iterate over a snapshot of the channels."""
        return iter(list(self._channels.values()))

    def rule(self, name: str) -> ChannelRule:
        """Return the rule of a channel.

        Raises :class:`InvalidChannelName` and :class:`UnknownChannel`.
        """
        rule = self._rules.of(check_channel(name))
        if rule is None:
            raise UnknownChannel(name)
        return rule

    @property
    def rules(self) -> ChannelRules:
        """The rules of all channels."""
        return self._rules

    def use(self, rules: ChannelRules) -> list[LiveChannel]:
        """Go by other rules; returns the channels that have another one now, or none."""
        self._rules = rules
        return [each for each in self if rules.of(each.name) != each.rule]

    def drop(self, channel: LiveChannel) -> None:
        """Forget a channel, and its history in memory."""
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]

    def find(self, name: str) -> LiveChannel | None:
        """Return a channel, if there is one at the moment."""
        return self._channels.get(name)

    def open(self, name: str) -> LiveChannel:
        """Return a channel, a new one if need be.

        Call :meth:`settle` when it may have become idle. Raises what :meth:`rule` raises, and
        :class:`LiveLimitExceeded`.
        """
        channel = self._channels.get(name)
        if channel is None:
            rule = self.rule(name)
            if len(self._channels) >= self._most:
                raise LiveLimitExceeded(f"there are {self._most} channels already")
            channel = LiveChannel(
                name,
                rule,
                self._sources.hub,
                self._owner,
                wall=self._sources.wall,
                store=self._store(name, rule),
            )
            self._channels[name] = channel
            self._sweep_later()
        return channel

    def settle(self, channel: LiveChannel) -> None:
        """Drop a channel if nobody is subscribed, and its history is empty."""
        if len(channel) or self._channels.get(channel.name) is not channel:
            return
        store = channel.store
        if store is not None and not store.expire():
            return
        del self._channels[channel.name]
        if isinstance(store, MemoryHistory):
            self._ended.remember(channel.name, store.ended_at)

    def stop(self) -> None:
        """Look for old publications no more."""
        if self._sweep_call is not None:
            self._sweep_call.cancel()
            self._sweep_call = None

    def _store(self, name: str, rule: ChannelRule) -> IChannelStore | None:
        if not rule.keeps_history:
            return None
        sources = self._sources
        if rule.kind is ChannelKind.DURABLE:
            if sources.durable is None:
                raise UnknownChannel(name)
            return sources.durable(rule)
        start = self._ended.take(name) or StreamPosition(0, sources.make_epoch())
        return MemoryHistory(
            start,
            sources.clock.seconds,
            sources.wall,
            size=rule.history_size,
            seconds=rule.history_time,
            newest_only=rule.kind is ChannelKind.LATEST,
        )

    # -- old publications

    def _sweep_later(self) -> None:
        if self._sweep_call is None and not self._sweeping and self._channels:
            self._sweep_call = self._sources.clock.callLater(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweep_call, self._sweeping = None, True
        done: Deferred[None] = in_chunks(
            self._sources.clock, self._channels.values(), self._look_at
        )
        done.addCallback(self._swept).addErrback(
            lambda failure: Logger(__name__).failure("Old publications stay", failure)
        )

    def _look_at(self, channel: LiveChannel) -> None:
        if channel.store is not None:
            channel.store.expire()
        self.settle(channel)

    def _swept(self, _: None) -> None:
        self._sweeping = False
        self._sweep_later()


__all__ = ["SWEEP", "ChannelSources", "ChannelTable", "EndedStreams"]
