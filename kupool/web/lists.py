"""What the routes share that answer lists: parameters, and whose entries somebody may see."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from twisted.web.server import Request

from kupool.activity.selection import Page
from kupool.permissions.roles import WORKER
from kupool.web.access import NOBODY
from kupool.web.answers import ApiError
from kupool.web.queries import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    MINUTE,
    parse_number,
    parse_time,
    show_moment,
    single,
)

#: The largest offset of a list: what is further behind is found by a search. So few entries are
#: sorted in one turn of the reactor that nobody waits for it.
MAX_OFFSET = 10_000

#: The parameters of a sorted list.
SORTED = ("sort", "order", "limit", "offset")

ASCENDING, DESCENDING = "asc", "desc"


def parameters(request: Request, known: Collection[str]) -> dict[str, str]:
    """Return the parameters of a request; raises :class:`ApiError`."""
    return single(request.args or {}, known)


def limit_of(given: Mapping[str, str]) -> int:
    """Return how many entries are asked for; raises :class:`ApiError`."""
    return parse_number("limit", given.get("limit"), DEFAULT_LIMIT, MAX_LIMIT)


def page_of(given: Mapping[str, str], orders: Collection[str], default: str) -> tuple[str, Page]:
    """Return by what a list is sorted, one of ``orders``, and which part of it is asked for.

    Names are ascending by default, and numbers descending. Raises :class:`ApiError`.
    """
    order = _choice("sort", given.get("sort", default), orders)
    by_name = order in ("user", "username")
    usual = ASCENDING if by_name else DESCENDING
    way = _choice("order", given.get("order", usual), (ASCENDING, DESCENDING))
    offset = parse_number("offset", given.get("offset"), 0, MAX_OFFSET, least=0)
    return order, Page(limit_of(given), offset, way == DESCENDING)


def _choice(name: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise ApiError(400, f"{name}: expected one of {', '.join(known)}")
    return value


def start_of(given: Mapping[str, str]) -> float:
    """Return the ``from`` of a query in seconds since the epoch; 0 without one."""
    return float(parse_time("from", given["from"])[0]) if "from" in given else 0.0


def end_of(given: Mapping[str, str]) -> float | None:
    """Return the end of the minute ``to`` of a query, in seconds since the epoch."""
    if "to" not in given:
        return None
    at, whole = parse_time("to", given["to"])
    return float(at if whole else at + MINUTE)


def own_user(request: Any, wanted: str | None) -> str | None:
    """Return whose entries are asked for; None for everybody's.

    Raises :class:`ApiError` if a worker asks for those of somebody else.
    """
    identity = getattr(request, "identity", NOBODY)
    if identity.role != WORKER:
        return wanted
    if wanted is not None and wanted != identity.user:
        raise ApiError(
            403, f"forbidden: {identity.user} sees the sessions of {identity.user} alone"
        )
    user: str = identity.user
    return user


def moment(seconds: float | None) -> str | None:
    """Return a time as an answer has it, to the millisecond."""
    return None if seconds is None else show_moment(seconds)


__all__ = [
    "MAX_OFFSET",
    "SORTED",
    "end_of",
    "limit_of",
    "moment",
    "own_user",
    "page_of",
    "parameters",
    "start_of",
]
