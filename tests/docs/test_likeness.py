"""Issue 14, item 4: which values may be others than a page shows."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.likeness import Likeness

NONCE = "777ea663b73542b71308226cf8656362"


class LikenessTests(SynchronousTestCase):
    def test_what_is_printed_has_to_be_shown(self) -> None:
        likeness = Likeness()
        self.assertTrue(likeness.same(["a", "b 1"], "a\nb 1\n"))
        for printed in ("a\n", "a\nb 2\n", "a\nb 1\nc\n", "a\nb 1 c\n", "x\na\nb 1\n"):
            self.assertFalse(likeness.same(["a", "b 1"], printed), printed)

    def test_what_differs_by_nature(self) -> None:
        for shown, printed in (
            ("at 2026-11-21 04:48", "at 2027-01-02 23:59"),
            ("2026-11-21T04:48:30+0000 [-]", "2027-01-02T03:04:05+0000 [-]"),
            ("Ran 5 tests in 0.035s", "Ran 5 tests in 11.2s"),
            ("pid 4711 on", "pid 3 on"),
            (f'"{NONCE}"', f'"{"0" * 32}"'),
            ('{"job_id":92163511}', '{"job_id":92163999}'),
            ('{"job_id":92163511,"at":1}', '{"job_id":92163999,"at":1}'),
        ):
            self.assertTrue(Likeness().same([shown], f"{printed}\n"), shown)

    def test_what_does_not(self) -> None:
        for shown, printed in (
            ("at 2026-11-21 04:48", "at noon"),
            ("port 8080", "port 8081"),
            ("13,117 batches", "13,118 batches"),
            ("Ran 5 tests in 0.035s", "Ran 6 tests in 0.035s"),
        ):
            self.assertFalse(Likeness().same([shown], f"{printed}\n"), shown)

    def test_a_value_that_came_stands_for_the_one_shown(self) -> None:
        likeness = Likeness()
        self.assertTrue(likeness.same([f"{NONCE} {NONCE}"], "a" * 32 + " " + "a" * 32 + "\n"))
        self.assertEqual(likeness.as_it_came(f"{NONCE}hello"), "a" * 32 + "hello")
        self.assertTrue(likeness.same([NONCE], "a" * 32))
        self.assertFalse(likeness.same([NONCE], "b" * 32))
        self.assertFalse(Likeness().same([f"{NONCE} {NONCE}"], "a" * 32 + " " + "b" * 32))

    def test_what_is_left_out(self) -> None:
        for printed in ("a\nz\n", "a\nb\nc\nz\n"):
            self.assertTrue(Likeness().same(["a", "...", "z"], printed))
        self.assertTrue(Likeness().same(["moved to ..."], "moved to db:5432\n"))
        self.assertFalse(Likeness().same(["a", "...", "z"], "a\nb\n"))

    def test_numbers_that_may_differ(self) -> None:
        shown, printed = "│   4 │    14 │", "│ 1,234 │ 5 │"
        self.assertFalse(Likeness().same([shown], printed))
        self.assertTrue(Likeness().same([shown], printed, numbers_differ=True))
