"""Issue 14, item 4: a block shows what is left on a terminal, not what was drawn over."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.screen import on_screen


class ScreenTests(SynchronousTestCase):
    def test_text_stays(self) -> None:
        self.assertEqual(on_screen("a\r\n\x1b[1mb\x1b[0m c\r\n"), "a\nb c\n")
        self.assertEqual(on_screen("no end"), "no end\n")
        self.assertEqual(on_screen("\r\n"), "")

    def test_a_bar_that_is_taken_away(self) -> None:
        bar = "\x1b[?25l\rReading 10 %\r\x1b[2KReading 100 %\r\n\x1b[?25h\r\x1b[1A\x1b[2K"
        self.assertEqual(on_screen(bar + "done\r\n"), "done\n")

    def test_a_line_that_is_drawn_again(self) -> None:
        self.assertEqual(on_screen("10 of 100\r20\r\n"), "20 of 100\n")
        self.assertEqual(on_screen("10 of 100\r20\x1b[K\r\n"), "20\n")
