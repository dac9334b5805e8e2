"""Checks the settings before anything is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from kupool.accounts.web_tokens import MIN_SECRET
from kupool.bus.permissions import OWN_NAME, Rule, check_pattern, parse_rule
from kupool.bus.topics import pattern_name
from kupool.daemon.engines import broker_problems, check_engines, refusal
from kupool.daemon.files import topics_kind
from kupool.daemon.permissions import GRANTS, PATTERNS, RULES
from kupool.net.transport.endpoints import endpoint_for
from kupool.net.transport.proxied import parse_networks
from kupool.permissions.grants import parse_grant
from kupool.settings import Loaded, SettingError, value_of
from kupool.web.control import KnownHosts
from kupool.web.upgrade import Origins
from kupool.web.visitors import VisitorGate


def check(loaded: Loaded) -> None:
    """Refuse settings that no part can use; raises :class:`SettingError`, which names them all."""
    check_engines(loaded)
    parts = (_addresses, _web, _rules, _bus, _compatible, _topics, _live)
    wrong = chain.from_iterable(part(loaded) for part in parts)
    texts = dict.fromkeys(str(refusal(loaded, name, reason)) for name, reason in wrong)
    if texts:
        raise SettingError("; ".join(texts))


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
    try:
        parse_networks(settings.listen.http_trusted_proxies)
    except ValueError as error:
        yield "http_trusted_proxies", str(error)
    if not (settings.logins.http_secret.isascii() and settings.logins.http_secret.isprintable()):
        yield "http_secret", "a character in it cannot be in a header"
    secret = settings.logins.token_secret
    if secret and len(secret.encode()) < MIN_SECRET:
        yield "token_secret", f"a secret for tokens has at least {MIN_SECRET} bytes"


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
            "cannot be used together with --auth: clients of the predecessor's bus name no user",
        )
    if settings.bus.kind == "off":
        yield "bus_compatible_addr", "needs a bus; set --bus local or --bus rabbit"


def _rules(loaded: Loaded) -> Iterator[tuple[str, str]]:
    yield from _patterns(loaded)
    try:
        for pattern in loaded.settings.bus.direct:
            pattern_name(pattern)
    except ValueError as error:
        yield "bus_direct", str(error)
    for name, actions in RULES.items():
        yield from _permissions(loaded, name, partial(parse_rule, actions=actions))
    yield from _permissions(loaded, GRANTS, lambda text: parse_grant(text).rule)


def _patterns(loaded: Loaded) -> Iterator[tuple[str, str]]:
    for name in PATTERNS:
        try:
            patterns = list(map(check_pattern, value_of(loaded.settings, name)))
        except ValueError as error:
            yield name, str(error)
            return
        if not loaded.settings.listen.auth and any(OWN_NAME in pattern for pattern in patterns):
            yield name, f"{OWN_NAME} needs --auth: without it anybody may use any name"


def _permissions(
    loaded: Loaded, name: str, parse: Callable[[str], Rule]
) -> Iterator[tuple[str, str]]:
    for number, text in enumerate(value_of(loaded.settings, name), 1):
        try:
            rule = parse(text)
        except ValueError as error:
            yield name, f"rule {number}: {error}"
            return
        if rule.personal and not loaded.settings.listen.auth:
            yield (
                name,
                f"rule {number} needs --auth: without it anybody may use the name {rule.users!r}",
            )


def _topics(loaded: Loaded) -> Iterator[tuple[str, str]]:
    if topics_kind(loaded.settings) != "off":
        from kupool.daemon.new_topics import new_topic_problems  # not needed without topics

        yield from new_topic_problems(loaded.settings.new_topics)
    advertised = loaded.settings.topics.advertise
    host, _, port = advertised.rpartition(":")
    if advertised and not (host and port.isdecimal() and 0 < int(port) < 65536):
        yield "topics_advertise", f"{advertised!r} is not HOST:PORT"


def _live(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings.live
    if settings.offered == "off":
        return
    from kupool.daemon.live_rules import rule_problems  # not needed without live channels

    for text in rule_problems(loaded.settings):
        yield "live_rules", text
    secret = settings.token_secret
    if secret and len(secret.encode()) < MIN_SECRET:
        yield "live_token_secret", f"a secret for tokens has at least {MIN_SECRET} bytes"
    key = settings.api_key
    if key and (len(key) < MIN_SECRET or not (key.isascii() and key.isprintable())):
        yield "live_api_key", f"a key has at least {MIN_SECRET} characters, all of them ASCII"


def _bus(loaded: Loaded) -> Iterator[tuple[str, str]]:
    settings = loaded.settings
    if settings.bus.operators and not settings.listen.auth:
        yield "bus_operators", "needs --auth: without it anybody may use the name of an operator"
    if not (settings.bus.token.isascii() and settings.bus.token.isprintable()):
        yield "bus_token", "it has a character that an HTTP header cannot hold"
    if settings.bus.kind == "rabbit":
        name = "bus_url" if settings.bus.url.strip() else "mq_url"
        if not value_of(settings, name).strip():
            yield "bus_url", "--bus rabbit needs the address of a broker"
            return
        yield from broker_problems(name, value_of(settings, name))
