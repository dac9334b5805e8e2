"""Whether what a program prints is what a page shows, but for values that differ by nature."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Values that are another one each time, the first that fits counts: what they look like, and
#: whether the reader uses the value that came where the page goes on with the one it shows.
DIFFERING: tuple[tuple[str, bool], ...] = (
    # a time of day, with or without its seconds and its zone
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z| UTC|[+-]\d\d:?\d\d)?", False),
    # an id or a nonce in hexadecimal, and the id of a message on the bus
    (r"(?<![0-9a-f])[0-9a-f]{16,}(?![0-9a-f])", True),
    (r"(?<![0-9a-f])[0-9a-f]{8}-\d+", True),
    (r"(?<![0-9a-f])[0-9a-f]{4,8}…", True),
    # the id of a job, or a time in milliseconds
    (r"(?<!\d)(?<!\d[,.])\d{8,}(?![,.]?\d)", True),
    # the time that is left for an answer
    (r'(?<="timeout_ms":)\d+\.\d+', False),
    # the port of a client
    (r"(?<=127\.0\.0\.1:)[1-9]\d{4}", False),
    # a process
    (r"(?<=pid )\d+", True),
    # how long something took, and how large it is
    (r"\d+\.\d+ ?(?:µs|ms|s)\b", False),
    (r"\d+\.\d+ [kMG]?i?B\b", False),
)

#: What a page leaves out: alone in a line any lines, within a line any text.
_LEFT_OUT = r"…|\.\.\."

_TOKEN = re.compile("|".join([*(f"({form})" for form, _ in DIFFERING), f"({_LEFT_OUT})"]))
_ANY_NUMBER = re.compile(r"\d[\d,.]*")


class Likeness:
    """Compares, and remembers what stands for the values that the page shows."""

    def __init__(self) -> None:
        #: By the value on the page: what it was this time.
        self._came: dict[str, str] = {}

    def as_it_came(self, text: str) -> str:
        """Return what is on the page with the values of this time."""
        for shown, came in self._came.items():
            text = text.replace(shown, came)
        return text

    def same(self, shown: Sequence[str], printed: str, *, numbers_differ: bool = False) -> bool:
        """Whether these lines of the page stand for the whole of what was printed."""
        form, learned = self._form(shown, numbers_differ)
        found = re.fullmatch(form, "".join(f"{line}\n" for line in printed.splitlines()))
        if found is None:
            return False
        self._came.update({value: found[group] for group, value in learned.items()})
        return True

    def _form(self, shown: Sequence[str], numbers_differ: bool) -> tuple[str, dict[str, str]]:
        """Return a pattern for the lines, and by the name of a group what it stands for."""
        form, groups = [], dict[str, str]()
        for line in shown:
            if re.fullmatch(_LEFT_OUT, line.strip()):
                form.append(r"(?:.*\n)*?")
                continue
            end = 0
            for token in _TOKEN.finditer(line):
                form.append(_literal(line[end : token.start()], numbers_differ))
                form.append(self._value(token, groups))
                end = token.end()
            form.append(_literal(line[end:], numbers_differ) + r"[ ]*\n")
        return "".join(form), {group: value for value, group in groups.items()}

    def _value(self, token: re.Match[str], groups: dict[str, str]) -> str:
        value = token[0]
        if token.lastindex == len(DIFFERING) + 1:
            return ".*"
        assert token.lastindex is not None
        form, stays = DIFFERING[token.lastindex - 1]
        if not stays:
            return form
        if value in self._came:
            return re.escape(self._came[value])
        if value in groups:
            return f"(?P={groups[value]})"
        groups[value] = f"v{len(groups)}"
        return f"(?P<{groups[value]}>{form})"


def _literal(text: str, numbers_differ: bool) -> str:
    if not numbers_differ:
        return re.escape(text)
    parts = _ANY_NUMBER.split(text)
    return r"\d[\d,.]*".join(re.sub(r"(?:\\ )+", " *", re.escape(part)) for part in parts)
