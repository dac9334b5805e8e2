"""Why the data folder, or a file in it, cannot be used: in one line, with what to do."""

from __future__ import annotations

import stat
from pathlib import Path


def not_a_folder(path: Path, setting: str) -> str:
    """Say what keeps a path from being the daemon's data folder; empty where it may be one.

    ``setting`` names where the path comes from.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{path}: no such folder; is {setting} the daemon's data folder?"
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISDIR(mode):
        return f"{path}: this is not a folder; {setting} has to name the daemon's data folder"
    return ""


def missing_file(path: Path, setting: str) -> str:
    """Say why a file of the data folder cannot be opened; empty where it is there."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{path}: no such file; is {setting} the daemon's data folder?"
    except NotADirectoryError:
        return not_a_folder(path.parent, setting)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if stat.S_ISREG(mode) else f"{path}: this is not a file, as it should be"


__all__ = ["missing_file", "not_a_folder"]
