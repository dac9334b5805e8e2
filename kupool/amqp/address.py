"""Parse the broker addresses in a setting. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from kupool.masking import mask

_PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True)
class BrokerAddress:
    """The address of a broker, with the account and the virtual host to use."""

    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Broker {self}>"


def parse_brokers(url: str) -> tuple[BrokerAddress, ...]:
    """Parse ``amqp://user:password@host:5672/vhost,host2,host3:5673``.

    Addresses are separated by commas. An address without a scheme gets the scheme, account
    and virtual host of the first one. A virtual host after the last address applies to all,
    as in ``amqp://user:password@one,two/vhost``. The default port is 5672, or 5671 for
    ``amqps``. Write a comma in a password as ``%2C``. Raises :class:`ValueError`, without a
    password in its text.
    """
    parts = [part.strip() for part in url.split(",")]
    try:
        first = urlsplit(parts[0])
        if first.scheme not in _PORTS:
            raise ValueError("it must begin with amqp:// or amqps://")
        scheme, account = first.scheme, _account(parts[0])
        whole = [p if "://" in p else f"{scheme}://{account}{p}" for p in parts]
        vhosts = [path for path in (urlsplit(part).path for part in whole) if path]
        default = (vhosts[0] if vhosts else "/%2F").removeprefix("/")
        return tuple(_broker(part, default) for part in whole)
    except ValueError as error:
        raise ValueError(f"{mask(url)} is not the address of a broker: {error}") from None


def _account(part: str) -> str:
    """Return the account with its @, if there is one."""
    _, _, rest = part.partition("://")
    account, at, _ = rest.rpartition("@")
    return account + at


def _broker(part: str, default_vhost: str) -> BrokerAddress:
    parsed = urlsplit(part)
    if parsed.scheme not in _PORTS:
        raise ValueError("it must begin with amqp:// or amqps://")
    if not parsed.hostname:
        raise ValueError("a host is missing")
    if parsed.query or parsed.fragment:
        raise ValueError("unexpected text after the virtual host")
    try:
        port = parsed.port or _PORTS[parsed.scheme]
    except ValueError:
        raise ValueError("a port is a number up to 65535") from None
    return BrokerAddress(
        host=parsed.hostname,
        port=port,
        user=unquote(parsed.username if parsed.username is not None else "guest"),
        password=unquote(parsed.password if parsed.password is not None else "guest"),
        vhost=unquote(parsed.path.removeprefix("/") or default_vhost) or "/",
        tls=parsed.scheme == "amqps",
    )


__all__ = ["BrokerAddress", "parse_brokers"]
