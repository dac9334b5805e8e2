"""Lists the banned addresses, and lifts bans."""

from __future__ import annotations

from typing import Any

from twisted.web.server import Request

from kupool.web import IStatusSource
from kupool.web.access import NOBODY
from kupool.web.answers import ApiError, read_json


class BanPages:
    """Answers ``GET /bans`` and ``POST /bans/lift``."""

    def __init__(self, source: IStatusSource) -> None:
        self._source: Any = source

    async def list(self, request: Request) -> object:
        """``GET /bans``: each address with the remaining seconds."""
        bans = self._source.bans()
        return {"bans": [{"address": a, "seconds": round(s, 1)} for a, s in sorted(bans.items())]}

    async def lift(self, request: Request) -> object:
        """``POST /bans/lift``: end the ban of an address."""
        address = read_json(request).get("address")
        if not isinstance(address, str) or not address:
            raise ApiError(400, 'address: must be an address as text, such as "192.0.2.7"')
        identity = getattr(request, "identity", NOBODY)
        if not self._source.unban(address, identity.user or identity.role):
            raise ApiError(404, f"not found: {address!r:.100} is not banned")
        return {"address": address}


__all__ = ["BanPages"]
