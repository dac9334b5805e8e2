"""``kupool user``, in this process."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.file import AccountFile
from kupool.accounts.hashing import hash_token, is_token, password_matches
from kupool.cli import main


class UserTests(SynchronousTestCase):
    """K-17: accounts are made, changed, listed and removed by a command."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def run_user(self, *words: str, typed: str = "") -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdin", io.StringIO(typed))
        with redirect_stdout(out), redirect_stderr(err):
            status = main(["user", *words, "--file", str(self.path)])
        return status, out.getvalue(), err.getvalue()

    def done(self, *words: str, typed: str = "") -> str:
        status, out, err = self.run_user(*words, typed=typed)
        self.assertEqual(status, 0, err)
        return out

    def refused(self, *words: str, typed: str = "") -> str:
        before = self.path.read_bytes() if self.path.exists() else None
        status, out, err = self.run_user(*words, typed=typed)
        self.assertEqual((status, out), (1, ""))
        self.assertTrue(err.startswith("kupool: "), err)
        self.assertEqual(err.count("\n"), 1)
        self.assertEqual(self.path.read_bytes() if self.path.exists() else None, before)
        return err

    def test_an_account_and_its_password(self) -> None:
        self.done("add", "alice", "--role", "operator", typed="first horse\n")
        stored = AccountFile(self.path).read().passwords["alice"]
        self.assertEqual(stored.role, "operator")
        self.assertTrue(password_matches(stored.stored, "first horse"))
        self.assertIn("already", self.refused("add", "alice", typed="other horse\n"))
        self.done("passwd", "alice", typed="second horse\n")
        changed = AccountFile(self.path).read().passwords["alice"]
        self.assertEqual(changed.role, "operator")
        self.assertTrue(password_matches(changed.stored, "second horse"))
        self.assertIn("no account bob", self.refused("passwd", "bob", typed="second horse\n"))

    def test_passwords_that_are_none(self) -> None:
        for typed in ("", "\n", "short\n", "x" * 1025 + "\n"):
            self.assertIn("a password has", self.refused("add", "alice", typed=typed))
        for name in ("a:b", "", "#a"):
            self.assertIn("a name", self.refused("add", name, typed="first horse\n"))

    def test_tokens(self) -> None:
        self.done("add", "alice", typed="first horse\n")
        token = self.done("token", "alice", "--label", "rig1").strip()
        self.assertTrue(is_token(token))
        self.assertNotIn(token, self.path.read_text("utf-8"))
        self.assertEqual(AccountFile(self.path).read().tokens[hash_token(token)].label, "rig1")
        self.assertIn("already", self.refused("token", "alice", "--label", "rig1"))
        self.assertIn("label", self.refused("token", "alice", "--label", "rig 1"))
        self.done("token", "alice", "--label", "rig1", "--revoke")
        self.assertEqual(AccountFile(self.path).read().tokens, {})
        self.assertIn("no token", self.refused("token", "alice", "--label", "rig1", "--revoke"))

    def test_the_list(self) -> None:
        self.done("add", "alice", typed="first horse\n")
        self.done("token", "alice", "--label", "rig1")
        self.done("token", "[bold]bob")
        rows = json.loads(self.done("list", "--json"))
        self.assertEqual([row["name"] for row in rows], ["[bold]bob", "alice"])
        self.assertEqual([row["tokens"] for row in rows], [[""], ["rig1"]])
        # K-92: what a name looks like is not interpreted.
        self.assertIn("[bold]bob", self.done("list"))

    def test_removed_with_all_tokens(self) -> None:
        self.done("add", "alice", typed="first horse\n")
        self.done("token", "alice")
        self.done("add", "bob", typed="first horse\n")
        self.done("remove", "alice")
        self.assertEqual(AccountFile(self.path).read().names, ["bob"])
        self.assertIn("no account alice", self.refused("remove", "alice"))

    def test_plain_text_is_hashed(self) -> None:
        self.path.write_text("# kept\nalice:first horse\nbad line\nbob:x\n", "utf-8")
        self.assertIn("Hashed 2 passwords", self.done("hash"))
        accounts = AccountFile(self.path).read()
        self.assertEqual(accounts.plain, [])
        self.assertTrue(password_matches(accounts.passwords["alice"].stored, "first horse"))
        self.assertTrue(password_matches(accounts.passwords["bob"].stored, "x"))
        self.assertTrue(self.path.read_text("utf-8").startswith("# kept\nalice:$argon2id$"))
        self.assertIn("bad line", self.path.read_text("utf-8"))
        self.assertIn("Hashed 0 passwords", self.done("hash"))

    def test_files_that_cannot_be_used(self) -> None:
        self.assertIn("No such file", self.refused("list"))
        self.path.mkdir()
        status, out, err = self.run_user("add", "alice", typed="first horse\n")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("Is a directory", err)
        os.rmdir(self.path)
        self.path.write_text("nothing\n", "utf-8")
        self.assertIn("line 1: there is no colon", self.refused("list"))

    def test_which_file(self) -> None:
        """K-88: the file is the one that the daemon goes by."""
        self.path.write_text("alice:secret\n", "utf-8")
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            self.assertEqual(main(["user", "list", "--json", "--auth", f"file:{self.path}"]), 0)
            self.assertEqual(main(["user", "list"]), 1)
        self.assertEqual(json.loads(out.getvalue())[0]["name"], "alice")
        self.assertIn("which account file?", err.getvalue())
