"""The settings by their flat names: what each may have, what it has, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, replace
from typing import Any, NamedTuple

from kupool.settings.declaration import Settings

#: The end of the name of a setting that names a file with a secret.
_FILE = "_file"


class _SettingPlace(NamedTuple):
    """Where a setting is: the name of its group, and its field there."""

    group: str
    field: Field[Any]


#: Every setting by its flat name, in the order in which they are shown.
_PLACES = {
    f.metadata["name"] or f.name: _SettingPlace(group.name, f)
    for group in fields(Settings)
    for f in fields(getattr(Settings, group.name))
}


def declared() -> dict[str, Field[Any]]:
    """Return the fields of all groups by the flat names of the settings."""
    return {name: place.field for name, place in _PLACES.items()}


def value_of(settings: Settings, name: str) -> Any:
    """Return the value of a setting by its flat name."""
    group, found = _PLACES[name]
    return getattr(getattr(settings, group), found.name)


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return settings in which some, by their flat names, have other values."""
    changed: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, found = _PLACES[name]
        changed.setdefault(group, {})[found.name] = value
    groups = {group: replace(getattr(settings, group), **new) for group, new in changed.items()}
    return replace(settings, **groups)


def reloadable() -> list[str]:
    """Return the names of the settings that need no restart."""
    return [name for name, f in declared().items() if f.metadata["reload"]]


def expected(f: Field[Any]) -> str:
    """Return which values a setting may have, as ``DURATION, at least 10ms`` or ``on|off``."""
    kind, least = f.metadata["kind"], f.metadata["least"]
    hint: str = kind.hint
    return hint if least is None else f"{hint}, at least {kind.show(least)}"


def repeatable(f: Field[Any]) -> bool:
    """Say whether a setting may be given several times."""
    return isinstance(f.default, tuple)


def secret_files() -> dict[str, str]:
    """Return the settings that name a file with a secret, and for each whose value it holds:
    ``pg_dsn_file`` for ``pg_dsn``. A repeatable setting has none.
    """
    return {
        name + _FILE: name
        for name, f in declared().items()
        if f.metadata["secret"] is not str and not repeatable(f)
    }


def holds_secret(settings: Settings, name: str) -> bool:
    """Say whether the value of a setting has a part that must not be shown."""
    f, value = declared()[name], value_of(settings, name)
    several = value if repeatable(f) else [f.metadata["kind"].show(value)]
    return any(f.metadata["secret"](one) != one for one in several)


def shown(settings: Settings) -> dict[str, str]:
    """Return every value as text by its flat name, secrets masked."""
    values = {}
    for name, f in declared().items():
        value, kind = value_of(settings, name), f.metadata["kind"]
        several = value if repeatable(f) else [kind.show(value)]
        values[name] = ", ".join(map(f.metadata["secret"], several))
    return values


__all__ = [
    "declared",
    "expected",
    "holds_secret",
    "reloadable",
    "repeatable",
    "secret_files",
    "shown",
    "value_of",
    "with_values",
]
