"""Print the records of a partition from RabbitMQ, with nothing but a plain AMQP client.

``python examples/amqp_consumer.py URL STREAM [OFFSET]``; it ends when nothing comes for two
seconds, and prints the offset to go on at. The stream of partition 0 of the topic ``clicks`` is
``kupool.topic.clicks.0``. docs/log.md, the section about batches, says what a message is.
"""

import sys
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import cramjam
import msgspec
import pika

STRIDE = 65_536  # offsets of one message: its position times this, plus the index of the record
LARGEST = 64 * 1024 * 1024


def records_of(body: bytes) -> tuple[str, list[Any]]:
    """Return the id of a batch and its records, each ``[value, key, headers, timestamp]``.

    Raises ValueError for a message that is no batch.
    """
    if len(body) < 5 or body[0] != 1 or int.from_bytes(body[1:5], "big") != crc32(body[5:]):
        raise ValueError("this is no batch")
    batch_id, time, codec, count, size, payload = msgspec.msgpack.decode(body[5:])
    if size > LARGEST:
        raise ValueError("this is too large")
    if codec != "none":
        plain = bytearray(size)  # a decompressed payload never takes more memory than announced
        getattr(cramjam, codec).decompress_into(payload, plain)
        payload = plain
    records = msgspec.msgpack.decode(payload)
    if len(records) != count:
        raise ValueError("records are missing")
    return batch_id, [[*each[:3], time if each[3] is None else each[3]] for each in records]


def read(url: str, stream: str, start: int) -> Iterator[tuple[int, Any]]:
    """Yield each record of a stream with its offset, from an offset on."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)  # a stream needs it, and acknowledgements
    arguments = {"x-stream-offset": start // STRIDE if start else "first"}
    seen: set[str] = set()
    for method, properties, body in channel.consume(
        stream, arguments=arguments, inactivity_timeout=2
    ):
        if method is None:
            break  # the end for now
        channel.basic_ack(method.delivery_tag)
        position = properties.headers["x-stream-offset"]
        try:
            batch_id, records = records_of(body)
        except ValueError as error:
            print(f"position {position}: {error}", file=sys.stderr)
            continue
        if batch_id in seen:
            continue  # KuPool has sent it again, since the confirm was lost
        seen.add(batch_id)
        for offset, record in enumerate(records, position * STRIDE):
            if offset >= start:  # the broker may begin before that
                yield offset, record
    connection.close()


def main(url: str, stream: str, start: str = "0") -> None:
    """Print all records from an offset on, and where to go on."""
    onward = int(start)
    for offset, (value, key, headers, time) in read(url, stream, onward):
        shown = "-" if key is None else key.decode(errors="replace")
        print(offset, time, shown, value.decode(errors="replace"), *headers.items())
        onward = offset + 1
    print("next:", onward)


if __name__ == "__main__":
    main(*sys.argv[1:])
