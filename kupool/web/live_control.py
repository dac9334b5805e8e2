"""The routes under ``/api/live``: the load of live channels, and how often the pool is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.web.server import Request

from kupool.kinds import format_duration, parse_duration
from kupool.web.answers import ApiError, read_json

#: The shortest and the longest time between two snapshots, in seconds.
SHORTEST = 0.1
LONGEST = 3600.0

LIVE_STATUS = "/api/live/status"


class LiveControl:
    """Answers the routes; ``set_interval`` takes seconds, ``load`` returns the status as JSON."""

    def __init__(
        self, set_interval: Callable[[float], object], load: Callable[[], Awaitable[object]]
    ) -> None:
        self._set_interval = set_interval
        self._load = load

    async def status(self, request: Request) -> object:
        """``GET /api/live/status``: the load, and what was done about it."""
        return await self._load()

    async def interval(self, request: Request) -> object:
        """``POST /api/live/interval``: change the time between snapshots."""
        text = read_json(request).get("interval")
        if not isinstance(text, str):
            raise ApiError(400, 'interval: must be a duration as text, such as "5s"')
        try:
            seconds = parse_duration(text)
            if not SHORTEST <= seconds <= LONGEST:
                raise ValueError(
                    f"must be from {format_duration(SHORTEST)} to {format_duration(LONGEST)}"
                )
        except ValueError as error:
            raise ApiError(400, f"interval: {error}") from None
        self._set_interval(seconds)
        return {"interval": format_duration(seconds)}


__all__ = ["LIVE_STATUS", "LONGEST", "SHORTEST", "LiveControl"]
