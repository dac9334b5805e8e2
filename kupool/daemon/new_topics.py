"""The settings of new topics, from those of the daemon."""

from __future__ import annotations

from collections.abc import Iterator

from kupool.settings import NewTopicSettings
from kupool.topics.errors import InvalidTopic
from kupool.topics.settings import MOST_PARTITIONS, TopicSettings


def default_topic(own: NewTopicSettings) -> TopicSettings:
    """Return the settings of a topic whose creator says nothing."""
    return TopicSettings(
        durability=own.durability,
        retention_time=own.retention_time,
        retention_bytes=own.retention_bytes,
        compression=own.compression,
        compression_threshold=own.compression_threshold,
        max_record=own.max_record,
        dedup_window=own.dedup_window,
        dedup_time=own.dedup_time,
    )


def new_topic_problems(own: NewTopicSettings) -> Iterator[tuple[str, str]]:
    """Yield the flat name of a setting that no topic can have, and why."""
    try:
        default_topic(own).check()
    except InvalidTopic as error:
        name, _, reason = str(error).partition(": ")
        yield f"topics_{name}", reason
    if own.max_partitions > MOST_PARTITIONS:
        yield "topics_max_partitions", f"expected 1 to {MOST_PARTITIONS}"


__all__ = ["default_topic", "new_topic_problems"]
