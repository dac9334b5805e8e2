"""The rules of live channels as the settings have them: a pattern and options, as words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from kupool.daemon.files import topics_kind
from kupool.daemon.live_channels import product_rules
from kupool.kinds import parse_count, parse_duration
from kupool.live.rules import ChannelKind, ChannelRule, QueuePolicy
from kupool.settings import NodeLiveSettings, Settings

#: The words for yes and no.
_SWITCH = {"on": True, "off": False}


def _switch(text: str) -> bool:
    if text not in _SWITCH:
        raise ValueError(f"expected on or off, not {text!r:.40}")
    return _SWITCH[text]


def _one_of(kind: type[Enum]) -> Callable[[str], Enum]:
    def parse(text: str) -> Enum:
        try:
            return kind(text)
        except ValueError:
            known = ", ".join(str(each.value) for each in kind)
            raise ValueError(f"expected one of {known}, not {text!r:.40}") from None

    return parse


#: How the options of a rule are read; each is a field of :class:`ChannelRule`.
OPTIONS: dict[str, Callable[[str], Any]] = {
    "kind": _one_of(ChannelKind),
    "topic": str,
    "partition": parse_count,
    "history_size": parse_count,
    "history_time": parse_duration,
    "recovery": _switch,
    "forced_recovery": _switch,
    "forced_positions": _switch,
    "presence": _switch,
    "join_leave": _switch,
    "forced_join_leave": _switch,
    "publish_by_clients": _switch,
    "most_subscribers": parse_count,
    "policy": _one_of(QueuePolicy),
    "queue": str,
}


def parse_channel_rule(text: str, settings: NodeLiveSettings) -> ChannelRule:
    """Return the rule in a line such as ``news.* history_size=10 presence=on``.

    What it does not say about its history the ``settings`` say. Raises :class:`ValueError`, which
    quotes the rule.
    """
    try:
        return _parsed(text.split(), settings)
    except ValueError as error:
        raise ValueError(f"{text!r:.100}: {error}") from None


def _parsed(words: list[str], settings: NodeLiveSettings) -> ChannelRule:
    if not words or "=" in words[0]:
        raise ValueError("expected a pattern of channels, then options as NAME=VALUE")
    given: dict[str, Any] = {
        "history_size": settings.history_size,
        "history_time": settings.history_time,
    }
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or name not in OPTIONS:
            raise ValueError(f"{word!r:.40} is no option; there are {', '.join(OPTIONS)}")
        try:
            given[name] = OPTIONS[name](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    rule = ChannelRule(pattern=words[0], **given)
    rule.check()
    return rule


def channel_rules(settings: Settings) -> list[ChannelRule]:
    """Return the rules of all channels: those of the product first.

    Raises :class:`ValueError` for a rule that is not valid.
    """
    durable = topics_kind(settings) != "off"
    own = product_rules(durable=durable, events=durable and settings.topics.events == "on")
    return [*own, *(parse_channel_rule(text, settings.live) for text in settings.live.rules)]


def rule_problems(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the rules of the settings."""
    for number, text in enumerate(settings.live.rules, 1):
        try:
            rule = parse_channel_rule(text, settings.live)
        except ValueError as error:
            yield f"rule {number}: {error}"
            return
        if rule.kind is ChannelKind.DURABLE and topics_kind(settings) == "off":
            yield f"rule {number}: {text!r:.100}: a durable channel needs --topics"


__all__ = ["OPTIONS", "channel_rules", "parse_channel_rule", "rule_problems"]
