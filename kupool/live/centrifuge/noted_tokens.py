"""Tokens that are refused, in the log: the client is only told that its token is invalid."""

from __future__ import annotations

from kupool.live.centrifuge.tokens import ChannelClaims, ConnectionClaims, InvalidTokenError
from kupool.live.centrifuge.world import TokenChecker
from kupool.net.refusals import Refusals


class NotedTokens:
    """Checks tokens as another checker does; counts and logs why tokens are invalid.

    Without a ``checker`` no token is valid. That a token has expired is usual, and is not noted.
    """

    def __init__(self, checker: TokenChecker | None, refusals: Refusals) -> None:
        self._checker = checker
        self._refusals = refusals

    def connection(self, token: str) -> ConnectionClaims:
        """Return what a connection token says; raises as the checker does."""
        try:
            return self._known().connection(token)
        except InvalidTokenError as error:
            self._refusals.note(f"live clients, connection token: {error}")
            raise

    def channel(self, token: str, channel: str, user: str) -> ChannelClaims:
        """Return what a channel token says; raises as the checker does."""
        try:
            return self._known().channel(token, channel, user)
        except InvalidTokenError as error:
            self._refusals.note(f"live clients, channel token: {error}")
            raise

    def _known(self) -> TokenChecker:
        if self._checker is None:
            raise InvalidTokenError("--live-token-secret is not set, so no token is valid")
        return self._checker


__all__ = ["NotedTokens"]
