"""What a channel sends to its subscriptions, encoded once for each encoding and framing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

from kupool.live.interfaces import LiveEncoding
from kupool.live.publications import ClientDetails, PublicationPriority, PublishedRecord
from kupool.session.publication import Publication
from kupool.wire.framing import Framing

#: Returns the payload of a message in an encoding.
_Encode = Callable[[LiveEncoding], bytes]


class EncodedOnce:
    """The bytes of one message, by encoding and framing."""

    __slots__ = ("_bytes", "_encode")

    def __init__(self, encode: _Encode) -> None:
        self._encode = encode
        self._bytes: dict[object, bytes] = {}

    def get(self, encoding: LiveEncoding, framing: Framing) -> bytes:
        """Return the bytes; raises what encoding raises."""
        key = (encoding, framing.encode)
        data = self._bytes.get(key)
        if data is None:
            data = self._bytes[key] = framing.encode(self._encode(encoding))
        return data


class FannedRecord(Publication):
    """A publication on its way to the subscriptions of a channel.

    It moves a subscription from the position ``previous`` to ``at``: offsets, or running numbers in
    a channel without history. ``reached`` counts the subscriptions that were given it, and
    ``failed`` those that raised.
    """

    __slots__ = ("at", "encoded", "failed", "previous", "reached", "record")

    def __init__(self, channel: str, record: PublishedRecord, previous: int, at: int) -> None:
        super().__init__(b"")
        self.record = record
        self.previous = previous
        self.at = at
        self.reached = self.failed = 0
        self.encoded = EncodedOnce(lambda encoding: encoding.publication(channel, record))

    @property
    def urgent(self) -> bool:
        """Whether it is an emergency, for which there is room where others are dropped."""
        return self.record.priority == PublicationPriority.EMERGENCY

    def send_all(
        self,
        recipients: Iterable[Any],
        *,
        where: Callable[[Any], bool] | None = None,
        changed: Sized = (True,),
        failed: Callable[[Any], object],
    ) -> int:
        """Give it to each subscription; those count themselves what they drop."""
        if where is None:
            changed = ()
        data, encoding, framing = b"", None, None  # the next one usually has the same
        reached = 0
        for subscription in recipients:
            try:
                if changed and where is not None and not where(subscription):
                    continue
                peer = subscription.peer
                if subscription.encoding is not encoding or peer.framing is not framing:
                    data = self.encoded.get(subscription.encoding, peer.framing)
                    encoding, framing = subscription.encoding, peer.framing
                subscription.give(self, data)
                reached += 1
            except BaseException:
                self.failed += 1
                failed(subscription)
        self.reached += reached
        return 0


class FannedNotice(Publication):
    """Tells those who want to know that a client has come, or with ``leaves`` that it has gone."""

    __slots__ = ("_once",)

    def __init__(self, channel: str, details: ClientDetails, *, leaves: bool) -> None:
        super().__init__(b"")
        self._once = EncodedOnce(
            lambda encoding: (
                encoding.leave(channel, details) if leaves else encoding.join(channel, details)
            )
        )

    def send_all(
        self,
        recipients: Iterable[Any],
        *,
        where: Callable[[Any], bool] | None = None,
        changed: Sized = (True,),
        failed: Callable[[Any], object],
    ) -> int:
        """Send it to each subscription that wants to know; returns how many dropped it."""
        dropped = 0
        for subscription in recipients:
            try:
                wanted = subscription.hears_notices
                if wanted and (where is None or not changed or where(subscription)):
                    data = self._once.get(subscription.encoding, subscription.peer.framing)
                    dropped += not subscription.peer.send_event(data)
            except BaseException:
                failed(subscription)
        return dropped


__all__ = ["EncodedOnce", "FannedNotice", "FannedRecord"]
