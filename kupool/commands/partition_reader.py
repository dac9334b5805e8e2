"""Reads partitions of a topic over the HTTP API, one answer after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kupool.commands.api import TIMEOUT, ApiClient

#: The bytes of records in one answer.
MAX_BYTES = 1024 * 1024


class PartitionReader:
    """Reads one partition from a place on.

    ``start`` has ``offset``, ``at`` or ``group``, as the operation ``log.fetch`` takes them.
    """

    def __init__(
        self, api: ApiClient, topic: str, partition: int, start: Mapping[str, object]
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

    def jump(self, offset: int) -> None:
        """Go on at an offset."""
        self._start = {"offset": offset}

    async def fetch(self, wait_ms: int = 0) -> Sequence[Mapping[str, Any]]:
        """Return the records that follow, none at the end; waits for some for so long.

        Raises :class:`ApiRefused` and :class:`ApiAway`; then it may be called again.
        """
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


__all__ = ["PartitionReader", "partitions_of"]
