"""The page about the stream: its reader works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from kupool.log import Epoch, Identity
from kupool.log.rabbit.topology import Topology
from tests.docs.pages import blocks
from tests.integration.test_rabbit import ROOT, RabbitCase
from tests.integration.test_rabbit_identity import body_of

PAGE = Path(ROOT, "docs", "stream.md").read_text("utf-8")


class StreamPageTests(RabbitCase):
    """Issue 11, point 9: a consumer can be written from the page."""

    def read(self, start: str) -> list[str]:
        """Run the reader of the page; returns what it prints."""
        (program,) = (b.text for b in blocks("docs/stream.md") if b.language == "python")
        done = subprocess.run(
            [sys.executable, "-c", program, self.url, Topology().stream, start],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()

    async def test_the_reader(self) -> None:
        """Every submission is seen once: not notes, second copies, and what is none of ours."""
        log = await self.open_log()
        await log.identify(Identity("mine", (Epoch("one", 0),)))
        await log.append("b1", body_of("b1", "alice.rig1", "bob"))
        await log.append("note", body_of("note"))
        for body in (b"junk", b"[1]", b'{"v":2}', b"\xff"):
            await log.append("junk", body)
        await log.append("b1", body_of("b1", "alice.rig1", "bob"))
        await log.append("b2", body_of("b2", "alice.rig2"))
        *counts, onward = self.read("first")
        self.assertEqual(counts, ["alice 2", "bob 1"])
        await log.append("b3", body_of("b3", "carol"))
        where = onward.removeprefix("next: ")
        self.assertGreaterEqual(int(where), 8)
        *counts, onward = self.read(where)
        self.assertEqual(counts, ["carol 1"])
        self.assertEqual(self.read(onward.removeprefix("next: ")), [onward])

    async def test_what_the_page_names(self) -> None:
        """The names, arguments, headers and fields that there are, are on the page."""
        topology = Topology(max_age="7D", max_bytes=1)
        named = [topology.exchange, topology.stream, topology.dead_letters, "message_id"]
        for arguments in (topology.queue_arguments(), topology.stream_arguments()):
            named += arguments
        named += ["pool", "epoch", "appended_at", "reason", "group", "deliveries", "jobs_until"]
        named += ["v", "batch", "at", "usernames", "job_ids", "client_nonces"]
        for name in named:
            self.assertRegex(PAGE, rf"`{re.escape(name)}[`:]")
