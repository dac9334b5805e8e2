"""The page about topics: its tables say what there is."""

from __future__ import annotations

import re
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from kupool import errors
from kupool.commands.places import setting_text
from kupool.topics.api.table import OPERATIONS
from kupool.topics.batches import MOST_BYTES, MOST_RECORDS
from kupool.topics.compression import CODECS
from kupool.topics.dead_letters import HEADERS
from kupool.topics.interfaces import REMEMBERED, Capabilities
from kupool.topics.partitioners import PARTITIONERS, fnv1a
from kupool.topics.settings import TopicSettings
from kupool.web.topics import STATUS
from tests.servers.commands import kupool
from tests.servers.running_daemon import ROOT

PAGE = (ROOT / "docs" / "log.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows of the tables in a section, but for their heads."""
    section = re.search(rf"(?ms)^##+ {heading}$.*?(?=^## |\Z)", PAGE)
    assert section is not None, heading
    found = [line for line in section[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


class PageTests(SynchronousTestCase):
    """Issue 16, build 8: a client can be written from the page."""

    def test_operations(self) -> None:
        """Q-63: every operation is there, and no other one."""
        named = set(re.findall(r"`((?:topic|log|group)\.[a-z]+)`", PAGE))
        self.assertEqual(named, {operation.name for operation in OPERATIONS})

    def test_commands(self) -> None:
        """Q-83: every action of the commands is there."""
        text = " ".join(" ".join(row) for row in rows("Commands"))
        for command in ("topic", "log", "group", "dlq"):
            shown = kupool(command, "--help").stdout
            actions = re.findall(r"(?m)^    ([a-z]+) ", shown)
            self.assertGreater(len(actions), 3)
            for action in actions:
                self.assertRegex(text, rf"`{action}`|`kupool {command} {action}`")

    def test_settings(self) -> None:
        """Q-26: every setting of a topic, with its default."""
        table: dict[str, str] = {}
        for names, default, *_ in rows("Settings of a topic"):
            table |= dict(zip(re.findall(r"`(\w+)`", names), default.split(", "), strict=False))
        shown = {"168h": "7 days", "1MiB": "1 MiB", "1KiB": "1 KiB"}
        for name in TopicSettings.__struct_fields__:
            default = setting_text(name, getattr(TopicSettings(), name))
            self.assertEqual(table[name].strip("`"), shown.get(default, default), name)

    def test_partitioners(self) -> None:
        """Q-28: programs in other languages choose the same partition."""
        for name in PARTITIONERS:
            self.assertIn(f"| `{name}` |", PAGE)
        vectors = [row for row in rows("Partitioners") if len(row) == 6 and row[2].isdecimal()]
        self.assertEqual(len(vectors), 4)
        for key, data, *numbers in vectors:
            found = bytes.fromhex(data.strip("`"))
            if key != "(empty)":
                self.assertEqual(found, key.strip("`").encode())
            hashes = fnv1a(found), crc32(found)
            expected = [hashes[0], hashes[0] % 12, hashes[1], hashes[1] % 12]
            self.assertEqual([int(number) for number in numbers], expected)

    def test_engines(self) -> None:
        """Q-38: what the capability call says is explained."""
        for name in Capabilities._fields:
            self.assertRegex(PAGE, rf"(?m)^\| `{name}`: ")

    def test_errors(self) -> None:
        """Q-04, Q-46: the texts, the numbers and the statuses."""
        texts = {e.code: e.text for e in vars(errors).values() if isinstance(e, errors.ErrorText)}
        found = rows("Errors")[1:]
        codes = [int(row[0]) for row in found]
        self.assertLessEqual({27, 32, 33, 34, 35, 36, 39, 40, 41, 42, 43}, set(codes))
        for code, text, status, _ in found:
            self.assertEqual(int(status), STATUS[int(code)])
            self.assertTrue(text.strip("`").startswith(texts[int(code)].partition(":")[0]), text)

    def test_batches(self) -> None:
        """Q-20, Q-22, Q-51: the limits and the names of the format."""
        self.assertIn(f"at most {MOST_RECORDS:,} records", PAGE)
        self.assertIn(f"above {MOST_BYTES >> 20} MiB", PAGE)
        self.assertIn(f"The last {REMEMBERED} numbers of a producer", PAGE)
        for name in (*CODECS, *HEADERS):
            self.assertIn(f"`{name}`", PAGE)
