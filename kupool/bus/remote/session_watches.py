"""A session's watches of the members of topics, on the server's side."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kupool.bus.members import SILENCE, STEP_DOWN, TopicMember, TopicWatches
from kupool.bus.remote.messages import MemberEntry, MembersParams, Watched
from kupool.session.connection import Connection
from kupool.wire.messages import encode_request

#: The size limit of the members in one notification, and the number of gone members in it.
PART_BYTES = 32_768
PART = 500


class SessionWatches:
    """The watches of one connection, which the peer has to renew.

    ``silent`` is called when it has not renewed them for :data:`~kupool.bus.members.SILENCE`
    seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        watches: TopicWatches,
        connection: Connection,
        silent: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._watches = watches
        self._connection = connection
        self._silent = silent
        self._topics: dict[str, tuple[Callable[[], None], dict[str, TopicMember]]] = {}
        self._asked = clock.seconds()
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        """Return how many topics are watched."""
        return len(self._topics)

    def __contains__(self, topic: object) -> bool:
        """Return whether a topic is watched."""
        return topic in self._topics

    @property
    def linger(self) -> float:
        """Seconds for which subscribers of the connection stay members if it ends now."""
        return self._asked + SILENCE - self._clock.seconds()

    def watch(self, topic: str) -> Watched:
        """Start or renew the watch of a topic."""
        self._asked = self._clock.seconds()
        if self._timer is not None and self._timer.active():
            self._timer.reset(SILENCE)
        else:
            self._timer = self._clock.callLater(SILENCE, self._silent)
        if topic not in self._topics:
            known: dict[str, TopicMember] = {}
            end = self._watches.watch(topic, lambda members: self._told(topic, known, members))
            self._topics[topic] = end, known
        valid = max(0.0, min(STEP_DOWN, self._watches.lease))
        return Watched(round(valid * 1000, 3))

    def unwatch(self, topic: str) -> None:
        """End the watch of a topic."""
        found = self._topics.pop(topic, None)
        if found is not None:
            found[0]()
        if not self._topics and self._timer is not None and self._timer.active():
            self._timer.cancel()

    def end(self) -> None:
        """End all watches."""
        for topic in list(self._topics):
            self.unwatch(topic)

    def _told(
        self,
        topic: str,
        known: dict[str, TopicMember],
        members: tuple[TopicMember, ...] | None,
    ) -> None:
        if not self._connection.sends:
            return
        if members is None:
            known.clear()
            self._send(MembersParams(topic, known=False))
            return
        there = {member.id: member for member in members}
        gone = [i for i, member in known.items() if there.get(i) != member]
        came = [member for member in members if known.get(member.id) != member]
        known.clear()
        known.update(there)
        parts = list(_parts(topic, came, gone))
        for part in parts[:-1]:
            part.more = True
        for part in parts:
            self._send(part)

    def _send(self, params: MembersParams) -> None:
        self._connection.send(encode_request(None, "members", params))


def _parts(topic: str, came: list[TopicMember], gone: list[str]) -> Iterator[MembersParams]:
    """Yield the changes in notifications that each fit a message, gone members first."""
    while len(gone) > PART:
        yield MembersParams(topic, gone=gone[:PART])
        gone = gone[PART:]
    part = MembersParams(topic, gone=gone, came=[])
    size = PART_BYTES // 2 if gone else 0
    for member in came:
        entry = MemberEntry(member.id, list(member.keys))
        length = len(msgspec.json.encode(entry))
        if part.came and size + length > PART_BYTES:
            yield part
            part, size = MembersParams(topic, came=[]), 0
        part.came.append(entry)
        size += length
    yield part


__all__ = ["SessionWatches"]
