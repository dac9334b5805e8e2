"""The routes about what clients do: sessions, users, requests by minute, and the overview.

Times are RFC 3339, in UTC. A user with the role of a worker sees their own sessions and totals.

- ``GET /api/sessions``, with any of ``user``, ``search``, ``sort``, ``order``, ``limit``,
  ``offset``: ``total``, ``sessions``.
- ``GET /api/users``, with the same but ``user``: ``total``, ``users``, and ``forgotten``, how often
  a user was forgotten because there were too many. Counts are since the start of the daemon.
- ``GET /api/requests``, with ``minutes``, from 1 to 1440, by default 60: ``minutes``. Those in
  which the daemon did not run are left out.
- ``GET /api/overview``: the checks, and the figures of this moment.
- ``POST /api/sessions/close`` {``session``} or {``user``}, and perhaps ``reason``: ``closed``.
- ``POST /api/bans/add`` {``address``, ``seconds``}: the same, and ``closed``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Container, Mapping
from ipaddress import ip_address
from typing import Any

from twisted.web.server import Request

from kupool.activity.figures import SESSION_ORDERS, USER_ORDERS, SessionFigures, UserTotals
from kupool.activity.requests import Latency, RequestMinutes
from kupool.activity.sessions import SessionBook
from kupool.errors import BANNED, TRY_AGAIN
from kupool.net.networks import network_of
from kupool.pool.session import Session
from kupool.session.connection import Connection
from kupool.web.access import NOBODY
from kupool.web.answers import ApiError, read_json
from kupool.web.lists import SORTED, moment, own_user, page_of, parameters
from kupool.web.queries import parse_number, show_time

#: Minutes of ``/api/requests`` without a number, and the most.
DEFAULT_REQUESTS = 60
MAX_REQUESTS = 1440

#: The longest ban, in seconds: 30 days.
LONGEST_BAN = 30 * 86_400.0

#: The longest reason of a close, in characters.
LONGEST_REASON = 200

_SESSION = re.compile(r"[0-9a-f]{32}", re.ASCII)


class ActivityPages:
    """Answers what only reads.

    ``overview`` returns the answer of ``/api/overview``.
    """

    def __init__(
        self,
        book: SessionBook,
        requests: RequestMinutes,
        overview: Callable[[], Awaitable[object]],
    ) -> None:
        self._book = book
        self._requests = requests
        self._overview = overview

    async def sessions(self, request: Request) -> object:
        """``GET /api/sessions``: those that are connected."""
        given = parameters(request, ("user", "search", *SORTED))
        user = own_user(request, given.get("user"))
        search = given.get("search", "").casefold()

        def wanted(session: Session) -> bool:
            if user is not None and session.user != user:
                return False
            return not search or search in session.username.casefold() or search in session.peer

        order, page = page_of(given, SESSION_ORDERS, "since")
        total, found = await self._book.sessions(wanted, order=order, page=page)
        return {"total": total, "sessions": [_session(figures) for figures in found]}

    async def users(self, request: Request) -> object:
        """``GET /api/users``: the users, and what they did since the start."""
        given = parameters(request, ("search", *SORTED))
        own, search = own_user(request, None), given.get("search", "").casefold()

        def wanted(user: str) -> bool:
            return user == own if own is not None else search in user.casefold()

        order, page = page_of(given, USER_ORDERS, "sessions")
        total, found = await self._book.users(wanted, order=order, page=page)
        return {
            "total": total,
            "users": [_user(*each) for each in found],
            "forgotten": self._book.forgotten,
        }

    async def requests(self, request: Request) -> object:
        """``GET /api/requests``: the requests of the last minutes by their method."""
        given = parameters(request, ("minutes",))
        asked = parse_number("minutes", given.get("minutes"), DEFAULT_REQUESTS, MAX_REQUESTS)
        return {
            "minutes": [
                {
                    "minute": show_time(each.minute),
                    "methods": each.record.methods,
                    "accepted": each.record.accepted,
                    "rejected": each.record.rejected,
                    "latency_ms": show_latency(each.latency),
                }
                for each in await self._requests.minutes(asked)
            ]
        }

    async def overview(self, request: Request) -> object:
        """``GET /api/overview``: whether everything is all right, and the figures of now."""
        parameters(request, ())
        return await self._overview()


class SessionControl:
    """Answers the routes that end sessions.

    ``ban`` refuses an address for some seconds; the text is for the log. Addresses in ``shared``
    are those of proxies, behind which there are many clients.
    """

    def __init__(
        self,
        book: SessionBook,
        ban: Callable[[str, float, str], object],
        shared: Container[str] = (),
    ) -> None:
        self._book = book
        self._ban = ban
        self._shared = shared

    async def close(self, request: Any) -> object:
        """``POST /api/sessions/close``: end a session, or all of a user."""
        params = read_json(request)
        session, user = params.get("session"), params.get("user")
        if (session is None) == (user is None):
            raise ApiError(400, "session or user: expected one of them, as a text")
        if session is not None and not (isinstance(session, str) and _SESSION.fullmatch(session)):
            raise ApiError(400, "session: must be the id of a session, 32 digits of 0-9 and a-f")
        if user is not None and not (isinstance(user, str) and user):
            raise ApiError(400, 'user: must be the name of a user as text, such as "alice"')
        detail = "closed by an operator"
        reason = params.get("reason")
        if reason is not None:
            if not isinstance(reason, str) or not 0 < len(reason) <= LONGEST_REASON:
                raise ApiError(400, f"reason: must be a text of 1 to {LONGEST_REASON} characters")
            if not reason.isprintable():
                raise ApiError(400, "reason: must have no control characters")
            detail = f"{detail}: {reason}"

        def wanted(connection: Connection) -> bool:
            of: Session = connection.context
            return of.session_id.hex() == session if user is None else of.user == user

        closed = await self._book.close(wanted, TRY_AGAIN.about(detail))
        if session is not None and not closed:
            raise ApiError(404, f"not found: there is no session {session}")
        return {"closed": closed}

    async def ban(self, request: Any) -> object:
        """``POST /api/bans/add``: refuse an address for a while, and end its sessions."""
        params = read_json(request)
        address, seconds = params.get("address"), params.get("seconds")
        host = _address(address)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ApiError(400, "seconds: must be a number")
        if not 1 <= seconds <= LONGEST_BAN:
            raise ApiError(400, f"seconds: must be from 1 to {LONGEST_BAN:.0f}")
        if host in self._shared:
            raise ApiError(400, f"address: {host} is a trusted proxy, which others come through")
        identity = getattr(request, "identity", NOBODY)
        self._ban(host, float(seconds), f"by {identity.user or identity.role}")
        network = network_of(host)

        def wanted(connection: Connection) -> bool:
            return network_of(connection.host) == network

        reason = BANNED.about("banned by an operator")
        closed = await self._book.close(wanted, reason, retry_after=float(seconds))
        return {"address": network, "seconds": seconds, "closed": closed}


def _address(given: object) -> str:
    if isinstance(given, str):
        try:
            return str(ip_address(given))
        except ValueError:
            pass
    raise ApiError(400, 'address: must be an IP address as text, such as "192.0.2.7"')


def show_latency(latency: Latency | None) -> Mapping[str, float] | None:
    """Return a latency as answers have it, in milliseconds."""
    if latency is None:
        return None
    return {"p50": round(latency.p50 * 1000, 3), "p99": round(latency.p99 * 1000, 3)}


def _session(figures: SessionFigures) -> dict[str, object]:
    return {
        **figures._asdict(),
        "since": moment(figures.since),
        "last_submission": moment(figures.last_submission),
    }


def _user(user: str, totals: UserTotals) -> dict[str, object]:
    return {
        "user": user,
        "sessions": totals.sessions,
        "workers": len(totals.names or ()),
        "accepted": totals.accepted,
        "rejected": totals.rejected,
        "messages_in": totals.messages_in,
        "messages_out": totals.messages_out,
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "last_seen": moment(totals.last_seen),
    }


__all__ = [
    "DEFAULT_REQUESTS",
    "LONGEST_BAN",
    "LONGEST_REASON",
    "MAX_REQUESTS",
    "ActivityPages",
    "SessionControl",
    "show_latency",
]
