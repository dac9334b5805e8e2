"""What rooms, users, players and modes may be called."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import RequestError
from kupool.rooms.names import check_name


class NameTests(SynchronousTestCase):
    """A-44: a name is text of 1 to so many characters that a message can carry."""

    def test_good_names(self) -> None:
        for name in ("a", "abc", "\u6c49\u5b57\U0001f375", " "):
            check_name(name, 3)

    def test_bad_names(self) -> None:
        for name, why in (("", "1 to 3"), ("abcd", "1 to 3"), ("\ud800", "no Unicode text")):
            with self.assertRaisesRegex(RequestError, why):
                check_name(name, 3)
