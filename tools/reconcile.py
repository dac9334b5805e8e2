"""What clients were told, what is in RabbitMQ's stream, and what PostgreSQL counts.

Reads both servers with their own blocking libraries: nothing of the daemon's way to them
is used, so that a fault of it cannot hide itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pika
import psycopg2

from kupool.wire.batches import Batch, decode_batch
from kupool.wire.messages import split_username
from tools.kill9 import Differences
from tools.paced import Told

#: Seconds without another entry after which a stream has been read.
_QUIET = 2.0

_SUM = (
    "SELECT username, extract(epoch FROM timestamp)::bigint, submission_count FROM submissions "
    "ORDER BY username, timestamp"
)


def stream_batches(url: str, queue: str = "kupool_submissions") -> Iterator[Batch]:
    """Yield the batches of the stream beside a queue; one that was sent again comes again."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=500)
        received = channel.consume(
            f"{queue}.stream", arguments={"x-stream-offset": "first"}, inactivity_timeout=_QUIET
        )
        for method, _, body in received:
            if method is None:
                return
            channel.basic_ack(method.delivery_tag)
            yield decode_batch(body)
    finally:
        connection.close()


def counts(dsn: str) -> Counter[tuple[str, int]]:
    """Return the per-minute counts: (user, UTC minute in seconds since the epoch) -> count."""
    connection = psycopg2.connect(dsn, connect_timeout=10)
    try:
        with connection.cursor() as cursor:
            cursor.execute(_SUM)
            return Counter({(user, int(minute)): n for user, minute, n in cursor.fetchall()})
    finally:
        connection.close()


class Compared:
    """The three, side by side."""

    def __init__(
        self,
        told: Sequence[Told],
        batches: Iterable[Batch],
        counted: Counter[tuple[str, int]],
        unsure: int = 0,
    ) -> None:
        """``unsure`` submissions have no answer: so many may be in the log untold."""
        self.differences = Differences()
        self.batches = self.sent_again = self.lost = 0
        minutes: dict[tuple[str, int, str], int] = {}
        by_minute: Counter[tuple[str, int]] = Counter()
        known: dict[str, Batch] = {}
        for batch in batches:
            first = known.setdefault(batch.batch, batch)
            if first is not batch:
                self.sent_again += 1
                self.differences.unless(first == batch, f"{batch.batch}: twice, and not the same")
                continue
            minute = batch.at // 60000 * 60
            rows = zip(batch.usernames, batch.job_ids, batch.client_nonces, strict=True)
            for key in rows:
                self.differences.unless(key not in minutes, f"{key}: twice in the log")
                minutes[key] = minute
                by_minute[split_username(key[0])[0], minute] += 1
        self.batches = len(known)
        self.told, self.logged, self.counted = len(told), len(minutes), sum(counted.values())
        self._compare_told(told, minutes, unsure)
        for row in sorted(by_minute.keys() | counted.keys()):
            self.differences.unless(
                by_minute[row] == counted[row],
                f"{row}: {by_minute[row]} in the log, {counted[row]} counted",
            )

    def _compare_told(
        self, told: Sequence[Told], minutes: dict[tuple[str, int, str], int], unsure: int
    ) -> None:
        for one in told:
            minute = minutes.pop((one.username, one.job_id, one.nonce), None)
            if minute is None:
                self.lost += 1
                self.differences.add(f"{one}: answered true, and not in the log")
            else:
                fits = one.first_minute <= minute <= one.last_minute
                self.differences.unless(fits, f"{one}: in minute {minute}")
        if len(minutes) > unsure:
            for key in list(minutes)[: len(minutes) - unsure]:
                self.differences.add(f"{key}: in the log, and not answered true")

    def lines(self) -> list[str]:
        """Return the comparison as text."""
        return [
            f"answered true                      {self.told}",
            f"in the log                         {self.logged} in {self.batches} batches, "
            f"of which {self.sent_again} came again",
            f"sum of submission_count            {self.counted}",
            f"lost                               {self.lost}",
            f"differences per user and minute    {self.differences.count}",
            *(f"  {text}" for text in self.differences.texts),
        ]
