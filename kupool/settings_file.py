"""Read a settings file, YAML, JSON or TOML, as a mapping."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import yaml

#: The most bytes of a file with a secret.
LARGEST_SECRET = 65_536


def read_mapping(path: str) -> dict[str, object]:
    """Return the content of a file: JSON if its name ends in ``.json``, TOML if it ends in
    ``.toml``, else YAML.

    Raises :class:`ValueError`, which says in one line what is wrong, and where.
    """
    try:
        text = Path(path).read_text("utf-8")
        found = _parsed(text, path)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(_explained(error)) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError("expected a mapping of setting names to values")
    return found


def _parsed(text: str, path: str) -> object:
    found: object
    if path.endswith(".json"):
        found = json.loads(text)
    elif path.endswith(".toml"):
        found = tomllib.loads(text)
    else:
        found = yaml.safe_load(text)
    return found


def read_secret(path: str) -> str:
    """Return the text in a file, without white space around it.

    Raises :class:`ValueError` for a file that is missing, unreadable, empty or too large.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_SECRET + 1)
        if len(data) > LARGEST_SECRET:
            raise ValueError(f"larger than {LARGEST_SECRET} bytes")
        text = data.decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ValueError(_explained(error)) from None
    if not text:
        raise ValueError("the file is empty")
    return text


def _explained(error: Exception) -> str:
    """Return what is wrong, without quoting the line, which may contain a secret."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text, at byte {error.start}"
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', error)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())
