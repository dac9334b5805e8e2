"""Reads partitions of a topic over the HTTP API, one answer after the other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kupool.commands.api import TIMEOUT, ApiClient, ApiRefused
from kupool.commands.console import complain

#: The bytes of records in one answer.
MAX_BYTES = 1024 * 1024


#: What the answer says about a batch that cannot be read.
_UNREADABLE = re.compile(r"\(offset=(\d{1,19}) next=(\d{1,19})\)")


def add_skip_unreadable(parser: Any) -> None:
    """Add the flag for :class:`PartitionReader`."""
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out batches that cannot be read, and say which; without it a partition is not "
        "read on behind one",
    )


def is_unreadable(error: ApiRefused) -> bool:
    """Return whether a refusal is about a batch that cannot be read."""
    return _UNREADABLE.search(error.text) is not None


class PartitionReader:
    """Reads one partition from a place on.

    ``start`` has ``offset``, ``at`` or ``group``, as the operation ``log.fetch`` takes them. With
    ``skip_unreadable`` it leaves out batches that cannot be read, and complains about each.
    """

    def __init__(
        self,
        api: ApiClient,
        topic: str,
        partition: int,
        start: Mapping[str, object],
        *,
        skip_unreadable: bool = False,
    ) -> None:
        self._api = api
        self._topic = topic
        self.partition = partition
        self._start: Mapping[str, object] = start
        #: The offset to read next, and the valid ones, once something was read.
        self.next = self.low = self.high = 0
        #: The offset of the first record that was read.
        self.first = 0
        self._began = False
        self._skip_unreadable = skip_unreadable

    def jump(self, offset: int) -> None:
        """Go on at an offset."""
        self._start = {"offset": offset}

    async def fetch(self, wait_ms: int = 0) -> Sequence[Mapping[str, Any]]:
        """Return the records that follow, none at the end; waits for some for so long.

        Raises :class:`ApiRefused` and :class:`ApiAway`; then it may be called again.
        """
        while True:
            try:
                return await self._fetch(wait_ms)
            except ApiRefused as error:
                found = _UNREADABLE.search(error.text)
                if not self._skip_unreadable or found is None:
                    raise
                complain(f"{error}; left out")
                self.jump(int(found[2]))

    async def _fetch(self, wait_ms: int) -> Sequence[Mapping[str, Any]]:
        params: dict[str, object] = {
            "topic": self._topic,
            "partition": self.partition,
            **self._start,
            "max_bytes": MAX_BYTES,
        }
        if wait_ms:
            params["wait_ms"] = wait_ms
        found = await self._api.read("log.fetch", params, timeout=TIMEOUT + wait_ms / 1000)
        records: Sequence[Mapping[str, Any]] = found["records"]
        self.next, self.low, self.high = found["next"], found["low"], found["high"]
        if not self._began:
            self._began = True
            self.first = records[0]["offset"] if records else self.next
        self.jump(self.next)
        return records


async def partitions_of(api: ApiClient, topic: str, only: int | None) -> list[int]:
    """Return the numbers of a topic's partitions, or only this one."""
    if only is not None:
        return [only]
    found = await api.read("topic.describe", {"topic": topic})
    return [each["partition"] for each in found["partitions"]]


__all__ = ["PartitionReader", "add_skip_unreadable", "is_unreadable", "partitions_of"]
