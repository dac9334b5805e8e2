"""The routes that make changes, and which hosts a request may name."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from kupool.kinds import format_duration, parse_duration
from kupool.pool.coordinator import RotationFailed
from kupool.timing.buckets import Bucket
from kupool.web import IStatusSource
from kupool.web.answers import ApiError, header, read_json

#: The most new jobs that may be made at once.
ROTATIONS = 5.0

#: The shortest and the longest time between jobs that can be set here, in seconds: no faster than
#: new jobs can be made by hand.
SHORTEST = 1.0
LONGEST = 86_400.0

#: Names of this machine that no other site can use.
LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


class KnownHosts:
    """The hosts that a request may name as this server, besides the loopback.

    A page on another site can make a browser send requests here under that site's name, if the name
    resolves to this machine. So the name has to be known. Raises :class:`ValueError` for a text
    that is not a host name, such as one with a port.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = LOOPBACK | {_host_name(name) for name in names}

    def known(self, request: Request) -> bool:
        """Say whether a request names a known host."""
        return self.knows(header(request, b"host") or "")

    def knows(self, host: str) -> bool:
        """Say whether a ``Host`` header names a known host, with any port."""
        return host_of(host) in self._names

    def require(self, request: Request) -> None:
        """Refuse a request that names another host; raises :class:`ApiError`."""
        if not self.known(request):
            raise ApiError(403, "Host: this server is not known under that name")


def host_of(host: str) -> str:
    """Return the host of a ``Host`` header, in lower case and without the port.

    Empty if the header is invalid.
    """
    try:
        parts = urlsplit("//" + host)
        parts.port  # noqa: B018  raises ValueError where it is no port
    except ValueError:
        return ""
    plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    return (parts.hostname or "") if plain else ""


def _host_name(name: str) -> str:
    plain = name.lower().strip("[]")
    if not plain or host_of(f"[{plain}]" if ":" in plain else plain) != plain:
        raise ValueError(f"{name!r} is not the name or address of a host")
    return plain


class JobControl:
    """Answers the routes under ``/jobs``.

    At most :data:`ROTATIONS` new jobs may be made at once, and one more each second: each job is a
    message to all sessions, and retires older jobs.
    """

    def __init__(self, clock: IReactorTime, source: IStatusSource) -> None:
        self._clock = clock
        self._source: Any = source
        self._rotations = Bucket(1.0, ROTATIONS, clock.seconds())

    async def rotate(self, request: Request) -> object:
        """``POST /jobs/rotate``: make a new job now."""
        read_json(request)
        now = self._clock.seconds()
        if not self._rotations.spend(now):
            seconds = max(1, ceil(self._rotations.wait(now)))
            raise ApiError(
                429,
                "too many new jobs: five at once, then one a second",
                {b"Retry-After": b"%d" % seconds},
            )
        try:
            job_id = await self._source.rotate()
        except RotationFailed as error:
            raise ApiError(503, f"no new job: {error}") from None
        return {"job_id": job_id}

    async def interval(self, request: Request) -> object:
        """``POST /jobs/interval``: change the time between jobs."""
        text = read_json(request).get("interval")
        if not isinstance(text, str):
            raise ApiError(400, 'interval: must be a duration as text, such as "30s"')
        try:
            seconds = parse_duration(text)
            if not SHORTEST <= seconds <= LONGEST:
                raise ValueError(
                    f"must be from {format_duration(SHORTEST)} to {format_duration(LONGEST)}"
                )
            self._source.set_interval(seconds)
        except ValueError as error:
            raise ApiError(400, f"interval: {error}") from None
        return {"interval": format_duration(seconds)}


__all__ = ["LOOPBACK", "JobControl", "KnownHosts", "host_of"]
