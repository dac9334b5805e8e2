"""The settings of new topics, from those of the daemon."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.checks import check
from kupool.daemon.new_topics import default_topic, new_topic_problems
from kupool.settings import NewTopicSettings, SettingError, declared, load
from kupool.topics.compression import CODECS
from kupool.topics.settings import DURABILITIES, TopicSettings


class NewTopicTests(SynchronousTestCase):
    def test_the_defaults_are_those_of_a_topic(self) -> None:
        """Q-67: a daemon without settings makes the topics that the library makes."""
        self.assertEqual(default_topic(NewTopicSettings()), TopicSettings())

    def test_every_setting_gets_there(self) -> None:
        """Q-10, Q-11, Q-13, Q-20, Q-23, Q-67"""
        own = NewTopicSettings(
            durability="interval",
            retention_time=60.0,
            retention_bytes=1000,
            compression="lz4",
            compression_threshold=10,
            max_record=77,
            dedup_window=5,
            dedup_time=6.0,
        )
        made = default_topic(own)
        for name in TopicSettings.__struct_fields__:
            if hasattr(own, name):
                self.assertEqual(getattr(made, name), getattr(own, name), name)
                self.assertNotEqual(getattr(made, name), getattr(TopicSettings(), name), name)

    def test_the_names_are_those_of_topics(self) -> None:
        """Q-67: what a topic takes, the settings take."""
        kinds = {n: f.metadata["kind"].hint for n, f in declared().items()}
        self.assertEqual(kinds["topics_durability"], "|".join(DURABILITIES))
        self.assertEqual(kinds["topics_compression"], "|".join(CODECS))

    def test_what_no_topic_takes(self) -> None:
        """Q-13, Q-14: the start ends with the name of the setting."""
        own = replace(NewTopicSettings(), max_record=2**25, max_partitions=1001)
        self.assertEqual(
            [name for name, _ in new_topic_problems(own)],
            ["topics_max_record", "topics_max_partitions"],
        )
        loaded = load({"topics_max_record": "17MiB"}, {})
        error = self.assertRaises(SettingError, check, loaded)
        self.assertIn("topics_max_record: expected 1 to 16777216", str(error))
        self.assertIn("(from flag --topics-max-record)", str(error))
        check(load({"topics_max_record": "17MiB", "topics": "off"}, {}))
