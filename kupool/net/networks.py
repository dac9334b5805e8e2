"""Group addresses into networks for limits and bans. Pure."""

from __future__ import annotations

from ipaddress import ip_address


def network_of(host: str) -> str:
    """Return the network that counts as one address: for IPv6 the /64, else the address itself.

    A text that is not an address, such as an empty host, is returned unchanged.
    """
    if ":" not in host:
        return host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    mapped = address.ipv4_mapped
    return str(mapped) if mapped is not None else f"{address.exploded[:19]}::/64"


__all__ = ["network_of"]
