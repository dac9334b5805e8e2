"""Live push: channels that fan messages out to bounded outboxes. Nothing here is durable."""

from __future__ import annotations

from kupool.live.hub import Channel, Hub, LatestChannel
from kupool.live.interfaces import IChannel

__all__ = ["Channel", "Hub", "IChannel", "LatestChannel"]
