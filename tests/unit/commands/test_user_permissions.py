"""``kupool config --user``, in this process."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.hashing import hash_token
from kupool.cli import main


class UserPermissionTests(SynchronousTestCase):
    """Issue 15, build 2: what applies to a user, and where it comes from."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        token = hash_token("x")
        self.path.write_text(f"alice:secret\nalice:{token}:role=operator:label=rig1\nb:secret\n")

    def run_config(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(["config", *words])
        return status, out.getvalue(), err.getvalue()

    def lines(self, *words: str) -> list[list[str]]:
        status, out, err = self.run_config(*words)
        self.assertEqual((status, err), (0, ""))
        return [re.split("  +", line) for line in out.splitlines()]

    def test_an_account(self) -> None:
        found = self.lines(
            "--user=alice",
            f"--auth=file:{self.path}",
            "--bus-publish=public.>",
            "--bus-operators=alice",
            "--permissions=alice publish {user}.>",
            "--permissions=@operator GET /stats",
            "--permissions=@admin POST /jobs/*",
        )
        self.assertEqual(found[0], ["role", "worker", str(self.path)])
        self.assertEqual(found[1], ["role", "operator", f"{self.path}, token rig1"])
        for row in (
            ["method", "call", "submit", "default"],
            ["topic", "publish", "public.>", "bus_publish, flag --bus-publish"],
            ["topic", "publish", "alice.>", "permissions, flag --permissions"],
            ["topic", "publish", ">", "bus_operators, flag --bus-operators"],
            ["topic", "subscribe", "kupool.job", "bus_subscribe, default"],
            ["room", "join", ">", "rooms_join, default"],
            ["route", "GET", "/stats", "permissions, flag --permissions"],
            ["route", "GET", "/", "default"],
            ["route", "POST", "/bans/lift", "default"],
        ):
            self.assertIn(row, found)
        self.assertNotIn("/jobs/rotate", {row[2] for row in found})

    def test_others(self) -> None:
        anonymous = self.lines("--user=alice")
        self.assertEqual(anonymous[0], ["role", "anonymous", "no --auth"])
        self.assertNotIn("/stats", {row[2] for row in anonymous})
        other = self.lines("--user=alice", "--auth=memory:alice:x")
        self.assertEqual(other[0][:2], ["role", "worker"])
        for words, said in (
            (["--user=carol", f"--auth=file:{self.path}"], "auth: there is no account 'carol'"),
            (["--user=alice", "--auth=file:/nowhere"], "No such file"),
            (["--user=alice", "--permissions=a b c"], "permissions: rule 1: 'a b c': expected"),
        ):
            status, out, err = self.run_config(*words)
            self.assertEqual((status, out), (1, ""))
            self.assertIn(said, err)
