"""Settings: where they come from, what is refused, what is shown."""

from __future__ import annotations

import json
import os
import tempfile

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.checks import check
from kupool.masking import mask
from kupool.settings import (
    GONE,
    SettingError,
    Settings,
    changes,
    declared,
    flag_name,
    load,
    reloadable,
    repeatable,
    shown,
    value_of,
    with_values,
)


class FileCase(SynchronousTestCase):
    def file(self, text: str, name: str = "kupool.yaml") -> str:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, name)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        return path

    def refused(self, flags: dict[str, object], environ: dict[str, str] | None = None) -> str:
        error = self.assertRaises(SettingError, load, flags, environ or {})
        return str(error)


class MisspeltTests(FileCase):
    """K-88: a variable that is none of ours is named, as a key of the file is."""

    def test_variables(self) -> None:
        """K-88"""
        self.assertEqual(
            self.refused({}, {"KUP_ADR": ":1"}),
            "KUP_ADR: no such setting, did you mean KUP_ADDR? (from environment)",
        )
        self.assertEqual(
            self.refused({}, {"KUP_QQQQQ": "1"}), "KUP_QQQQQ: no such setting (from environment)"
        )
        self.assertNotIn("s3cret", self.refused({}, {"KUP_PG_DNS": "s3cret"}))

    def test_those_of_the_clients_and_of_others(self) -> None:
        """K-65: the clients' variables may be there, and whatever is not ours."""
        load({}, {"KUP_USERNAME": "alice", "KUP_PASSWORD": "x", "KUPOOL_X": "1", "ADDR": ":1"})


class AllErrorsTests(FileCase):
    """Q-69: a start names everything that is wrong, so that nobody has to start again for each."""

    def test_values(self) -> None:
        """Q-69: from all sources, in one line."""
        path = self.file("interval: soon\nexpire: 1s\n")
        text = self.refused({"config": path, "max_topics": "x"}, {"KUP_STORE": "mongo"})
        self.assertEqual(
            text,
            "store: 'mongo' is not one of sqlite, memory, pg (from environment KUP_STORE); "
            f"interval: 'soon' is not a duration such as 30s, 1h30m or 0 (from file {path}); "
            "max_topics: 'x' is not a whole number of 0 or more (from flag --max-topics)",
        )

    def test_names(self) -> None:
        """Q-69: unknown keys of a file, and unknown variables."""
        text = self.refused({"config": self.file("intervall: 1s\nfoo: 2\n")})
        self.assertEqual(text.count("no such setting"), 2)
        text = self.refused({}, {"KUP_FOOO": "1", "KUP_BARR": "2"})
        self.assertEqual(text.count("no such setting"), 2)

    def test_what_parts_refuse(self) -> None:
        """Q-69: settings that can be read, and that no part can use."""
        loaded = load({"topics_max_record": "17MiB", "bus_operators": "alice"}, {})
        text = str(self.assertRaises(SettingError, check, loaded))
        self.assertIn("bus_operators: ", text)
        self.assertIn("; topics_max_record: ", text)


