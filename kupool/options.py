"""Command-line flags of the settings, on :mod:`twisted.python.usage`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import Field
from typing import Any

from twisted.python import usage

from kupool.masking import mask
from kupool.printable import printable
from kupool.settings import (
    BROKER_FLAGS,
    ENV_PREFIX,
    GONE,
    Settings,
    declared,
    expected,
    flag_name,
    no_longer,
    repeatable,
    secret_files,
    shown,
)

#: The defaults of the settings, as texts.
_DEFAULTS = shown(Settings())

#: The name of ``addr`` in a broker of Go-Queue.
_CLIENT_ADDR = "client_addr"

_GO_FLAG = re.compile(r"--?([a-z][a-z_-]+)(=.*)?", re.DOTALL)


def _help(name: str, f: Field[Any]) -> str:
    default = _DEFAULTS[name]
    usual = f", default {default}" if default else ""
    again = ", repeatable" if repeatable(f) else ""
    return f"{f.metadata['doc']} ({expected(f)}{usual}{again}) [{ENV_PREFIX}{name.upper()}]"


def _help_of_file(name: str, of: str) -> str:
    return f"file with the value of --{flag_name(of)} (PATH) [{ENV_PREFIX}{name.upper()}]"


def _several(name: str) -> Callable[[SettingOptions, str], None]:
    """Return the method of a repeatable flag."""

    def option(self: SettingOptions, value: str) -> None:
        self.flags.setdefault(name, []).append(value)

    option.__doc__ = _help(name, declared()[name])
    return option


class SettingOptions(usage.Options):
    """One flag for each setting, such as ``--pg-dsn X``.

    It also accepts the single dash and the underscores of the first implementation:
    ``-pg_dsn X``. The given values are in ``flags``, by the name of the setting.
    """

    optParameters = (
        [
            [flag_name(name), None, None, _help(name, f)]
            for name, f in declared().items()
            if not repeatable(f)
        ]
        + [
            [flag_name(name), None, None, _help_of_file(name, of)]
            for name, of in secret_files().items()
        ]
        + [
            [
                flag_name(name),
                None,
                None,
                "accepted for brokers of Go-Queue; it has no meaning here",
            ]
            for name in BROKER_FLAGS
        ]
    )

    opt_addr = _several("addr")
    opt_ws_origins = _several("ws_origins")
    opt_http_hosts = _several("http_hosts")
    opt_http_trusted_proxies = _several("http_trusted_proxies")
    opt_token_keys = _several("token_keys")
    opt_proxy_trusted = _several("proxy_trusted")
    opt_auth = _several("auth")
    opt_permissions = _several("permissions")
    opt_bus_publish = _several("bus_publish")
    opt_bus_subscribe = _several("bus_subscribe")
    opt_bus_direct = _several("bus_direct")
    opt_bus_permissions = _several("bus_permissions")
    opt_bus_operators = _several("bus_operators")
    opt_rooms_create = _several("rooms_create")
    opt_rooms_join = _several("rooms_join")
    opt_rooms_match = _several("rooms_match")
    opt_rooms_permissions = _several("rooms_permissions")
    opt_bus_origins = _several("bus_origins")
    opt_live_rules = _several("live_rules")

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.flags: dict[str, Any] = {}

    def parseOptions(self, options: Any = None) -> None:
        """Parse arguments, including Go's flag syntax; an error ends the process with one line."""
        try:
            usage.Options.parseOptions(self, None if options is None else _as_flags(list(options)))
        except usage.UsageError as error:
            raise SystemExit(f"kupool: {printable(_with_hint(str(error)))}; see --help") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse positional arguments; raises :class:`usage.UsageError`."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {mask(arguments[0])!r}")

    def postOptions(self) -> None:
        """Collect the given values."""
        single = [name for name, f in declared().items() if not repeatable(f)]
        for name in (*single, *secret_files(), *BROKER_FLAGS):
            if self.get(flag_name(name)) is not None:
                self.flags[name] = self[flag_name(name)]


def _with_hint(text: str) -> str:
    """Add a hint to an unknown flag: the similar one, or that it was removed."""
    found = re.fullmatch(r"option --(\S+) not recognized", text)
    if found and found[1].replace("-", "_") in GONE:
        return f"option --{found[1]}: {no_longer(found[1].replace('-', '_'))}"
    known = map(flag_name, (*declared(), *secret_files()))
    near = difflib.get_close_matches(found[1], known, 1) if found else []
    return f"{text}, did you mean --{near[0]}?" if near else text


def _as_flags(arguments: list[str]) -> list[str]:
    """Change ``-pg_dsn`` to ``--pg-dsn`` if that is a setting; values are not changed."""
    names = (*declared(), *secret_files(), *GONE, *BROKER_FLAGS, _CLIENT_ADDR)
    known = {flag_name(name) for name in names}
    result, value_follows = [], False
    for argument in arguments:
        found = None if value_follows else _GO_FLAG.fullmatch(argument)
        name = flag_name(found[1]) if found else ""
        value_follows = False
        if found and name in known:
            name = "addr" if name == flag_name(_CLIENT_ADDR) else name
            argument = f"--{name}{found[2] or ''}"
            value_follows = found[2] is None
        result.append(argument)
    return result
