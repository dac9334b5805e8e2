"""Secrets in files of their own: where they are named, and what is refused."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from kupool.commands.settings_flags import add_settings_parser, given_flags, load_settings
from kupool.options import SettingOptions
from kupool.settings import (
    SettingError,
    Settings,
    changes,
    declared,
    flag_name,
    load,
    repeatable,
    secret_files,
    shown,
    value_of,
)
from kupool.settings_file import LARGEST_SECRET


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def file(self, text: str | bytes, name: str = "secret") -> str:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def refused(self, flags: dict[str, str], environ: dict[str, str] | None = None) -> str:
        return str(self.assertRaises(SettingError, load, flags, environ or {}))


class WhichTests(Case):
    """Issue 15, build 7: which settings have one follows from their declarations."""

    def test_those_that_are_masked(self) -> None:
        masked = {
            name
            for name, f in declared().items()
            if f.metadata["secret"] is not str and not repeatable(f)
        }
        self.assertEqual(set(secret_files().values()), masked)
        self.assertLessEqual(
            {"pg_dsn", "mq_url", "bus_url", "http_secret", "token_secret", "bus_token"}, masked
        )
        self.assertEqual(set(secret_files()) & set(declared()), set())

    def test_each_by_each_place(self) -> None:
        path = self.file(" s3cret \n\n")
        for file, name in secret_files().items():
            config = self.file(f"{file}: {path}\n", "kupool.yaml")
            for found, source in (
                (load({file: path}, {}), f"flag --{flag_name(file)}"),
                (load({}, {f"KUP_{file.upper()}": path}), f"environment KUP_{file.upper()}"),
                (load({"config": config}, {}), f"file {config}"),
            ):
                self.assertEqual(value_of(found.settings, name), "s3cret")
                self.assertEqual(found.sources[name], source)
                self.assertEqual(found.secrets, {name: path})

    def test_it_is_shown_as_the_secret_is(self) -> None:
        path = self.file("postgres://u:s3cret@h/d")
        loaded = load({"pg_dsn_file": path}, {})
        self.assertEqual(shown(loaded.settings)["pg_dsn"], "postgres://u:***@h/d")

    def test_none_is_named(self) -> None:
        """An empty name is none, as in the example file."""
        config = self.file('pg_dsn_file: ""\n', "kupool.yaml")
        loaded = load({"config": config, "mq_url": "amqp://h"}, {"KUP_MQ_URL_FILE": ""})
        self.assertEqual(loaded.settings.log.url, "amqp://h")
        self.assertEqual((loaded.settings.storage.pg_dsn, loaded.secrets), ("", {}))

    def test_the_flag_first(self) -> None:
        """K-90: also of the file."""
        one, two = self.file("one", "one"), self.file("two", "two")
        loaded = load({"pg_dsn_file": one}, {"KUP_PG_DSN_FILE": two})
        self.assertEqual(loaded.settings.storage.pg_dsn, "one")

    def test_a_reload_reads_it_again(self) -> None:
        path = self.file("one")
        old = load({"pg_dsn_file": path}, {}).settings
        self.file("two")
        new = load({"pg_dsn_file": path}, {}).settings
        now, restart = changes(old, new)
        self.assertEqual((now, restart), ([], ["pg_dsn"]))


class RefusalTests(Case):
    """Issue 15, build 7: one line, which names the setting, the file and where it is from."""

    def test_both(self) -> None:
        path = self.file("s3cret")
        for flags, environ, sources in (
            (
                {"pg_dsn": "x", "pg_dsn_file": path},
                {},
                ("flag --pg-dsn", "flag --pg-dsn-file"),
            ),
            (
                {"pg_dsn_file": path},
                {"KUP_PG_DSN": "x"},
                ("environment KUP_PG_DSN", "flag --pg-dsn-file"),
            ),
        ):
            self.assertEqual(
                self.refused(flags, environ),
                f"pg_dsn: both pg_dsn (from {sources[0]}) and pg_dsn_file (from {sources[1]}) are "
                "given; remove one of them",
            )

    def test_files_that_cannot_be_used(self) -> None:
        for path, why in (
            (str(self.folder / "none"), "No such file or directory"),
            (str(self.folder), "Is a directory"),
            (self.file("", "empty"), "the file is empty"),
            (self.file(" \n\n", "blank"), "the file is empty"),
            (self.file(b"s3cret\xff", "binary"), "not UTF-8 text, at byte 6"),
            ("/dev/zero", f"larger than {LARGEST_SECRET} bytes"),
        ):
            self.assertEqual(
                self.refused({}, {"KUP_MQ_URL_FILE": path}),
                f"mq_url_file: {path}: {why} (from environment KUP_MQ_URL_FILE)",
            )

    def test_one_that_must_not_be_read(self) -> None:
        path = self.file("s3cret")
        self.addCleanup(os.chmod, path, 0o600)
        os.chmod(path, 0)
        if os.access(path, os.R_OK):
            raise SkipTest("root reads every file")
        self.assertIn("Permission denied", self.refused({"pg_dsn_file": path}))

    def test_values_that_are_no_path(self) -> None:
        config = self.file("pg_dsn_file: [1]\n", "kupool.yaml")
        self.assertEqual(
            self.refused({"config": config}),
            f"pg_dsn_file: expected the path of a file (from file {config})",
        )

    def test_misspelt(self) -> None:
        """K-88: they are among the names that may be meant."""
        self.assertIn("did you mean KUP_PG_DSN_FILE?", self.refused({}, {"KUP_PG_DSN_FIEL": "x"}))
        options = SettingOptions()
        ended = self.assertRaises(SystemExit, options.parseOptions, ["--pg-dsn-fiel=x"])
        self.assertIn("did you mean --pg-dsn-file?", str(ended.code))


class FlagTests(Case):
    """Issue 15, build 7: the daemon and the commands take them in every spelling."""

    def test_the_daemon(self) -> None:
        for name in secret_files():
            for flag in (flag_name(name), name):
                for dash in ("-", "--"):
                    options = SettingOptions()
                    options.parseOptions([f"{dash}{flag}=x"])
                    self.assertEqual(options.flags, {name: "x"})
        text = " ".join(str(SettingOptions()).split())
        self.assertIn("file with the value of --pg-dsn (PATH) [KUP_PG_DSN_FILE]", text)

    def test_the_commands(self) -> None:
        path = self.file("postgres://u:s3cret@h/d")
        parser = ArgumentParser()
        add_settings_parser(parser.add_subparsers(), "config", "show", lambda arguments: 0)
        arguments = parser.parse_args(["config", "-pg_dsn_file", path])
        loaded = load_settings(arguments)
        assert loaded is not None
        self.assertEqual(loaded.settings.storage.pg_dsn, "postgres://u:s3cret@h/d")
        self.assertEqual(given_flags(arguments), [f"--pg-dsn-file={path}"])


class ModeTests(Case):
    """Issue 15, build 7: the permissions of Unix sockets are a setting."""

    def test_modes(self) -> None:
        self.assertEqual(shown(Settings())["unix_mode"], "666")
        for text, mode in (("660", 0o660), ("0600", 0o600), ("0o777", 0o777)):
            self.assertEqual(load({"unix_mode": text}, {}).settings.listen.unix_mode, mode)
        for text in ("", "8", "66", "888", "0o66", "1660", "rw-rw----", "060", "460", "-60"):
            self.assertIn("is not a mode such as 660", self.refused({"unix_mode": text}), text)

    def test_yaml(self) -> None:
        """YAML reads 0660 as a number in octal, 432: that must not become other permissions."""
        for text in ("660", '"0660"', "'660'"):
            config = self.file(f"unix_mode: {text}\n", "kupool.yaml")
            self.assertEqual(load({"config": config}, {}).settings.listen.unix_mode, 0o660)
        for mode in range(0o600, 0o1000):
            config = self.file(f'{{"unix_mode": {mode}}}', "kupool.json")
            if f"{mode:03o}" != f"{mode}":  # what YAML makes of the mode with a zero before it
                try:
                    got = load({"config": config}, {}).settings.listen.unix_mode
                except SettingError:
                    continue
                self.fail(f"0{mode:o} was taken for {got:o}")


class ProcessTests(Case):
    """K-89: from another file descriptor, as a shell passes one in."""

    def test_a_pipe(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with os.fdopen(writing, "w") as file:
            file.write("postgres://u:s3cret@h/d\n")
        loaded = load({"pg_dsn_file": f"/dev/fd/{reading}"}, {})
        self.assertEqual(loaded.settings.storage.pg_dsn, "postgres://u:s3cret@h/d")
