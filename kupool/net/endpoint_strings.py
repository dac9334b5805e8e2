"""Parse Twisted's endpoint strings: ``kind:argument:name=value``. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_PARTS = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)")
_ESCAPE = re.compile(r"\\(.)")


class EndpointString(NamedTuple):
    """A parsed endpoint string: its kind, positional arguments and named arguments."""

    kind: str
    plain: list[str]
    named: dict[str, str]


def parse_endpoint_string(text: str) -> EndpointString:
    """Parse an endpoint string; a backslash escapes a colon."""
    kind, *arguments = [_ESCAPE.sub(r"\1", part) for part in _PARTS.findall(text)][:-1] or [""]
    return EndpointString(
        kind,
        [argument for argument in arguments if "=" not in argument],
        dict(argument.split("=", 1) for argument in arguments if "=" in argument),
    )


def is_port(text: str) -> bool:
    """Return whether a text is a port number, 0 included."""
    return re.fullmatch("[0-9]{1,5}", text) is not None and int(text) < 65536


__all__ = ["EndpointString", "is_port", "parse_endpoint_string"]
