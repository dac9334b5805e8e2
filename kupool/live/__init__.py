"""Live push: channels that fan out to bounded outboxes. Nothing in here is durable."""

from __future__ import annotations

from kupool.live.interfaces import IChannel

__all__ = ["IChannel"]
