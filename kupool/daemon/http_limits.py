"""The limits of the HTTP server, from the settings and the system."""

from __future__ import annotations

import resource

from kupool.settings import ListenSettings
from kupool.web.crowd import HttpLimits


def descriptor_limit() -> int:
    """Return the limit of file descriptors of this process; 0 means no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


def http_limits(settings: ListenSettings, descriptors: int) -> HttpLimits:
    """Return the limits of the HTTP server.

    HTTP connections may use at most a quarter of the process's ``descriptors``, if they are
    limited: otherwise a flood of them would leave none for the pool.
    """
    most = settings.http_max_connections
    if descriptors:
        quarter = max(2, descriptors // 4)
        most = min(most or quarter, quarter)
    return HttpLimits(
        max_connections=most,
        max_requests=settings.http_max_requests,
        max_websockets=settings.ws_max_connections,
        request_timeout=settings.http_request_timeout,
        ping_interval=settings.ws_ping_interval,
    )


__all__ = ["descriptor_limit", "http_limits"]
