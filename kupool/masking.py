"""Connection strings and the like as they may be shown: without their passwords. Pure."""

from __future__ import annotations

import re

#: Passwords: in a URL, in a PostgreSQL connection string, and all that a checker of
#: passwords is given, unless it is the name of a file.
_SECRET_PART = re.compile(
    r"(://[^:/@\s]*:).*(@)"
    r"|(password\s*=\s*)(?:'(?:\\.|[^'\\])*'?|(?:\\.|\S)+)"
    r"|(^(?!file:)\w+:)(?!//).+",
    re.IGNORECASE | re.DOTALL,
)


def mask(text: str) -> str:
    """Return a text with each password in it as ``***``, and rather too much than too little."""
    return _SECRET_PART.sub(r"\1\3\4***\2", text)


def hide(text: str) -> str:
    """Return nothing of a text but that there is one."""
    return "***" if text else ""
