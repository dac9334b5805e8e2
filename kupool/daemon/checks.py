"""What can be said of the settings before anything is opened: that they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain

from kupool.amqp.address import parse_brokers
from kupool.net.endpoints import endpoint_for
from kupool.settings import Loaded, SettingError
from kupool.web.control import Hosts
from kupool.web.upgrade import Origins

#: What TLS needs of the extra ``tls``.
_TLS_MODULES = ("OpenSSL", "service_identity")


def check(loaded: Loaded) -> None:
    """Refuse what no part can do; raises :class:`SettingError`."""
    check_engines(loaded)
    for name, reason in chain(_addresses(loaded), _web(loaded)):
        raise _refusal(loaded, name, reason)


def check_engines(loaded: Loaded) -> None:
    """Refuse a log or a store that lacks what it needs; raises :class:`SettingError`."""
    for name, reason in _engines(loaded):
        raise _refusal(loaded, name, reason)


def _refusal(loaded: Loaded, name: str, reason: str) -> SettingError:
    return SettingError(f"{name}: {reason} (from {loaded.sources[name]})")


def _engines(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    if settings.store == "pg" and not settings.pg_dsn.strip():
        yield "pg_dsn", "--store pg needs a connection string"
    if settings.mq == "rabbit":
        if not settings.mq_url.strip():
            yield "mq_url", "--mq rabbit needs the address of a broker"
            return
        if not settings.mq_queue:
            yield "mq_queue", "--mq rabbit needs the name of a queue"
        try:
            brokers = parse_brokers(settings.mq_url)
        except ValueError as error:
            yield "mq_url", str(error)
            return
        if any(broker.tls for broker in brokers) and not all(map(find_spec, _TLS_MODULES)):
            yield "mq_url", "amqps:// needs TLS: pip install 'kupool[tls]'"


def _addresses(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    if not settings.addr:
        yield "addr", "no address to listen on"
    named = [("addr", text) for text in settings.addr]
    named += [("http", settings.http)] if settings.http else []
    for name, text in named:
        try:
            endpoint_for(None, text)
        except ValueError as error:
            yield name, str(error)


def _web(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    try:
        hosts = Hosts(settings.http_hosts)
    except ValueError as error:
        yield "http_hosts", str(error)
        return
    try:
        Origins(settings.ws_origins, hosts)
    except ValueError as error:
        yield "ws_origins", str(error)
