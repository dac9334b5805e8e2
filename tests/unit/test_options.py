"""The flags of the daemon, in our manner and in Go's."""

from __future__ import annotations

from itertools import chain

from twisted.trial.unittest import SynchronousTestCase

from kupool.options import SettingOptions
from kupool.settings import declared, flag_name, no_longer, repeatable


class Case(SynchronousTestCase):
    def flags(self, *arguments: str) -> dict[str, object]:
        options = SettingOptions()
        options.parseOptions(list(arguments))
        return options.flags

    def refused(self, *arguments: str) -> str:
        ended = self.assertRaises(SystemExit, SettingOptions().parseOptions, list(arguments))
        return str(ended.code)


class FlagTests(Case):
    """K-89: every flag, with one dash or two, with underscores or without."""

    def test_every_flag_in_every_form(self) -> None:
        values = {name: f"x{n}" for n, name in enumerate(declared())}
        expected = {n: [values[n]] if repeatable(f) else values[n] for n, f in declared().items()}
        for flag_of in (flag_name, str):
            for dash in ("-", "--"):
                flags = {f"{dash}{flag_of(name)}": value for name, value in values.items()}
                self.assertEqual(self.flags(*chain(*flags.items())), expected)
                self.assertEqual(self.flags(*map("=".join, flags.items())), expected)

    def test_the_line_of_the_first_implementation(self) -> None:
        """K-89: its flags as they were."""
        found = self.flags(
            *[
                "-addr",
                ":8080",
                "-interval",
                "30s",
                "-expire",
                "0",
                "-store",
                "memory",
                "-pg_dsn",
                "d",
                "-mq",
                "memory",
            ],
            *["-mq_url", "u", "-mq_queue", "q"],
        )
        self.assertEqual(
            found,
            {
                "addr": [":8080"], "interval": "30s", "expire": "0", "store": "memory",
                "pg_dsn": "d", "mq": "memory", "mq_url": "u", "mq_queue": "q",
            },
        )  # fmt: skip

    def test_the_line_of_a_broker(self) -> None:
        """Q-68: ``client-addr`` is ``addr``; those without meaning are kept, to be named."""
        found = self.flags(
            *["-config", "b.json", "-broker-id", "1", "-raft-addr", "h:7000"],
            *["-client-addr", "127.0.0.1:9092"],
        )
        self.assertEqual(
            found,
            {
                "config": "b.json",
                "broker_id": "1",
                "raft_addr": "h:7000",
                "addr": ["127.0.0.1:9092"],
            },
        )
        self.assertEqual(
            self.flags("--client-addr=:1", "--raft_addr", "-addr"),
            {"addr": [":1"], "raft_addr": "-addr"},
        )

    def test_values_are_left_alone(self) -> None:
        """K-89: a value that looks like a flag, or is empty, or spans lines."""
        self.assertEqual(self.flags("--pg-dsn", "-addr"), {"pg_dsn": "-addr"})
        self.assertEqual(self.flags("--data", "--mq_url=x"), {"data": "--mq_url=x"})
        self.assertEqual(self.flags("-http="), {"http": ""})
        self.assertEqual(self.flags("-pg_dsn=a\nb=c"), {"pg_dsn": "a\nb=c"})

    def test_repeated(self) -> None:
        """K-89: what is repeatable gathers; of another the last one wins."""
        self.assertEqual(
            self.flags("--addr", ":1", "-addr=:2", "--interval=1s", "-interval", "2s"),
            {"addr": [":1", ":2"], "interval": "2s"},
        )

    def test_options_share_nothing(self) -> None:
        self.flags("--addr=:1", "--interval=1s")
        self.assertEqual(self.flags(), {})

    def test_help(self) -> None:
        """K-90: the help names the variable and the default of each."""
        text = " ".join(str(SettingOptions()).split())
        for name in declared():
            self.assertIn(f"[KUP_{name.upper()}]", text)
        self.assertIn("(DURATION, default 30s)", text)
        self.assertIn("(TEXT, default :8080, repeatable)", text)


class RefusalTests(Case):
    """K-88, issue 12: one line, and the flag that was meant, or what to do without it."""

    def test_each(self) -> None:
        for arguments, text in (
            (["--expires=1"], "option --expires not recognized, did you mean --expire?"),
            (["--xyzzy"], "option --xyzzy not recognized"),
            (["--interval"], "option --interval requires argument"),
            (["--allocator=malloc"], f"option --allocator: {no_longer('allocator')}"),
            (["-allocator", "malloc"], f"option --allocator: {no_longer('allocator')}"),
            (["run"], "unexpected argument 'run'"),
            (["--pg-dsn=", "postgres://u:secret@h"], "unexpected argument 'postgres://u:***@h'"),
        ):
            self.assertEqual(self.refused(*arguments), f"kupool: {text}; see --help")
