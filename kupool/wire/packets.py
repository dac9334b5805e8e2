"""Numbered messages, and the error for messages that are too large."""

from __future__ import annotations

from kupool.wire.splitters import Tlv

#: The payload limit of a codec without a limit; larger than any length.
UNLIMITED = 2**63 - 1

#: Ids are 32 bits wide.
MAX_MESSAGE_ID = 2**32 - 1


def check_id(message_id: int) -> None:
    """Raise :class:`ValueError` for an id that does not fit into 32 bits."""
    if not 0 <= message_id <= MAX_MESSAGE_ID:
        raise ValueError(f"message id {message_id} is not from 0 to {MAX_MESSAGE_ID}")


class MessageTooLarge(ValueError):
    """A message to be encoded is over the limit of its codec; reading never raises it."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"too large message data: {size} bytes, at most {limit}")
        self.size = size
        self.limit = limit


class NumberedMessage:
    """A message to be sent: an id and its data; both may be set.

    ``length`` is the length of the data. Raises :class:`ValueError` for an id that does not
    fit into 32 bits.
    """

    __slots__ = ("_id", "data")

    def __init__(self, message_id: int = 0, data: bytes = b"") -> None:
        self.message_id = message_id
        self.data = data

    @property
    def message_id(self) -> int:
        """The id, which says what the message is about."""
        return self._id

    @message_id.setter
    def message_id(self, message_id: int) -> None:
        check_id(message_id)
        self._id = message_id

    @property
    def length(self) -> int:
        """The length of the data, in bytes."""
        return len(self.data)

    @property
    def item(self) -> Tlv:
        """The message as a splitter returns it."""
        return Tlv(self._id, self.data)

    def __repr__(self) -> str:
        return f"NumberedMessage({self._id}, {self.data!r})"


__all__ = ["MAX_MESSAGE_ID", "UNLIMITED", "MessageTooLarge", "NumberedMessage", "check_id"]
