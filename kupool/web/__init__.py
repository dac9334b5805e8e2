"""The HTTP API, and the pool's protocol over WebSocket.

This package does not access the daemon directly. It gets data from an :class:`IStatusSource`, which
the composition root implements, and from a :class:`kupool.stats.IStatsStore`.
:func:`kupool.web.site.make_site` builds the site.
"""

from __future__ import annotations

from kupool.web.interfaces import IStatusSource, Overview, ShutdownStatus

__all__ = ["IStatusSource", "Overview", "ShutdownStatus"]
