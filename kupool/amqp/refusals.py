"""Explain in plain words why a broker refuses to create something."""

from __future__ import annotations

import re

from kupool.amqp import BrokerError, BrokerRefused
from kupool.amqp.connection import BrokerConnection

_MISMATCH = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<what>\w+) '(?P<name>[^']*)'.*?: "
    r"received (?P<wanted>.+?) but current is (?P<found>.+)"
)
_NO_ACCESS = re.compile(r"(?:(?P<kind>\w+) )?access to (?P<what>\w+) '(?P<name>[^']*)'")


def explained(error: BrokerError, connection: BrokerConnection) -> BrokerError:
    """Return a broker's refusal in plain words.

    It is a :class:`BrokerRefused` if it is permanent, so that a retry alone does not help.
    """
    text, broker = str(error), connection.broker
    mismatch = _MISMATCH.search(text)
    if mismatch:
        return BrokerRefused(
            f"RabbitMQ at {broker}: {mismatch['what']} {mismatch['name']!r} exists with another "
            f"{mismatch['argument']}: {mismatch['found']}, where {mismatch['wanted']} is set here; "
            "remove it, or use another name",
            error.code,
        )
    access = _NO_ACCESS.search(text) if error.code == 403 else None
    if access:
        kind = f"{access['kind']} " if access["kind"] else ""
        return BrokerRefused(
            f"RabbitMQ at {broker}: user {broker.user!r} lacks a permission: {kind}access to "
            f"{access['what']} {access['name']!r} in virtual host {broker.vhost!r}",
            error.code,
        )
    if error.code == 406:
        return BrokerRefused(f"RabbitMQ at {broker}: {text}", error.code)
    return error


__all__ = ["explained"]
