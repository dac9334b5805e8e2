"""What counts as one address. Pure."""

from __future__ import annotations

from ipaddress import ip_address


def network_of(host: str) -> str:
    """Return what counts as one address: of IPv6 the first 64 bits, which one peer may have.

    What is no address, such as an empty host, is returned as it is.
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
