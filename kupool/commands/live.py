"""``kupool live``: look after the topics of durable live channels."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from kupool.commands.api import ApiClient
from kupool.commands.api_flags import add_actions, add_api_parser, say_json
from kupool.commands.console import say
from kupool.commands.log_produce import RecordWriter
from kupool.commands.partition_reader import PartitionReader, add_skip_unreadable, partitions_of
from kupool.commands.progress import counted
from kupool.commands.target import positive
from kupool.topics.repeated import SeenEvents
from kupool.wire.live_extras import decode_extras

#: The event ids that are remembered while a partition is read.
REMEMBERED = 1_000_000

#: The exit status if there are events more than once.
FOUND = 2


def add_parser(subparsers: Any) -> None:
    """Add the command, with a subcommand for each action."""
    actions = add_actions(subparsers, "live", "look after the topics of durable live channels")
    audit = add_api_parser(
        actions,
        "audit",
        "list the events that the topic of a durable channel has more than once; the status is "
        f"{FOUND} if there are any",
        _audit,
    )
    audit.add_argument("topic")
    audit.add_argument("--partition", type=int, metavar="N", help="only this one [all]")
    audit.add_argument(
        "--remember",
        type=positive,
        default=REMEMBERED,
        metavar="N",
        help=f"how many event ids of a partition are remembered [{REMEMBERED:,}]",
    )
    audit.add_argument(
        "--copy-to",
        metavar="TOPIC",
        help="write each event once to this topic, which has to be there, and let the rule of the "
        "channel name it then; a topic itself is never changed",
    )
    add_skip_unreadable(audit)


async def _audit(arguments: argparse.Namespace, api: ApiClient) -> int:
    if arguments.copy_to == arguments.topic:
        raise ValueError("--copy-to: name another topic")
    read = repeated = 0
    for number in await partitions_of(api, arguments.topic, arguments.partition):
        copying = None
        if arguments.copy_to is not None:
            copying = RecordWriter(api, arguments.copy_to, number)
        audit = _Partition(arguments, api, number, copying)
        await audit.read()
        read += audit.records
        repeated += audit.repeated
        if copying is not None:
            copying.report()
    if not arguments.json:
        records = counted(read, "record")
        say(f"Read {records} of {arguments.topic}: {counted(repeated, 'event')} again.")
    return FOUND if repeated else 0


class _Partition:
    """The audit of a partition: what it holds now, from the oldest record on."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        api: ApiClient,
        number: int,
        copying: RecordWriter | None,
    ) -> None:
        self.records = self.repeated = 0
        self._json: bool = arguments.json
        self._number = number
        self._copying = copying
        self._seen = SeenEvents(arguments.remember)
        self._reader = PartitionReader(
            api,
            arguments.topic,
            number,
            {"at": "earliest"},
            skip_unreadable=arguments.skip_unreadable,
        )

    async def read(self) -> None:
        """Read all, and print what is there again."""
        reader, end = self._reader, None
        while end is None or reader.next < end:
            records = await reader.fetch()
            if end is None:
                end = reader.high
            if not records:
                return
            records = [each for each in records if each["offset"] < end]
            once = [each for each in records if not self._again(each)]
            self.records += len(records)
            if self._copying is not None:
                await self._copying.write([_written(each) for each in once])

    def _again(self, record: Mapping[str, Any]) -> bool:
        extras = decode_extras(record.get("headers", {}))
        if extras is None or not extras.event_id:
            return False
        found = self._seen.see(extras.event_id, record["offset"])
        if found is None:
            return False
        self.repeated += 1
        if self._json:
            say_json({"partition": self._number, **found._asdict()})
        else:
            place = f"{self._number}/{found.offset}"
            say(f"{place}  first {self._number}/{found.first}  {found.event_id}")
        return True


def _written(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as it is written to another topic."""
    names = ("value", "key", "headers", "base64", "timestamp")
    return {name: record[name] for name in names if name in record}


__all__ = ["FOUND", "add_parser"]
