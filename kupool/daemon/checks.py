"""What can be said of the settings before anything is opened: that they cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from kupool.bus.topics import pattern_name
from kupool.daemon.engines import broker_problems, check_engines, refusal
from kupool.net.transport.endpoints import endpoint_for
from kupool.net.transport.proxied import parse_networks
from kupool.settings import Loaded, value_of
from kupool.web.control import KnownHosts
from kupool.web.upgrade import Origins
from kupool.web.visitors import VisitorGate


def check(loaded: Loaded) -> None:
    """Refuse what no part can do; raises :class:`SettingError`."""
    check_engines(loaded)
    for name, reason in chain(_addresses(loaded), _web(loaded), _bus(loaded), _compatible(loaded)):
        raise refusal(loaded, name, reason)


def _addresses(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    if not settings.listen.addr:
        yield "addr", "no address to listen on"
    named = [("addr", text) for text in settings.listen.addr]
    single = [("http", settings.listen.http), ("bus_compatible_addr", settings.bus.compatible_addr)]
    named += [(name, text) for name, text in single if text]
    for name, text in named:
        try:
            endpoint_for(None, text)
        except ValueError as error:
            yield name, str(error)
    try:
        parse_networks(settings.listen.proxy_trusted)
    except ValueError as error:
        yield "proxy_trusted", str(error)


def _web(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    try:
        hosts = KnownHosts(settings.listen.http_hosts)
    except ValueError as error:
        yield "http_hosts", str(error)
        return
    try:
        Origins(settings.listen.ws_origins, hosts)
    except ValueError as error:
        yield "ws_origins", str(error)
    try:
        VisitorGate(hosts, "", settings.bus.origins)
    except ValueError as error:
        yield "bus_origins", str(error)


def _compatible(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    if not settings.bus.compatible_addr:
        return
    if settings.listen.auth:
        yield (
            "bus_compatible_addr",
            "not together with --auth, as clients of the predecessor's bus name no user",
        )
    if settings.bus.kind == "off":
        yield "bus_compatible_addr", "there is no bus with --bus off"


def _bus(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    for name in ("bus_publish", "bus_subscribe", "bus_direct"):
        try:
            for pattern in value_of(settings, name):
                pattern_name(pattern)
        except ValueError as error:
            yield name, str(error)
    if settings.bus.operators and not settings.listen.auth:
        yield "bus_operators", "without --auth anybody may say that they are one of them"
    if not (settings.bus.token.isascii() and settings.bus.token.isprintable()):
        yield "bus_token", "a character in it cannot be in a header"
    if settings.bus.kind == "rabbit":
        name = "bus_url" if settings.bus.url.strip() else "mq_url"
        if not value_of(settings, name).strip():
            yield "bus_url", "--bus rabbit needs the address of a broker"
            return
        yield from broker_problems(name, value_of(settings, name))