class SourceTests(FileCase):
    """K-90: flag before environment before file before default."""

    def test_defaults(self) -> None:
        """K-89: without anything, the defaults of the first implementation."""
        settings, sources, *_ = load({}, {})
        self.assertEqual(settings, Settings())
        self.assertEqual(set(sources.values()), {"default"})
        self.assertEqual(settings.listen.addr, (":8080",))
        self.assertEqual((settings.jobs.interval, settings.jobs.expire), (30.0, 0.0))
        self.assertEqual(settings.jobs.history_window, 600.0)
        self.assertEqual(settings.log.queue, "kupool_submissions")
        self.assertEqual(settings.rates.submit_interval, 1.0)

    def test_every_setting_by_every_source(self) -> None:
        """K-89, K-90: each of them, from each source, and which of these wins."""
        special = {
            "addr": ("host:1", "host:2"), "ws_origins": ("https://a",), "http_hosts": ("h",),
            "proxy_trusted": ("10.0.0.0/8", "unix"),
            "auth": ("unix",), "framing": "line", "transport": "stock", "store": "memory",
            "mq": "memory", "mq_kind": "classic", "spool": "off",
            "log_peers": "on", "events": "off",
            "nonce_scope": "session", "duplicate_scope": "job",
            "log_level": "debug", "log_format": "text",
            "bus": "off", "bus_get": "on", "bus_publish": ("a.>", "b"), "bus_subscribe": ("c",),
            "bus_permissions": ("a publish b",),
            "bus_operators": ("alice",), "bus_direct": ("d.*",), "bus_origins": ("https://a",),
            "rooms": "on", "topics": "memory",
            "topics_durability": "os", "topics_compression": "zstd",
            "live": "off", "live_anonymous": "off", "live_insecure": "on",
        }  # fmt: skip
        texts: dict[str, object] = {}
        for name, f in declared().items():
            kind = f.metadata["kind"].hint
            kinds = {
                "DURATION": "77s",
                "SIZE": "77KiB",
                "N": "77",
                "TEXT": "text",
                "MODE": "600",
                "RULE": "a b=1",
            }
            usual = kinds.get(kind, "")
            texts[name] = special.get(name, usual)
            if name == "memory_log_limit":
                texts[name] = "77MiB"
        del texts["config"]
        path = self.file(json.dumps(texts), "kupool.json")
        from_file = load({"config": path}, {})
        environ = {
            f"KUP_{name.upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in texts.items()
        }
        from_environ = load({"config": path}, environ)
        from_flags = load({**texts, "config": path}, environ)  # type: ignore[dict-item]
        for found, source in (
            (from_file, lambda name: f"file {path}"),
            (from_environ, lambda name: f"environment KUP_{name.upper()}"),
            (from_flags, lambda name: f"flag --{flag_name(name)}"),
        ):
            self.assertEqual(found.settings, from_file.settings)
            for name in texts:
                self.assertEqual(found.sources[name], source(name))
                self.assertNotEqual(
                    value_of(found.settings, name), value_of(Settings(), name), name
                )

    def test_lists(self) -> None:
        """K-89: repeatable ones take a list, or text with commas."""
        for several in (["a:1", "b:2"], "a:1,b:2", "a:1, b:2,"):
            settings = load({"addr": several}, {}).settings  # type: ignore[dict-item]
            self.assertEqual(settings.listen.addr, ("a:1", "b:2"))
        self.assertEqual(load({}, {"KUP_ADDR": "a:1,b:2"}).settings.listen.addr, ("a:1", "b:2"))

    def test_an_empty_file(self) -> None:
        self.assertEqual(
            load({"config": self.file("# nothing\n")}, {}).settings.jobs.interval, 30.0
        )
        self.assertEqual(load({}, {"KUP_CONFIG": ""}).settings, Settings())

    def test_plain_numbers_in_a_file(self) -> None:
        path = self.file("max_connections: 5\nattempts_rate: 0.5\nexpire: 0\n")
        settings = load({"config": path}, {}).settings
        self.assertEqual(
            (
                settings.limits.max_connections,
                settings.rates.attempts_rate,
                settings.jobs.expire,
            ),
            (5, 0.5, 0.0),
        )

    def test_on_and_off_in_a_file(self) -> None:
        """K-89: YAML takes these words for true and false."""
        for text in ("off", "false", '"off"'):
            self.assertEqual(
                load({"config": self.file(f"spool: {text}\n")}, {}).settings.log.spool, "off"
            )
        path = self.file("bus: off\nbus_get: on\n")
        settings = load({"config": path}, {}).settings
        self.assertEqual((settings.bus.kind, settings.bus.get), ("off", "on"))
        self.assertIn("bus: expected text", self.refused({"config": self.file("bus: on\n")}))
        path = self.file("spool: on\n")
        self.assertEqual(load({"config": path}, {"KUP_SPOOL": "off"}).settings.log.spool, "off")
        self.assertEqual(load({"config": path}, {}).settings.log.spool, "on")


