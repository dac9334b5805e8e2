"""Load the configuration of a server from ``application.json``, or the same in YAML.

The keys are those of ``config/application.json`` of the Go framework.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import kupool
from kupool.ranges import Check, whole
from kupool.settings_file import read_mapping

#: Default path of the file, relative to the working directory.
DEFAULT_PATH = "config/application.json"


class ConfigError(ValueError):
    """A configuration file is invalid; the text lists every problem and where it is."""

    def __init__(self, path: str, problems: list[str]) -> None:
        super().__init__(f"{path}: {'; '.join(problems)}")
        self.path = path
        self.problems = problems


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, not {value!r}")
    return value


def _ip_version(value: object) -> str:
    if value not in ("tcp4", "tcp6"):
        raise ValueError(f"expected tcp4 or tcp6, not {value!r}")
    return str(value)


_COUNT = whole(0, 2**31 - 1)


def _key(name: str, default: Any, parse: Check) -> Any:
    return field(default=default, metadata={"key": name, "parse": parse})


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of a server. Sizes are in bytes; 0 turns a limit off.

    With a ``worker_pool_size`` of 0, messages are handled where they are read.
    ``max_worker_task_len`` is the queue length of each worker.
    """

    name: str = _key("Name", "KuPool", _text)
    ip_version: str = _key("IPVersion", "tcp4", _ip_version)
    host: str = _key("Host", "0.0.0.0", _text)  # noqa: S104  the documented default
    tcp_port: int = _key("TcpPort", 8999, whole(0, 65535))
    max_conn: int = _key("MaxConn", 1000, _COUNT)
    worker_pool_size: int = _key("WorkerPoolSize", 10, _COUNT)
    max_packet_size: int = _key("MaxPacketSize", 4096, _COUNT)
    max_worker_task_len: int = _key("MaxWorkerTaskLen", 1024, whole(1, 2**31 - 1))
    version: str = _key("Version", kupool.__version__, _text)

    @property
    def address(self) -> str:
        """Where to listen, as an address or endpoint string.

        With ``tcp6``, 0.0.0.0 means every address, and a name is resolved to IPv6
        addresses.
        """
        host = self.host
        if self.ip_version == "tcp6" and host == "0.0.0.0":  # noqa: S104
            host = "::"
        if ":" in host:
            return f"[{host}]:{self.tcp_port}"
        if _is_address(host):
            return f"{host}:{self.tcp_port}"
        kind = "tcp6" if self.ip_version == "tcp6" else "tcp"
        return f"{kind}:{self.tcp_port}:interface={host}"

    @classmethod
    def load(cls, path: str = DEFAULT_PATH) -> ServerConfig:
        """Load a file: JSON if its name ends in ``.json``, else YAML.

        A missing file gives the defaults. Raises :class:`ConfigError` for a file that
        cannot be read, for unknown keys and for invalid values.
        """
        if not Path(path).exists():
            return cls()
        try:
            found = read_mapping(path)
        except ValueError as error:
            raise ConfigError(path, [str(error)]) from None
        return cls.from_mapping(found, path)

    @classmethod
    def from_mapping(cls, found: Mapping[str, object], source: str = "settings") -> ServerConfig:
        """Return the configuration in a mapping that has the keys of the file.

        Raises :class:`ConfigError`, which names ``source``.
        """
        known = {f.metadata["key"]: f for f in fields(cls)}
        values: dict[str, Any] = {}
        problems = []
        for key, value in found.items():
            if key not in known:
                problems.append(_unknown(str(key), list(known)))
                continue
            try:
                values[known[key].name] = known[key].metadata["parse"](value)
            except ValueError as error:
                problems.append(f"{key}: {error}")
        made = cls(**values)
        problems += made._contradictions()
        if problems:
            raise ConfigError(source, problems)
        return made

    def _contradictions(self) -> list[str]:
        try:
            version = ip_address(self.host).version
        except ValueError:
            return []  # a name may have IPv4 and IPv6 addresses
        if version == 6 and self.ip_version == "tcp4":
            return [f"Host: {self.host} is not an address of IPVersion tcp4"]
        return []


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return not host
    return True


def _unknown(key: str, known: list[str]) -> str:
    alike = difflib.get_close_matches(key.lower(), [k.lower() for k in known], 1)
    hint = next((f", did you mean {k!r}?" for k in known if alike and k.lower() == alike[0]), "")
    return f"unknown key {key!r}{hint}"


__all__ = ["DEFAULT_PATH", "ConfigError", "ServerConfig"]
