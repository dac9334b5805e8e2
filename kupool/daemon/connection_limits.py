"""How many connections there may be, by the settings and by the descriptors of the process."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from kupool.net.transport.proxied import TrustedProxies
from kupool.settings import LimitSettings, ListenSettings, NodeTopicsSettings
from kupool.web.crowd import HttpLimits

#: Most refused connections, and connections that wait for a PROXY header, at the same time.
REFUSED = 1000


def descriptor_limit() -> int:
    """Return the limit of file descriptors of this process; 0 means no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


@dataclass(frozen=True)
class DescriptorShares:
    """How many descriptors each part may use; 0 means any number."""

    clients: int = 0
    http: int = 0
    refused: int = REFUSED

    @classmethod
    def of(cls, settings: ListenSettings, descriptors: int) -> DescriptorShares:
        """Share ``descriptors``, 0 for any number, so that each part is left with some.

        HTTP gets at most a quarter: otherwise a flood there would leave none for the pool. The
        daemon keeps an eighth, from 32 to 256, for its files and servers. Refused connections, and
        connections that wait for a PROXY header, may have a sixteenth each. Clients get the rest.
        """
        most = settings.http_max_connections
        if not descriptors:
            return cls(0, most)
        http = max(2, descriptors // 4)
        http = min(most or http, http)
        refused = min(REFUSED, max(1, descriptors // 16))
        own = min(256, max(32, descriptors // 8))
        return cls(max(1, descriptors - http - own - 2 * refused), http, refused)

    def max_connections(self, limits: LimitSettings) -> int:
        """Return how many clients there may be; 0 means any number."""
        return min(filter(None, (limits.max_connections, self.clients)), default=0)


def trusted_proxies(settings: ListenSettings) -> TrustedProxies:
    """Return the proxies, which are never limited or banned as an address."""
    return TrustedProxies((*settings.proxy_trusted, *settings.http_trusted_proxies))


def http_limits(
    settings: ListenSettings, descriptors: int, topics: NodeTopicsSettings | None = None
) -> HttpLimits:
    """Return the limits of the HTTP server in a process with so many descriptors, 0 for any.

    Without ``topics`` nothing waits there.
    """
    topics = topics or NodeTopicsSettings()
    most = DescriptorShares.of(settings, descriptors).http
    return HttpLimits(
        max_connections=most,
        max_requests=settings.http_max_requests,
        max_requests_per_ip=settings.http_max_requests_per_ip,
        shared_hosts=trusted_proxies(settings),
        max_polls=topics.polls,
        max_polls_per_ip=topics.polls_per_ip,
        max_websockets=settings.ws_max_connections,
        request_timeout=settings.http_request_timeout,
        ping_interval=settings.ws_ping_interval,
    )


__all__ = ["DescriptorShares", "descriptor_limit", "http_limits", "trusted_proxies"]
