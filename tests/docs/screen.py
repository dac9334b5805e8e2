"""What is left on the screen of a terminal, where programs draw over what they have printed."""

from __future__ import annotations

import re

_PART = re.compile(
    r"\x1b\[(?P<number>[0-9;?]*)(?P<command>[A-Za-z])|\x1b(?:\][^\x07]*\x07|[()][A-Z0-9])"
    r"|(?P<end>[\r\n])|(?P<text>[^\x1b\r\n]+)"
)


def on_screen(printed: str) -> str:
    """Return the lines that are left: bars that were drawn again or taken away are not.

    Of the commands of a terminal these count: the cursor goes up, and a line is cleared.
    """
    rows, y, x = [""], 0, 0
    for part in _PART.finditer(printed):
        if text := part["text"]:
            rows[y] = rows[y][:x].ljust(x) + text + rows[y][x + len(text) :]
            x += len(text)
        elif part["end"] == "\r":
            x = 0
        elif part["end"]:
            y += 1
            rows += [""] * (y == len(rows))
        elif part["command"] == "A":
            y = max(0, y - int(part["number"] or 1))
        elif part["command"] == "K":
            rows[y] = "" if part["number"] == "2" else rows[y][:x]
    left = "\n".join(row.rstrip() for row in rows).rstrip("\n")
    return f"{left}\n" if left else ""
