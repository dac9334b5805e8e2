"""The text of an account file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.entries import (
    MAX_SIZE,
    BrokenAccounts,
    Secret,
    check_label,
    check_name,
    parse,
    parse_line,
)

HASH = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$YWJjZGVm"
TOKEN = "$sha256$" + "0" * 64


class LineTests(SynchronousTestCase):
    """K-17: one secret a line."""

    def test_secrets(self) -> None:
        self.assertEqual(parse_line("alice:secret"), Secret("alice", "secret"))
        self.assertEqual(parse_line(f"alice:{HASH}\r"), Secret("alice", HASH))
        self.assertEqual(
            parse_line(f"alice:{HASH}:role=operator"), Secret("alice", HASH, "operator")
        )
        self.assertEqual(
            parse_line(f"a b:{TOKEN}:label=rig1:role=admin"), Secret("a b", TOKEN, "admin", "rig1")
        )
        for nothing in ("", "   ", "# a comment", "#alice:secret"):
            self.assertIsNone(parse_line(nothing))

    def test_round_trip(self) -> None:
        for line in (
            "alice:secret",
            f"alice:{HASH}",
            f"alice:{HASH}:role=operator",
            f"alice:{TOKEN}:role=admin:label=rig1",
        ):
            secret = parse_line(line)
            assert secret is not None
            self.assertEqual(secret.line(), line)

    def test_what_is_wrong_is_named_without_the_secret(self) -> None:
        for line, why in (
            ("alice", "no colon"),
            ("alice:", "no password"),
            (":secret", "1 to 255 characters"),
            (" alice:secret", "begin with a space"),
            (f"alice:{HASH}x:$", "option of alice"),
            ("alice:$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$YWJjZGVm", "another kind than argon2id"),
            (f"alice:{TOKEN}0", "damaged"),
            (f"alice:{TOKEN}:role=king", "role of alice"),
            (f"alice:{TOKEN}:label=a b", "label"),
            (f"alice:{TOKEN}:colour=red", "option of alice"),
        ):
            error = str(self.assertRaises(ValueError, parse_line, line))
            self.assertIn(why, error)
            self.assertNotIn("secret", error)
            self.assertNotIn("c29tZ", error)

    def test_names_and_labels(self) -> None:
        self.assertEqual(check_name("名前"), "名前")
        for name in ("", "a:b", "a\nb", "#a", " a", "a ", "x" * 256):
            self.assertRaises(ValueError, check_name, name)
        self.assertEqual(check_label("rig-1.a"), "rig-1.a")
        for label in ("", "-a", "a b", "x" * 65, "a\n"):
            self.assertRaises(ValueError, check_label, label)


class FileTests(SynchronousTestCase):
    """K-17: a whole file."""

    def test_it_is_looked_up_by_name_and_by_token(self) -> None:
        accounts = parse(f"\ufeffalice:{HASH}\r\nbob:plain\n\nalice:{TOKEN}\n".encode())
        self.assertEqual(set(accounts.passwords), {"alice", "bob"})
        self.assertEqual(accounts.tokens[TOKEN].name, "alice")
        self.assertEqual(accounts.names, ["alice", "bob"])
        self.assertEqual(accounts.plain, ["bob"])
        self.assertEqual(accounts.problems, ())

    def test_other_lines_are_skipped_and_named(self) -> None:
        data = b"alice:one\nbad line\nalice:two\ncaf\xe9:x\n" + f"a:{TOKEN}\nb:{TOKEN}".encode()
        accounts = parse(data)
        self.assertEqual(accounts.passwords["alice"].stored, "one")
        self.assertEqual(
            [problem.partition(":")[0] for problem in accounts.problems],
            ["line 2", "line 3", "line 4", "line 6"],
        )

    def test_no_account_at_all_is_no_file(self) -> None:
        for data in (b"", b"\n# nobody\n", b"bad line\n", b"\xff\xfe\x00"):
            self.assertRaises(BrokenAccounts, parse, data)
        self.assertIn("line 1", str(self.assertRaises(BrokenAccounts, parse, b"bad")))
        self.assertRaises(BrokenAccounts, parse, b"a:b\n" + b"#" * MAX_SIZE)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """K-92: garbage is refused or skipped."""
        try:
            accounts = parse(data)
        except BrokenAccounts:
            return
        for secret in accounts.passwords.values():
            self.assertEqual(parse_line(secret.line()), secret)