class RefusalTests(FileCase):
    """K-88: an error names the setting and where its value came from."""

    def test_a_value_from_each_source(self) -> None:
        wrong = "batch_size: '0' is less than 1"
        self.assertEqual(self.refused({"batch_size": "0"}), f"{wrong} (from flag --batch-size)")
        self.assertEqual(
            self.refused({}, {"KUP_BATCH_SIZE": "0"}), f"{wrong} (from environment KUP_BATCH_SIZE)"
        )
        path = self.file("batch_size: 0\n")
        self.assertEqual(self.refused({"config": path}), f"{wrong} (from file {path})")

    def test_the_least_of_each(self) -> None:
        for name, f in declared().items():
            least = f.metadata["least"]
            if least is not None:
                kind = f.metadata["kind"]
                load({name: kind.show(least)}, {})
                self.assertIn("is less than", self.refused({name: "0"}), name)

    def test_values_of_another_kind(self) -> None:
        for text in ("true", "[1]", "{a: 1}", "null", "2026-01-01"):
            path = self.file(f"interval: {text}\n")
            self.assertIn(
                "interval: expected text or a number, found a ", self.refused({"config": path})
            )
            path = self.file(f"addr: [{text}]\n")
            self.assertIn(
                "addr: expected text or a number, found a ", self.refused({"config": path})
            )
        self.assertIn(
            "addr: expected a list, found a int",
            self.refused({"config": self.file("addr: 8080\n")}),
        )

    def test_unknown_keys(self) -> None:
        path = self.file("max-connections: 5\n")
        self.assertEqual(
            self.refused({"config": path}),
            f"max-connections: no such setting, did you mean max_connections? (from file {path})",
        )
        for text in ("zzz: 1\n", "1: 1\n", "config: other.yaml\n"):
            path = self.file(text)
            self.assertRegex(self.refused({"config": path}), r"^\w+: no such setting.* \(from file")

    def test_settings_that_are_gone(self) -> None:
        """K-88, issue 12: what an older release had is refused, with what to do now."""
        path = self.file("allocator: malloc\n")
        for flags, environ, source in (
            ({"config": path}, {}, f"file {path}"),
            ({}, {"KUP_ALLOCATOR": "malloc"}, "environment KUP_ALLOCATOR"),
            ({"allocator": "malloc"}, {}, "flag --allocator"),
        ):
            message = self.refused(flags, environ)  # type: ignore[arg-type]
            self.assertEqual(
                message, f"allocator: no such setting any more: {GONE['allocator']} (from {source})"
            )
        self.assertEqual(set(GONE) & set(declared()), set())

    def test_files_that_cannot_be_read(self) -> None:
        for text, name in (
            ("a: [", "a.yaml"), ("a: b: c", "a.yaml"), ("\t", "a.yaml"), ("\udcff", "a.yaml"),
            ("!!python/object:os.system {}", "a.yaml"), ("{", "a.json"), ("[1]", "a.json"),
            ("[" * 100_000, "a.json"), ("text", "a.yaml"), ("\x00", "a.yaml"),
        ):  # fmt: skip
            path = self.file(text, name)
            message = self.refused({"config": path})
            self.assertTrue(message.startswith(f"config: {path}: "), message)
            self.assertNotIn("\n", message)

    @given(st.text(max_size=200))
    def test_any_file(self, text: str) -> None:
        """K-88: no file raises anything but the one error, in one line."""
        path = self.file(text.encode("utf-8", "replace").decode())
        try:
            load({"config": path}, {})
        except SettingError as error:
            self.assertEqual(len(str(error).splitlines()), 1)
        os.unlink(path)


