"""The HTTP API, and the pool's protocol over WebSocket.

This package does not reach into the daemon: what it shows and what it may do is asked
of an :class:`IStatusSource`, which the composition root implements, and of a
:class:`kupool.stats.IStatsStore`. :func:`kupool.web.site.make_site` puts it together.
"""

from __future__ import annotations

from kupool.web.interfaces import IStatusSource, Overview, ShutdownStatus

__all__ = ["IStatusSource", "Overview", "ShutdownStatus"]
