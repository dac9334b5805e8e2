"""Escape untrusted text for a terminal. Pure."""

from __future__ import annotations

import re

#: Characters that control the cursor, the terminal or the text direction, or are invalid.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return the text with non-printable characters escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


__all__ = ["printable"]
