"""Where clients reach this daemon."""

from __future__ import annotations

from collections.abc import Sequence
from socket import gethostname
from typing import Any

#: Hosts that stand for all addresses of a machine.
_ALL = ("", "0.0.0.0", "::")  # noqa: S104 - nothing is bound here


def advertised(configured: str, addresses: Sequence[Any]) -> str:
    """Return what other daemons tell clients, as HOST:PORT: what is ``configured``, or else the
    first of the bound ``addresses`` of Twisted.

    The name of the machine stands for all its addresses. Without a port it is ``unknown``.
    """
    if configured:
        return configured
    for address in addresses:
        port = getattr(address, "port", None)
        if port is not None:
            host = gethostname() if address.host in _ALL else address.host
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unknown"


__all__ = ["advertised"]
