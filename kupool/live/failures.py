"""The errors of live channels. Pure.

Each class has a ``name``, which never changes: those who speak to clients translate it.
"""

from __future__ import annotations

#: What clients do, in a sentence.
_ACTIONS = {
    "subscribe": "subscribe to",
    "publish": "publish to",
    "history": "read the history of",
    "presence": "see who is subscribed to",
}


class LiveError(Exception):
    """The base of the errors of live channels; ``temporary`` ones may be tried again."""

    name = "internal"
    temporary = False


class InvalidChannelName(LiveError):
    """The name of a channel is not 1 to 255 printable ASCII characters."""

    name = "invalid_channel"

    def __init__(self, channel: object) -> None:
        super().__init__(
            f"{str(channel)!r:.80} is no name of a channel: use 1 to 255 printable ASCII characters"
        )


class InvalidPublication(LiveError):
    """A publication has no data, too much of it, or wrong fields."""

    name = "invalid_publication"


class InvalidWish(LiveError):
    """What a client asks for cannot be: a wrong filter, limit or position."""

    name = "invalid_request"


class UnknownChannel(LiveError):
    """No rule covers the channel."""

    name = "unknown_channel"

    def __init__(self, channel: str) -> None:
        super().__init__(f"no rule covers channel {channel}: add one with --live-rules")


class ChannelForbidden(LiveError):
    """The client may not do this with the channel."""

    name = "permission_denied"

    def __init__(self, action: str, channel: str) -> None:
        super().__init__(
            f"you may not {_ACTIONS.get(action, action)} channel {channel}: nothing in "
            f"--permissions allows channel.{action}"
        )


class ClientsMayNotPublish(LiveError):
    """No client may publish to the channel."""

    name = "permission_denied"

    def __init__(self, channel: str) -> None:
        super().__init__(
            f"clients may not publish to channel {channel}: its rule needs publish_by_clients=on"
        )


class AlreadySubscribed(LiveError):
    """The client is subscribed to the channel, or is about to be."""

    name = "already_subscribed"

    def __init__(self, channel: str) -> None:
        super().__init__(f"you are subscribed to channel {channel} already")


class LiveLimitExceeded(LiveError):
    """A limit is reached; the text names it."""

    name = "limit_exceeded"


class NotAvailable(LiveError):
    """The channel has no history, or no presence."""

    name = "not_available"

    def __init__(self, what: str, channel: str) -> None:
        option = "presence=on" if what == "presence" else "history_size"
        super().__init__(f"channel {channel} has no {what}: its rule needs {option}")


class UnrecoverablePosition(LiveError):
    """The position is of another epoch of the stream, or behind its end."""

    name = "unrecoverable_position"

    def __init__(self, channel: str) -> None:
        super().__init__(f"channel {channel} has another stream than that of this position")


class HistoryUnavailable(LiveError):
    """The history cannot be written or read now; nothing was published."""

    name = "history_unavailable"
    temporary = True


class SinkUnavailable(HistoryUnavailable):
    """What the channel writes to has failed again and again, so that it is not called for a while.

    ``seconds`` are left until it is tried again.
    """

    name = "sink_unavailable"

    def __init__(self, sink: str, seconds: int) -> None:
        super().__init__(f"{sink} does not work at the moment: try again in {seconds} s")


class TopicUnusable(HistoryUnavailable):
    """The topic of a durable channel does not exist, or others may not write to it."""

    name = "not_available"
    temporary = False


class SubscriptionCancelled(LiveError):
    """The subscription was ended, or its client left, before it began."""

    name = "cancelled"

    def __init__(self, channel: str) -> None:
        super().__init__(f"the subscription to channel {channel} has ended before it began")


__all__ = [
    "AlreadySubscribed",
    "ChannelForbidden",
    "ClientsMayNotPublish",
    "HistoryUnavailable",
    "InvalidChannelName",
    "InvalidPublication",
    "InvalidWish",
    "LiveError",
    "LiveLimitExceeded",
    "NotAvailable",
    "SinkUnavailable",
    "SubscriptionCancelled",
    "TopicUnusable",
    "UnknownChannel",
    "UnrecoverablePosition",
]
