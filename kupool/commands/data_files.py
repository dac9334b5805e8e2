"""Says in one line why the data folder, or a file in it, cannot be used, and what to do."""

from __future__ import annotations

import stat
from pathlib import Path


def not_a_folder(path: Path, setting: str) -> str:
    """Say why a path cannot be the daemon's data folder; empty if it can.

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
    """Say why a file of the data folder cannot be opened; empty if it exists."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"{path}: no such file; is {setting} the daemon's data folder?"
    except NotADirectoryError:
        return not_a_folder(path.parent, setting)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if stat.S_ISREG(mode) else f"{path}: this has to be a file, and is not one"


__all__ = ["missing_file", "not_a_folder"]
