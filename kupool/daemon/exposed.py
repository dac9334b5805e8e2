"""Finds secrets in the settings that other users of the machine can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from kupool.settings import (
    ENV_PREFIX,
    Loaded,
    declared,
    file_source,
    flag_name,
    flag_source,
    holds_secret,
    secret_files,
)


def exposed_secrets(loaded: Loaded) -> Iterator[str]:
    """Yield a sentence for each place where others can read a secret, with what to do."""
    secrets = [name for name in declared() if holds_secret(loaded.settings, name)]
    files = {name: file for file, name in secret_files().items()}
    for name in secrets:
        if loaded.sources[name] == flag_source(name):
            yield _on_command_line(name, files.get(name, ""))
    path = loaded.settings.process.config
    inside = [name for name in secrets if loaded.sources[name] == file_source(path)]
    if inside and _others_can_read(path):
        yield (
            f"The settings file {path} has secrets ({', '.join(inside)}), and every user of this "
            f"machine can read it: chmod o-r {path}"
        )
    for name, path in loaded.secrets.items():
        if _others_can_read(path):
            yield (
                f"The file {path} has the secret {name}, and every user of this machine can read "
                f"it: chmod o-r {path}"
            )


def _on_command_line(name: str, file: str) -> str:
    variable = ENV_PREFIX + name.upper()
    other = f"put it into a file and name that with --{flag_name(file)}, or use" if file else "use"
    return (
        f"The secret in --{flag_name(name)} is visible to every user of this machine in the list "
        f"of processes (ps): {other} {variable} or the settings file"
    )


def _others_can_read(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False  # it was read; whoever removed it since has ended the exposure


__all__ = ["exposed_secrets"]
