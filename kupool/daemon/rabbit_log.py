"""Makes the log in RabbitMQ and its spool from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kupool.amqp.publisher import PublisherSettings
from kupool.log.rabbit.log import RabbitLog, RabbitSettings
from kupool.log.rabbit.topology import Topology
from kupool.log.spool import SpooledLog, SpoolSettings
from kupool.log.spool_file import SpoolFile
from kupool.settings import LogSettings, SubmissionSettings
from kupool.storage.database import Database

#: Seconds that the broker has to confirm a batch for which nobody waits: longer than any failover,
#: so that a slow broker does not get it again and again.
DRAIN_TIMEOUT = 30.0

#: Seconds that a stop waits for the broker to confirm entries of the spool.
SPOOLED_CLOSE = 1.0


def topology(settings: LogSettings, submissions: SubmissionSettings) -> Topology:
    """Return the topology of the log in RabbitMQ."""
    return Topology(
        queue=settings.queue,
        kind=settings.queue_kind,
        max_age=f"{submissions.log_retention:.0f}s" if submissions.log_retention else "",
        max_bytes=submissions.log_max_size,
    )


def make_rabbit(
    settings: LogSettings,
    submissions: SubmissionSettings,
    reactor: Any,
    wall: Callable[[], float],
    *,
    required: bool,
) -> RabbitLog:
    """Return the log in RabbitMQ; with ``required`` it cannot be opened without a broker.

    A sent batch is sent again until it is confirmed. Only with a spool, which does the same, it is
    given up after a while.
    """
    give_up = 0.0 if required else max(DRAIN_TIMEOUT, settings.timeout)
    publisher = PublisherSettings(stalled=settings.timeout, give_up=give_up)
    engine = RabbitSettings(
        topology=topology(settings, submissions), publisher=publisher, required=required, hold=True
    )
    if not required:
        # Unconfirmed batches at a stop are in the spool as well.
        engine = replace(engine, close_timeout=SPOOLED_CLOSE)
    return RabbitLog(reactor, wall, settings.url, engine)


def make_spooled(
    settings: LogSettings,
    reactor: Any,
    wall: Callable[[], float],
    *,
    remote: RabbitLog,
    database: Database,
) -> SpooledLog:
    """Return a log that saves entries in the data folder while ``remote`` cannot take them."""
    file = SpoolFile(database, reactor, wall, settings.spool_max_size)
    drain_timeout = max(DRAIN_TIMEOUT, settings.timeout)
    bounds = SpoolSettings(settings.timeout, drain_timeout, hold=True)
    return SpooledLog(remote, file, reactor, bounds)


__all__ = ["make_rabbit", "make_spooled", "topology"]
