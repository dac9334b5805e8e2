"""Live push: channels that fan out to bounded outboxes. Nothing in here is durable."""

from __future__ import annotations

from kupool.live.hub import Channel, Hub, LatestChannel
from kupool.live.interfaces import IChannel

__all__ = ["Channel", "Hub", "IChannel", "LatestChannel"]
