"""The settings file of a Go-Queue broker, read as ours."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from kupool.settings import Loaded, SettingError, declared, load
from kupool.settings.broker_file import MEANINGLESS, SAME

#: A file with every key that the requirements name.
EXAMPLE = Path(__file__).parents[2] / "data" / "broker.json"


def as_toml(found: dict[str, Any]) -> str:
    """Return a mapping, with mappings one deep in it, as TOML."""
    plain = {k: v for k, v in found.items() if not isinstance(v, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key in found.keys() - plain.keys():
        lines += [f"[{key}]", *(f"{name} = {json.dumps(v)}" for name, v in found[key].items())]
    return "\n".join(lines)


class BrokerFileTests(SynchronousTestCase):
    def write(self, text: str, name: str = "broker.json") -> str:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, name)
        Path(path).write_text(text, "utf-8")
        return path

    def loaded(self, **found: object) -> Loaded:
        return load({"config": self.write(json.dumps(found))}, {})

    def refused(self, **found: object) -> str:
        path = self.write(json.dumps(found))
        error = self.assertRaises(SettingError, load, {"config": path}, {})
        return str(error).replace(path, "FILE")

    def assert_example(self, loaded: Loaded) -> None:
        settings, new = loaded.settings, loaded.settings.new_topics
        self.assertEqual(settings.listen.addr, ("127.0.0.1:9092",))
        self.assertEqual(settings.storage.data, "./broker-data")
        self.assertEqual(new.max_record, 1048576)
        self.assertEqual(new.max_partitions, 1000)
        self.assertEqual(new.flush_interval, 5)
        self.assertEqual(new.retention_time, 168 * 3600)
        self.assertEqual(new.retention_bytes, 1073741824000)
        self.assertEqual((new.compression, new.compression_threshold), ("gzip", 1024))
        self.assertEqual((new.dedup_window, new.dedup_time), (50_000, 12 * 3600))
        about = [remark.partition(" ")[0] for remark in loaded.remarks]
        self.assertEqual(
            about,
            [
                "segment_size",
                "broker_id",
                "raft_addr",
                "enable_follower_read",
                "deduplication_config.hash_type",
            ],
        )
        self.assertIn("segment_size has no meaning here: SQLite keeps no segments", loaded.remarks)

    def test_the_example_loads_in_every_form(self) -> None:
        """Q-67, Q-21, Q-95: JSON, YAML and TOML mean the same; nothing is dropped in silence."""
        text = EXAMPLE.read_text("utf-8")
        found = json.loads(text)
        self.assert_example(load({"config": str(EXAMPLE)}, {}))
        for name, form in (("b.yaml", yaml.safe_dump(found)), ("b.toml", as_toml(found))):
            self.assert_example(load({"config": self.write(form, name)}, {}))

    def test_every_key_stands_for_a_setting(self) -> None:
        """Q-67"""
        self.assertLessEqual(set(SAME.values()), set(declared()))

    def test_where_a_value_comes_from(self) -> None:
        """Q-67: the source names the key of the file; a flag and a variable win over it."""
        path = self.write('{"data_dir": "a", "max_message_size": "x"}')
        error = self.assertRaises(SettingError, load, {"config": path}, {})
        self.assertIn("topics_max_record: 'x' is not a size", str(error))
        self.assertIn(f"(from max_message_size in file {path})", str(error))
        path = self.write('{"data_dir": "a"}')
        self.assertEqual(load({"config": path}, {}).sources["data"], f"data_dir in file {path}")
        loaded = load({"config": path, "data": "b"}, {})
        self.assertEqual(
            (loaded.settings.storage.data, loaded.sources["data"]), ("b", "flag --data")
        )
        self.assertEqual(load({"config": path}, {"KUP_DATA": "c"}).settings.storage.data, "c")

    def test_the_address(self) -> None:
        """Q-95: the port is 9092 unless the file names another."""
        self.assertEqual(self.loaded(data_dir="a").settings.listen.addr, ("127.0.0.1:9092",))
        other = self.loaded(data_dir="a", server={"port": "9999"})
        self.assertEqual(other.settings.listen.addr, (":9999",))
        both = self.loaded(client_addr="h:1", server={"port": "9999"})
        self.assertEqual(both.settings.listen.addr, ("h:1",))

    def test_compression_by_name_and_number(self) -> None:
        """Q-21: a name as in the requirements, and the numbers that files in use have."""
        for given, expected in ((0, "none"), (1, "gzip"), (2, "gzip"), (3, "snappy"), (4, "zstd")):
            loaded = self.loaded(data_dir="a", compression_type=given)
            self.assertEqual(loaded.settings.new_topics.compression, expected)
        for name in ("none", "gzip", "snappy", "lz4", "zstd"):
            loaded = self.loaded(data_dir="a", compression_type=name)
            self.assertEqual(loaded.settings.new_topics.compression, name)
        off = self.loaded(compression_enabled=False, compression_type="gzip")
        self.assertEqual(off.settings.new_topics.compression, "none")
        self.assertIn("compression_type: 5", self.refused(compression_type=5))
        self.assertIn("'lzma' is not one of", self.refused(data_dir="a", compression_type="lzma"))

    def test_deduplication_is_off_by_default(self) -> None:
        """Q-67, Q-23: it is on only if the file says so, and its window is bounded."""
        for found in (
            {"data_dir": "a"},
            {"deduplication_enabled": False, "deduplication_config": {"max_entries": 5}},
            {"deduplication_enabled": True, "deduplication_config": {"enabled": False}},
        ):
            new = self.loaded(**found).settings.new_topics
            self.assertEqual((new.dedup_window, new.dedup_time), (0, 0))
        new = self.loaded(deduplication_enabled=True).settings.new_topics
        self.assertEqual((new.dedup_window, new.dedup_time), (100_000, 24 * 3600))

    def test_a_key_that_nobody_knows(self) -> None:
        """Q-67: a misspelt key is named, also one of a group, and with ours as a hint."""
        self.assertEqual(
            self.refused(data_dir="a", segment_sise=1),
            "segment_sise: no such setting, did you mean segment_size? (from file FILE)",
        )
        self.assertIn("server.prot: no such setting", self.refused(server={"prot": 1}))
        self.assertIn("server: expected a mapping", self.refused(server=1))
        self.assertIn("expected true or false", self.refused(compression_enabled="yes"))

    def test_settings_of_ours_in_the_same_file(self) -> None:
        """Q-67: they apply, unless both say the same thing."""
        loaded = self.loaded(data_dir="a", submit_interval="2s")
        self.assertEqual(loaded.settings.rates.submit_interval, 2)
        self.assertIn("both data and data_dir are given", self.refused(data_dir="a", data="b"))
        self.assertEqual(self.loaded(data_dir="a", addr=[":7"]).settings.listen.addr, (":7",))

    def test_a_file_of_ours_keeps_its_meaning(self) -> None:
        """Q-67: ``flush_interval`` alone is the setting of ours with this name."""
        loaded = self.loaded(flush_interval="3s")
        self.assertEqual(loaded.settings.submissions.flush_interval, 3)
        self.assertEqual(loaded.settings.listen.addr, (":8080",))
        self.assertEqual(list(loaded.remarks), [])

    def test_flags_without_meaning_are_named_once(self) -> None:
        """Q-68"""
        path = self.write(json.dumps({"broker_id": "1", "raft_addr": "x"}))
        flags = {"config": path, "broker_id": "2", "raft_addr": "y"}
        remarks = load(flags, {}).remarks
        self.assertEqual(len(remarks), 2)
        self.assertIn(MEANINGLESS["raft_addr"], remarks[1])
