"""The torture's own view of RabbitMQ: it reads streams, and deletes them."""

from __future__ import annotations

import contextlib
from typing import Any

import pika
from pika.exceptions import ChannelClosedByBroker

from tools.torture_accounts import Stored

#: Entries delivered at once, as none is acknowledged.
_WINDOW = 20_000

_NOT_FOUND = 404


@contextlib.contextmanager
def _connected(url: str) -> Any:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection
    finally:
        connection.close()


def read_stream(url: str, stream: str, start: int) -> list[Stored]:
    """Return the entries of a stream from an offset on; none where there is no stream."""
    with _connected(url) as connection:
        found: list[Stored] = []
        try:
            while some := _read_some(connection, stream, found[-1].offset + 1 if found else start):
                found += some
        except ChannelClosedByBroker as closed:
            if closed.reply_code != _NOT_FOUND:
                raise
        return found


def _read_some(connection: Any, stream: str, start: int) -> list[Stored]:
    """Return up to :data:`_WINDOW` entries; none only at the end."""
    found: list[Stored] = []

    def came(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
        offset = properties.headers["x-stream-offset"]
        if offset >= start:
            found.append(Stored(offset, properties.message_id, body))

    channel = connection.channel()
    channel.basic_qos(prefetch_count=_WINDOW)
    channel.basic_consume(stream, came, arguments={"x-stream-offset": start})
    before = -1
    while len(found) != before:  # each look comes back after what could be delivered
        before = len(found)
        channel.queue_declare(stream, passive=True)
        connection.process_data_events(0.01)
    channel.close()
    return found


def count_messages(url: str, queue: str) -> int:
    """Return how many messages wait in a queue."""
    with _connected(url) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def has_stream(url: str, stream: str) -> bool:
    """Say whether there is such a stream."""
    with _connected(url) as connection:
        try:
            connection.channel().queue_declare(stream, passive=True)
        except ChannelClosedByBroker:
            return False
        return True


def delete_stream(url: str, stream: str) -> None:
    """Delete a stream with all that is in it."""
    with _connected(url) as connection:
        connection.channel().queue_delete(stream)


def make_recorder(url: str, exchange: str, stream: str) -> None:
    """Make a stream of our own that gets whatever is sent to an exchange."""
    with _connected(url) as connection:
        channel = connection.channel()
        channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
        channel.queue_bind(stream, exchange)


__all__ = ["count_messages", "delete_stream", "has_stream", "make_recorder", "read_stream"]
