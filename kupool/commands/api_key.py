"""The key of the server API of live channels, as a daemon with these settings has it."""

from __future__ import annotations

from pathlib import Path

from kupool.daemon.files import API_KEY_FILE
from kupool.settings import Settings
from kupool.settings_file import read_secret


def api_key(settings: Settings) -> str:
    """Return the key of the settings, or else that in the data folder. Blocking.

    Raises :class:`ValueError` if there is none.
    """
    if settings.live.api_key:
        return settings.live.api_key
    path = Path(settings.storage.data) / API_KEY_FILE
    try:
        return read_secret(str(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; the daemon makes this file at its first start: name its data folder "
            "with --data"
        ) from None


__all__ = ["api_key"]
