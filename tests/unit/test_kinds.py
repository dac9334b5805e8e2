"""Durations, sizes and numbers: what is read, what is refused, what is shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.kinds import (
    choice,
    format_duration,
    format_size,
    parse_count,
    parse_duration,
    parse_number,
    parse_size,
)


class DurationTests(SynchronousTestCase):
    """K-89: durations are in Go notation."""

    def test_values(self) -> None:
        for text, seconds in (
            ("0", 0.0),
            ("0s", 0.0),
            ("30s", 30.0),
            ("2m", 120.0),
            ("1h30m", 5400.0),
            ("1h30m0.5s", 5400.5),
            ("250ms", 0.25),
            ("1.5h", 5400.0),
            (".5s", 0.5),
            ("10us", 1e-5),
            ("10µs", 1e-5),
            ("10ns", 1e-8),
            ("90m", 5400.0),
            ("2540400h10m10s", 2540400 * 3600 + 610),
        ):
            self.assertAlmostEqual(parse_duration(text), seconds, places=12, msg=text)

    def test_what_is_none(self) -> None:
        for text in (
            "", "30", "1", "-5s", "+5s", "5 s", " 5s", "5s ", "s", ".s", "5S", "5d", "1e3s",
            "1h-5m", "0x5s", "inf", "nan", "1,5s", "5 minutes", "5s\n", "00",
        ):  # fmt: skip
            self.assertRaises(ValueError, parse_duration, text)

    def test_longer_than_go_can_count(self) -> None:
        """K-88: what no clock can wait for is refused, not passed on."""
        self.assertRaises(ValueError, parse_duration, "2562048h")
        self.assertRaises(ValueError, parse_duration, "9" * 400 + "h")

    def test_shown(self) -> None:
        for seconds, text in (
            (0.0, "0"),
            (0.005, "5ms"),
            (1e-9, "0.000001ms"),
            (1.0, "1s"),
            (90.5, "1m30.5s"),
            (3600.0, "1h"),
            (5400.0, "1h30m"),
            (604800.0, "168h"),
        ):
            self.assertEqual(format_duration(seconds), text)

    @given(st.floats(0, 9e9, allow_nan=False))
    def test_what_is_shown_can_be_read(self, seconds: float) -> None:
        """K-90: every value that is shown can be given back."""
        self.assertAlmostEqual(
            parse_duration(format_duration(seconds)), seconds, delta=1e-9 + seconds * 1e-12
        )

    @given(st.text())
    def test_no_text_does_anything_else(self, text: str) -> None:
        try:
            self.assertGreaterEqual(parse_duration(text), 0.0)
        except ValueError as error:
            self.assertIn(repr(text), str(error))


class SizeTests(SynchronousTestCase):
    """K-89: sizes are in bytes, or with a unit."""

    def test_values(self) -> None:
        for text, size in (
            ("0", 0),
            ("65536", 65536),
            ("64KiB", 65536),
            ("64kb", 65536),
            ("64 K", 65536),
            ("10G", 10 << 30),
            ("1TiB", 1 << 40),
            ("5B", 5),
        ):
            self.assertEqual(parse_size(text), size, text)

    def test_what_is_none(self) -> None:
        for text in ("", "-1", "1.5K", "K", "64KiBB", "64 X", "1e3", "0x10"):
            self.assertRaises(ValueError, parse_size, text)

    @given(st.integers(0, 1 << 50))
    def test_what_is_shown_can_be_read(self, size: int) -> None:
        self.assertEqual(parse_size(format_size(size)), size)


class NumberTests(SynchronousTestCase):
    """K-88: a number that is none is refused."""

    def test_counts(self) -> None:
        self.assertEqual(parse_count("10000"), 10000)
        for text in ("", "-1", "1.0", "ten", "1e3", " 1", "9" * 16):
            self.assertRaises(ValueError, parse_count, text)

    def test_numbers(self) -> None:
        self.assertEqual(parse_number("0.5"), 0.5)
        for text in ("", "-1", "nan", "inf", "1e999", "five"):
            self.assertRaises(ValueError, parse_number, text)

    def test_choices(self) -> None:
        kind = choice("a", "b")
        self.assertEqual((kind.parse("a"), kind.hint), ("a", "a|b"))
        error = self.assertRaises(ValueError, kind.parse, "c")
        self.assertEqual(str(error), "'c' is not one of a, b")
