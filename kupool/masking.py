"""Mask the passwords in connection strings and similar texts. Pure."""

from __future__ import annotations

import re

#: Passwords: in a URL, in a PostgreSQL connection string, and the arguments of a checker of
#: passwords, except a file name.
_SECRET_PART = re.compile(
    r"(://[^:/@\s]*:).*(@)"
    r"|(password\s*=\s*)(?:'(?:\\.|[^'\\])*'?|(?:\\.|\S)+)"
    r"|(^(?!file:)\w+:)(?!//).+",
    re.IGNORECASE | re.DOTALL,
)


def mask(text: str) -> str:
    """Replace each password in a text by ``***``; masks too much rather than too little."""
    return _SECRET_PART.sub(r"\1\3\4***\2", text)


def hide(text: str) -> str:
    """Return a placeholder that says only that there is a text."""
    return "***" if text else ""
