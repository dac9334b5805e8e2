"""Deprecated aliases: old names keep working, and warn with the new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any
from warnings import warn


def moved_names(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module from which names have moved.

    ``places`` maps old names to full new ones, such as ``kupool.net.delivery.Policy``. A
    name is imported when it is used. Each use of an old name is a
    :class:`DeprecationWarning`.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        where, _, new = places[name].rpartition(".")
        warn(
            f"{module}.{name} has moved: from {where} import {new}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(where), new)

    return find


__all__ = ["moved_names"]
