"""The tokens of the Centrifuge protocol: JWTs that an application signs with a shared secret.

A *connection token* says who connects, and which channels the server subscribes them to. A *channel
token* permits one subscription. Times in them are seconds since the epoch. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from joserfc import jwk, jwt
from joserfc.errors import JoseError

#: The algorithms that are accepted.
ALGORITHMS = ("HS256", "HS384", "HS512")

#: The largest token that is looked at, in characters.
LONGEST_TOKEN = 16384

#: Seconds that the clock of who signs may be ahead of ours.
CLOCK_LEEWAY = 60.0

#: What a token may switch on or off for a subscription.
OVERRIDES = (
    "presence",
    "join_leave",
    "force_recovery",
    "force_positioning",
    "force_push_join_leave",
)


class InvalidTokenError(Exception):
    """A token is none, is signed by somebody else, or is for something else."""


class ForeignTokenError(InvalidTokenError):
    """A channel token is for another channel or another user."""


class ExpiredTokenError(Exception):
    """A token was valid until a time that has passed."""


class ServerSubscription(NamedTuple):
    """A channel that a token subscribes to; ``info`` and ``data`` are JSON, or empty."""

    info: bytes = b""
    data: bytes = b""
    override: Mapping[str, bool] = {}


class ConnectionClaims(NamedTuple):
    """What a connection token says; ``user`` is empty for an anonymous one.

    The connection ends at ``expires_at``, unless that is 0.
    """

    user: str
    expires_at: float
    info: bytes
    subscriptions: Mapping[str, ServerSubscription]


class ChannelClaims(NamedTuple):
    """What a channel token says; the subscription ends at ``expires_at``, unless that is 0."""

    user: str
    channel: str
    expires_at: float
    subscription: ServerSubscription


class CentrifugeTokens:
    """Checks tokens that are signed with a secret; ``wall`` returns seconds since the epoch."""

    def __init__(self, secret: str, wall: Callable[[], float]) -> None:
        self._key = jwk.OctKey.import_key(secret.encode())
        self._wall = wall

    def connection(self, token: str) -> ConnectionClaims:
        """Return what a connection token says.

        Raises :class:`InvalidTokenError` or :class:`ExpiredTokenError`.
        """
        claims = self._verified(token)
        if claims.get("channel"):
            raise InvalidTokenError("this is a token of a channel")
        return ConnectionClaims(
            _text(claims, "sub"), _end(claims), _json(claims.get("info")), _subscriptions(claims)
        )

    def channel(self, token: str, channel: str, user: str) -> ChannelClaims:
        """Return what a channel token says, if it is for a channel and a user.

        Raises :class:`InvalidTokenError` or :class:`ExpiredTokenError`, and
        :class:`ForeignTokenError` if it is for another channel or user.
        """
        claims = self._verified(token)
        found = ChannelClaims(
            _text(claims, "sub"), _text(claims, "channel"), _end(claims), _subscription(claims)
        )
        if (found.channel, found.user) != (channel, user):
            raise ForeignTokenError("the token is for another channel or another user")
        return found

    def _verified(self, token: str) -> dict[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise InvalidTokenError("the token is too long")
        try:
            claims = jwt.decode(token, self._key, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            raise InvalidTokenError("the token is not signed with the secret") from None
        now = self._wall()
        if _number(claims, "nbf") > now + CLOCK_LEEWAY:
            raise InvalidTokenError("the token is not valid yet")
        if 0 < _number(claims, "exp") <= now:
            raise ExpiredTokenError("the token has expired")
        return dict(claims)


def _end(claims: Mapping[str, Any]) -> float:
    return _number(claims, "expire_at" if claims.get("expire_at") is not None else "exp")


def _text(claims: Mapping[str, Any], name: str) -> str:
    found = claims.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise InvalidTokenError(f"{name}: expected text")
    return found


def _number(claims: Mapping[str, Any], name: str) -> float:
    found = claims.get(name)
    if found is None:
        return 0.0
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e12:
        raise InvalidTokenError(f"{name}: expected seconds since the epoch")
    return float(found)


def _json(value: object) -> bytes:
    return b"" if value is None else msgspec.json.encode(value)


def _subscriptions(claims: Mapping[str, Any]) -> dict[str, ServerSubscription]:
    subs, channels = claims.get("subs"), claims.get("channels")
    if subs is not None:
        if not isinstance(subs, dict):
            raise InvalidTokenError("subs: expected an object")
        return {name: _subscription({} if one is None else one) for name, one in subs.items()}
    if channels is None:
        return {}
    if not isinstance(channels, list) or not all(isinstance(name, str) for name in channels):
        raise InvalidTokenError("channels: expected a list of names")
    return {name: ServerSubscription() for name in channels}


def _subscription(one: object) -> ServerSubscription:
    if not isinstance(one, dict):
        raise InvalidTokenError("subs: expected an object for each channel")
    return ServerSubscription(_json(one.get("info")), _json(one.get("data")), _override(one))


def _override(one: Mapping[str, Any]) -> dict[str, bool]:
    found = one.get("override")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidTokenError("override: expected an object")
    switches = {}
    for name in OVERRIDES:
        switch = found.get(name)
        if switch is None:
            continue
        value = switch.get("value", False) if isinstance(switch, dict) else None
        if not isinstance(value, bool):
            raise InvalidTokenError(f'override: {name}: expected {{"value": true}} or false')
        switches[name] = value
    return switches


__all__ = [
    "ALGORITHMS",
    "CLOCK_LEEWAY",
    "LONGEST_TOKEN",
    "OVERRIDES",
    "CentrifugeTokens",
    "ChannelClaims",
    "ConnectionClaims",
    "ExpiredTokenError",
    "ForeignTokenError",
    "InvalidTokenError",
    "ServerSubscription",
]
