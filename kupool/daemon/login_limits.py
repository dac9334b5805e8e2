"""How many logins may fail, from the settings: for passwords, and for the keys of applications."""

from __future__ import annotations

from kupool.accounts.login_guard import LoginSettings
from kupool.settings import NodeLoginSettings


def login_settings(settings: NodeLoginSettings) -> LoginSettings:
    """Return how many logins may fail, and how long those who fail wait."""
    return LoginSettings(
        address_failures=settings.address_failures,
        user_failures=settings.user_failures,
        delay=settings.delay,
        wait=settings.wait,
    )


__all__ = ["login_settings"]
