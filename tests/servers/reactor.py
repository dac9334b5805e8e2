"""The reactor that a test runs in."""

from __future__ import annotations

from typing import Any


def the_reactor() -> Any:
    from twisted.internet import reactor

    return reactor
