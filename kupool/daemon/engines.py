"""Checks the settings of a log and a store before they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from kupool.amqp.address import parse_brokers
from kupool.daemon.files import topics_kind
from kupool.settings import Loaded, SettingError

#: What TLS needs of the extra ``tls``.
_TLS_MODULES = ("OpenSSL", "service_identity")


def check_engines(loaded: Loaded) -> None:
    """Refuse a log or a store whose requirements are missing; raises :class:`SettingError`."""
    for name, reason in _engines(loaded):
        raise refusal(loaded, name, reason)


def refusal(loaded: Loaded, name: str, reason: str) -> SettingError:
    """Return the error that names a setting, the problem, and the setting's source."""
    return SettingError(f"{name}: {reason} (from {loaded.sources[name]})")


def _engines(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    if settings.storage.kind == "pg" and not settings.storage.pg_dsn.strip():
        yield "pg_dsn", "--store pg needs a connection string"
    if settings.log.kind == "rabbit":
        if not settings.log.url.strip():
            yield "mq_url", "--mq rabbit needs the address of a broker"
            return
        if not settings.log.queue:
            yield "mq_queue", "--mq rabbit needs the name of a queue"
        yield from broker_problems("mq_url", settings.log.url)
    elif topics_kind(settings) == "rabbit":
        if not settings.log.url.strip():
            yield "mq_url", "--topics rabbit needs the address of a broker"
            return
        yield from broker_problems("mq_url", settings.log.url)


def broker_problems(name: str, url: str) -> Iterator[tuple[str, str]]:
    """Yield the setting ``name`` with the reason why its broker addresses cannot be used."""
    try:
        brokers = parse_brokers(url)
    except ValueError as error:
        yield name, str(error)
        return
    if any(broker.tls for broker in brokers) and not all(map(find_spec, _TLS_MODULES)):
        from kupool.net.pem import NEEDS_TLS  # of a package that commands do without

        yield name, f"amqps://: {NEEDS_TLS}"
