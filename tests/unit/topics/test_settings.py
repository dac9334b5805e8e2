"""The settings and names of topics."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import InvalidTopic
from kupool.topics.settings import TopicSettings, check_change, check_name, settings_of

#: The values that are just valid, and those that are just not.
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "partitions": ([1, 1000], [0, 1001]),
    "durability": (["always", "interval", "os"], ["never", ""]),
    "partitioner": (["fnv1a", "crc32", "round-robin", "random"], ["murmur2"]),
    "retention_time": ([0, 0.5, 1e10], [-1, 1.1e10, float("nan"), float("inf")]),
    "retention_bytes": ([0, 2**62], [-1, 2**62 + 1]),
    "compression": (["none", "gzip", "snappy", "lz4", "zstd"], ["zip"]),
    "compression_threshold": ([0, 2**31], [-1, 2**31 + 1]),
    "max_record": ([1, 16_777_216], [0, 16_777_217]),
    "dedup_window": ([0, 10_000_000], [-1, 10_000_001]),
    "dedup_time": ([0, 0.5, 1e10], [-1, 1.1e10, float("nan")]),
    "replicas": ([0, 1, 99], [-1, 100]),
    "compaction": (["none", "key"], ["keys", ""]),
}


class TopicSettingsTests(SynchronousTestCase):
    """Q-10, Q-11, Q-13, Q-14, Q-20, Q-21, Q-28: the limits of each setting, and defaults."""

    def test_limits(self) -> None:
        self.assertEqual(set(LIMITS), set(TopicSettings.__struct_fields__))
        for name, (valid, invalid) in LIMITS.items():
            for value in valid:
                self.assertEqual(getattr(settings_of({name: value}), name), value)
            for value in invalid:
                with self.assertRaisesRegex(InvalidTopic, f"^{name}: expected .*, not "):
                    settings_of({name: value})

    def test_defaults(self) -> None:
        self.assertEqual(
            msgspec.structs.asdict(settings_of({})),
            {
                "partitions": 1,
                "durability": "always",
                "partitioner": "fnv1a",
                "retention_time": 604_800.0,
                "retention_bytes": 0,
                "compression": "none",
                "compression_threshold": 1024,
                "max_record": 1_048_576,
                "dedup_window": 0,
                "dedup_time": 0.0,
                "replicas": 0,
                "compaction": "none",
            },
        )

    def test_either_window_turns_deduplication_on(self) -> None:
        """Q-23."""
        found = [
            settings_of(values).dedups for values in ({}, {"dedup_window": 1}, {"dedup_time": 0.1})
        ]
        self.assertEqual(found, [False, True, True])

    def test_what_contradicts_compaction(self) -> None:
        """Q-12."""
        self.assertTrue(settings_of({"compaction": "key"}).compacts)
        self.assertFalse(settings_of({}).compacts)
        for other in (
            {"dedup_window": 1},
            {"dedup_time": 1},
            {"retention_bytes": 1},
            {"partitioner": "round-robin"},
            {"partitioner": "random"},
        ):
            with self.assertRaisesRegex(InvalidTopic, f"^compaction: .* {next(iter(other))}"):
                settings_of({"compaction": "key", **other})
            settings_of(other)

    def test_compaction_is_chosen_when_a_topic_is_created(self) -> None:
        """Q-12."""
        plain, compacted = TopicSettings(), TopicSettings(compaction="key")
        check_change(compacted, TopicSettings(compaction="key", retention_time=5))
        for before, after in ((plain, compacted), (compacted, plain)):
            with self.assertRaisesRegex(InvalidTopic, "^compaction: .* create another topic"):
                check_change(before, after)

    def test_what_is_no_setting(self) -> None:
        with self.assertRaisesRegex(InvalidTopic, "^partition: there is no such setting; .* parti"):
            settings_of({"partition": 3})
        with self.assertRaisesRegex(InvalidTopic, "a setting of the topic is wrong: .*partitions"):
            settings_of({"partitions": "3"})

    def test_partitions_only_grow(self) -> None:
        """Q-29."""
        check_change(TopicSettings(partitions=2), TopicSettings(partitions=2))
        check_change(TopicSettings(partitions=2), TopicSettings(partitions=3))
        with self.assertRaises(InvalidTopic):
            check_change(TopicSettings(partitions=2), TopicSettings(partitions=1))

    def test_names(self) -> None:
        """Q-27."""
        for name in ("a", "Z-9_x.y", "...", "a" * 249):
            check_name(name)
        for name in ("", ".", "..", "a" * 250, "a/b", "a b", "ä", "a\n", "a\\b", "a%2fb", "a:b"):
            with self.assertRaisesRegex(InvalidTopic, "is no name of a topic: use 1 to 249"):
                check_name(name)
