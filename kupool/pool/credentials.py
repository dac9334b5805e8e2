"""Passwords: whatever Twisted's credential checkers check, in front of authorize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin

from kupool.callbacks import called


class NoUsableChecker(ValueError):
    """None of the configured checkers takes a username and a password."""


class Authenticator:
    """Asks each checker in turn; whom one lets in is in.

    Checkers come from :mod:`twisted.cred.strcred` (``--auth``) or from a program that
    embeds the pool. Raises :class:`NoUsableChecker` when none of those given can help.
    """

    def __init__(self, checkers: Sequence[ICredentialsChecker]) -> None:
        self._checkers: list[Any] = [
            checker for checker in checkers if IUsernamePassword in checker.credentialInterfaces
        ]
        if not self._checkers:
            raise NoUsableChecker("no checker given takes a username and a password")

    async def allowed(self, user: str, password: str | None) -> bool:
        """Say whether a user may come in.

        What a checker raises besides ``UnauthorizedLogin`` is passed on: it could not
        tell.
        """
        credentials = UsernamePassword(user.encode(), (password or "").encode())
        for checker in self._checkers:
            try:
                await called(checker.requestAvatarId, credentials)
            except UnauthorizedLogin:
                continue
            return True
        return False
