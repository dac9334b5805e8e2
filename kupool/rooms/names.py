"""The rule for names of rooms, users, players and modes."""

from __future__ import annotations

from kupool.errors import BAD_PARAMS, RequestError


def check_name(name: str, limit: int) -> None:
    """Raise :class:`RequestError` ``bad params`` for a name that is empty, too long or not
    encodable.
    """
    if not 0 < len(name) <= limit:
        raise RequestError(BAD_PARAMS.about(f"a name has 1 to {limit} characters"))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise RequestError(BAD_PARAMS.about(f"{name!r} is no Unicode text")) from None


__all__ = ["check_name"]
