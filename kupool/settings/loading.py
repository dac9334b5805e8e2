"""Loads the settings. Precedence: flag, ``KUP_*`` variable, file, default.

An error names the key and where its value came from.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import Field
from typing import Any, NamedTuple

from kupool.kinds import RULE
from kupool.settings.broker_file import (
    BrokerFile,
    is_of_broker,
    keys_of_brokers,
    meaningless,
    read_broker,
)
from kupool.settings.declaration import Settings
from kupool.settings.flat_names import (
    declared,
    reloadable,
    repeatable,
    secret_files,
    value_of,
    with_values,
)
from kupool.settings_file import read_mapping, read_secret

ENV_PREFIX = "KUP_"

#: Settings of the stream in RabbitMQ, which it gets when it is created.
STREAM_BOUNDS = frozenset(("log_retention", "log_max_size"))

#: Environment variables of commands that are clients of a daemon; they are no settings.
CLIENT_VARIABLES = ("KUP_USERNAME", "KUP_PASSWORD", "KUP_TOKEN", "KUP_URL")

#: Flags of a broker that are taken and have no meaning here.
BROKER_FLAGS = ("broker_id", "raft_addr")

#: Settings that older releases had, and what to do now.
GONE = {
    "allocator": "remove it: KuPool now uses Python's own allocator; for another one, "
    "see PYTHONMALLOC in docs/speed.md"
}


class SettingError(ValueError):
    """A setting has an invalid value; names the setting and the source of the value.

    The text has all such settings that were found, one after the other.
    """


def _raise_all(errors: Sequence[SettingError]) -> None:
    """Raise one error with the texts of all, if there are any."""
    if errors:
        raise SettingError("; ".join(map(str, errors)))


class Loaded(NamedTuple):
    """Settings, the source of each value, and the files of secrets that were read.

    ``secrets`` has the paths by the names of the settings. ``remarks`` are sentences about what was
    given and has no meaning.
    """

    settings: Settings
    sources: Mapping[str, str]
    secrets: Mapping[str, str]
    remarks: Sequence[str] = ()


class _Given(NamedTuple):
    """A value, as it was given, and where."""

    value: object
    source: str


class _Places(NamedTuple):
    """Where values may be given, the first one first."""

    flags: Mapping[str, object]
    environ: Mapping[str, str]
    in_file: Mapping[str, object]
    path: str
    #: By the name of a setting: the key of the file that it comes from, if that has another name.
    keys: Mapping[str, str]

    def find(self, name: str) -> _Given | None:
        """Return the value of a setting; None where it has its default."""
        variable = ENV_PREFIX + name.upper()
        if name in self.flags:
            return _Given(self.flags[name], flag_source(name))
        if variable in self.environ:
            return _Given(self.environ[variable], f"environment {variable}")
        if name in self.in_file:
            source = file_source(self.path)
            key = self.keys.get(name, name)
            return _Given(self.in_file[name], source if key == name else f"{key} in {source}")
        return None


def flag_name(name: str) -> str:
    """Return the flag of a setting, without its dashes."""
    return name.replace("_", "-")


def flag_source(name: str) -> str:
    """Return how a flag is named as the source of a setting."""
    return f"flag --{flag_name(name)}"


def file_source(path: str) -> str:
    """Return how a settings file is named as the source of a setting."""
    return f"file {path}"


def no_longer(name: str) -> str:
    """Say that a setting in :data:`GONE` does not exist any more, and what to do."""
    return f"no such setting any more: {GONE[name]}"


def load(flags: Mapping[str, str | Sequence[str]], environ: Mapping[str, str]) -> Loaded:
    """Return the settings. The order of precedence is flags, environment, file, defaults.

    ``flags`` holds the values by the name of the setting. Raises :class:`SettingError`, which
    names all settings that are wrong.
    """
    known = declared()
    for name in GONE:
        variable = ENV_PREFIX + name.upper()
        if name in flags:
            raise SettingError(f"{name}: {no_longer(name)} (from {flag_source(name)})")
        if variable in environ:
            raise SettingError(f"{name}: {no_longer(name)} (from environment {variable})")
    refuse_misspelt(environ)
    path = str(flags.get("config") or environ.get(ENV_PREFIX + "CONFIG") or "")
    found = _read_file(path) if path else BrokerFile({}, {}, ())
    places = _Places(flags, environ, found.settings, path, found.keys)
    files = {name: file for file, name in secret_files().items()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    secrets: dict[str, str] = {}
    errors: list[SettingError] = []
    for name, f in known.items():
        try:
            given = places.find(name)
            if given is not None:
                values[name] = _value(name, f, given.value, given.source)
            file = _named_file(files[name], places) if name in files else None
            if file is not None:
                if given is not None and values[name]:
                    raise SettingError(
                        f"{name}: both {name} (from {given.source}) and {files[name]} (from "
                        f"{file.source}) are given; remove one of them"
                    )
                given, secrets[name] = file, str(file.value)
                values[name] = _secret(files[name], file)
        except SettingError as error:
            errors.append(error)
        else:
            sources[name] = "default" if given is None else given.source
    _raise_all(errors)
    remarks = [meaningless(name) for name in BROKER_FLAGS if name in flags]
    remarks += (text for text in found.remarks if text not in remarks)
    return Loaded(with_values(Settings(), values), sources, secrets, remarks)


def _named_file(name: str, places: _Places) -> _Given | None:
    """Return the path that such a setting has; None where it has none, or an empty one."""
    given = places.find(name)
    if given is None or given.value == "":
        return None
    if not isinstance(given.value, str):
        raise SettingError(f"{name}: expected the path of a file (from {given.source})")
    return given


def _secret(name: str, file: _Given) -> str:
    path = str(file.value)
    try:
        return read_secret(path)
    except ValueError as error:
        raise SettingError(f"{name}: {path}: {error} (from {file.source})") from None


def _value(name: str, f: Field[Any], given: object, source: str) -> Any:
    try:
        if repeatable(f):
            several = given.split(",") if isinstance(given, str) else given
            if not isinstance(several, list | tuple):
                raise ValueError(f"expected a list, found a {type(given).__name__}")
            if f.metadata["kind"] is RULE:
                several = [_rule(one) for one in several]
            return tuple(_text(one).strip() for one in several if _text(one).strip())
        if isinstance(given, bool):  # which is what YAML takes these words for
            word = "on" if given else "off"
            given = word if word in f.metadata["kind"].hint.split("|") else given
        text = _text(given)
        value = f.metadata["kind"].parse(text)
        least = f.metadata["least"]
        if least is not None and value < least:
            shown = f.metadata["kind"].show(least)
            raise ValueError(f"{text!r} is less than {shown}")
        return value
    except ValueError as error:
        raise SettingError(f"{name}: {error} (from {source})") from None


def _rule(given: object) -> object:
    """Return a rule that a file has as a mapping in the words of :data:`RULE`."""
    if not isinstance(given, Mapping):
        return given
    rest = dict(given)
    words = [_text(rest.pop("pattern", ""))]
    if not words[0]:
        raise ValueError("a rule has no pattern")
    for name, value in rest.items():
        text = ("off", "on")[value] if isinstance(value, bool) else _text(value)
        words.append(f"{name}={text}")
    return " ".join(words)


def _text(given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        # Without the value, which may be a secret.
        raise ValueError(f"expected text or a number, found a {type(given).__name__}")
    return str(given)


def read_file(path: str) -> dict[str, object]:
    """Return the settings in a YAML, JSON or TOML file; raises :class:`SettingError`."""
    return _read_file(path).settings


def _read_file(path: str) -> BrokerFile:
    """Return the settings in a file, which may be that of a broker."""
    try:
        found = read_mapping(path)
    except ValueError as error:
        raise SettingError(f"config: {path}: {error}") from None
    if not is_of_broker(found, declared()):
        _check_keys(found, path)
        return BrokerFile(found, {}, ())
    try:
        broker = read_broker(found)
    except ValueError as error:
        raise SettingError(f"{error} (from {file_source(path)})") from None
    own = {key: value for key, value in found.items() if key not in keys_of_brokers()}
    _check_keys(own, path, keys_of_brokers())
    for name, key in broker.keys.items():
        if name in own and key in found:
            raise SettingError(
                f"{name}: both {name} and {key} are given; remove one of them (from "
                f"{file_source(path)})"
            )
    keys = {name: key for name, key in broker.keys.items() if name not in own}
    return BrokerFile({**broker.settings, **own}, keys, broker.remarks)


def _check_keys(found: Mapping[str, object], path: str, more: Sequence[str] = ()) -> None:
    known = [name for name in (*declared(), *secret_files(), *more) if name != "config"]
    errors = []
    for key in found:
        if key in GONE or key not in known:
            why = no_longer(str(key)) if key in GONE else _unknown(str(key), known)
            errors.append(SettingError(f"{key}: {why} (from {file_source(path)})"))
    _raise_all(errors)


def refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Refuse an environment variable with KuPool's prefix that KuPool does not know."""
    names = (*declared(), *secret_files(), *GONE)
    known = [ENV_PREFIX + name.upper() for name in names] + list(CLIENT_VARIABLES)
    _raise_all(
        [
            SettingError(f"{variable}: {_unknown(variable, known, ENV_PREFIX)} (from environment)")
            for variable in sorted(environ)
            if variable.startswith(ENV_PREFIX) and variable not in known
        ]
    )


def _unknown(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Say that there is no such setting, and which one is meant; ``prefix`` begins all names."""
    names = [one.removeprefix(prefix) for one in known]
    near = difflib.get_close_matches(name.removeprefix(prefix), names, 1)
    return "no such setting" + (f", did you mean {prefix}{near[0]}?" if near else "")


def changes(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """Return the names of changed settings: those that can be applied now, and the others."""
    differ = [name for name in declared() if value_of(old, name) != value_of(new, name)]
    now = set(reloadable())
    if old.log.kind == "rabbit":
        now -= STREAM_BOUNDS
    return [n for n in differ if n in now], [n for n in differ if n not in now]


__all__ = [
    "BROKER_FLAGS",
    "ENV_PREFIX",
    "GONE",
    "Loaded",
    "SettingError",
    "changes",
    "file_source",
    "flag_name",
    "flag_source",
    "load",
    "no_longer",
    "read_file",
    "refuse_misspelt",
]