class ShownTests(FileCase):
    """K-90, K-92: values are shown as they can be given, secrets masked."""

    def test_what_is_shown_can_be_given_back(self) -> None:
        values = shown(Settings())
        flags = {name: text for name, text in values.items() if name != "config"}
        self.assertEqual(load(flags, {}).settings, Settings())

    def test_secrets(self) -> None:
        for text, masked in (
            ("postgres://kupool:secret@db/kupool", "postgres://kupool:***@db/kupool"),
            ("postgres://u:s@cr:e/t@db/kupool", "postgres://u:***@db/kupool"),
            ("postgres://u:two words@db", "postgres://u:***@db"),
            ("postgres://db/kupool?password=secret", "postgres://db/kupool?password=***"),
            ("host=db password=secret user=u", "host=db password=*** user=u"),
            ("host=db PASSWORD = 's e\\' c' user=u", "host=db PASSWORD = *** user=u"),
            ("password=se\\ cret", "password=***"),
            ("password='open", "password=***"),
            ("amqp://u:secret@mq:5672/v", "amqp://u:***@mq:5672/v"),
            ("memory:admin:secret:bob:secret", "memory:***"),
            ("file:/etc/kupool/passwd", "file:/etc/kupool/passwd"),
            ("unix", "unix"),
            ("postgres://db/kupool", "postgres://db/kupool"),
            ("", ""),
        ):
            self.assertEqual(mask(text), masked)

    @given(st.text(st.characters(exclude_categories=("Cs",)), min_size=4))
    def test_no_password_of_a_url_is_shown(self, password: str) -> None:
        hidden = mask(f"amqp://user:{password}@host/")
        self.assertEqual(hidden, "amqp://user:***@host/")

    def test_secrets_of_settings(self) -> None:
        settings = with_values(
            Settings(),
            {
                "pg_dsn": "postgres://u:secret@db",
                "mq_url": "amqp://u:secret@mq",
                "auth": ("memory:admin:secret", "file:/passwd"),
            },
        )
        values = shown(settings)
        self.assertNotIn("secret", str(list(values.values())))
        self.assertEqual(values["auth"], "memory:***, file:/passwd")


class ChangeTests(SynchronousTestCase):
    """K-32: what a reload can apply, and what it cannot."""

    def test_changes(self) -> None:
        new = with_values(
            Settings(),
            {"interval": 5.0, "addr": (":1",), "log_level": "debug", "store": "memory"},
        )
        self.assertEqual(changes(Settings(), new), (["interval", "log_level"], ["addr", "store"]))
        self.assertEqual(changes(new, new), ([], []))

    def test_the_bounds_of_the_stream(self) -> None:
        """K-90: RabbitMQ has them from when the stream was made; a file of ours does not."""
        for mq, names in (("sqlite", []), ("rabbit", ["log_retention", "log_max_size"])):
            now, restart = changes(
                with_values(Settings(), {"mq": mq}),
                with_values(
                    Settings(),
                    {"mq": mq, "log_retention": 1.0, "log_max_size": 1, "expire": 1.0},
                ),
            )
            self.assertEqual(restart, names)
            self.assertEqual({*now, *restart}, {"expire", "log_retention", "log_max_size"})

    def test_what_listens_or_stores_needs_a_restart(self) -> None:
        for name in ("addr", "http", "data", "store", "mq", "auth", "nonce_scope", "log_format"):
            self.assertNotIn(name, reloadable())

    def test_every_setting_is_declared_whole(self) -> None:
        for name, f in declared().items():
            self.assertTrue(f.metadata["doc"], name)
        several = {"addr", "ws_origins", "http_hosts", "proxy_trusted", "auth"}
        several |= {"http_trusted_proxies", "token_keys"}
        several |= {"bus_publish", "bus_subscribe", "bus_operators", "bus_origins"}
        several |= {"permissions", "bus_permissions", "rooms_permissions"}
        several |= {"rooms_create", "rooms_join", "rooms_match"}
        several |= {"bus_direct", "live_rules"}
        self.assertEqual({name for name, f in declared().items() if repeatable(f)}, several)
