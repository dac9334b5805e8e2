"""The settings as command-line flags, in the way of :mod:`twisted.python.usage`."""

from __future__ import annotations

import re
from dataclasses import Field
from typing import Any

from twisted.python import usage

from kupool.settings import ENV_PREFIX, declared, flag_name, repeatable

_GO_FLAG = re.compile(r"--?([a-z][a-z_-]+)(=.*)?", re.DOTALL)


def _help(name: str, f: Field[Any]) -> str:
    kind = f.metadata["kind"]
    default = kind.show(f.default)
    shown = f", default {default}" if default else ""
    return f"{f.metadata['doc']} ({kind.hint}{shown}) [{ENV_PREFIX}{name.upper()}]"


class SettingOptions(usage.Options):
    """One flag for each setting: ``--pg-dsn X``.

    The single dash and the underscores of the first implementation are understood too:
    ``-pg_dsn X``. What was given is in ``flags``, by the name of the setting.
    """

    optParameters = [
        [flag_name(name), None, None, _help(name, f)]
        for name, f in declared().items()
        if not repeatable(f)
    ]

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.flags: dict[str, Any] = {}

    def parseOptions(self, options: Any = None) -> None:
        """Parse arguments, flags in Go's manner too."""
        usage.Options.parseOptions(self, None if options is None else _as_flags(list(options)))

    def postOptions(self) -> None:
        """Gather what was given."""
        for name, f in declared().items():
            if not repeatable(f) and self.get(flag_name(name)) is not None:
                self.flags[name] = self[flag_name(name)]

    def opt_addr(self, value: str) -> None:
        """Address to listen on, repeatable: :8080, host:8080 or a Twisted endpoint
        [KUP_ADDR]
        """
        self.flags.setdefault("addr", []).append(value)

    def opt_ws_origins(self, value: str) -> None:
        """Web origin that may open the WebSocket, repeatable [KUP_WS_ORIGINS]"""
        self.flags.setdefault("ws_origins", []).append(value)

    def opt_http_hosts(self, value: str) -> None:
        """Name by which the HTTP API may be changed, repeatable [KUP_HTTP_HOSTS]."""
        self.flags.setdefault("http_hosts", []).append(value)

    def opt_auth(self, value: str) -> None:
        """Checker of passwords, repeatable: file:/etc/kupool/passwd; see --help-auth
        [KUP_AUTH]
        """
        self.flags.setdefault("auth", []).append(value)


def _as_flags(arguments: list[str]) -> list[str]:
    """Turn ``-pg_dsn`` into ``--pg-dsn`` where that is a setting; leave values alone."""
    known = {flag_name(name) for name in declared()}
    result, value_follows = [], False
    for argument in arguments:
        found = None if value_follows else _GO_FLAG.fullmatch(argument)
        name = flag_name(found[1]) if found else ""
        value_follows = False
        if found and name in known:
            argument = f"--{name}{found[2] or ''}"
            value_follows = found[2] is None
        result.append(argument)
    return result
