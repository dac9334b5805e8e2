"""Text of others as it may be shown on a terminal. Pure."""

from __future__ import annotations

import re

#: What moves the cursor, changes the terminal or the direction of text, or is no character.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return the text with escapes for the characters that are not meant to be seen."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


__all__ = ["printable"]
