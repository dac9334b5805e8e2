"""What rooms, users, players and modes may be called."""

from __future__ import annotations

from kupool.errors import BAD_PARAMS, RequestError


def check_name(name: str, limit: int) -> None:
    """Raise :class:`RequestError` ``bad params`` for a name that is empty or too long."""
    if not 0 < len(name) <= limit:
        raise RequestError(BAD_PARAMS.about(f"a name has 1 to {limit} characters"))


__all__ = ["check_name"]
