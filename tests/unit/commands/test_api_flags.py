"""How a command finds the HTTP API of a daemon, and logs in."""

from __future__ import annotations

import io
import os
import sys
from base64 import b64encode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kupool.cli import make_parser
from kupool.commands.api import ApiTarget
from kupool.commands.api_flags import read_api_target
from kupool.daemon.files import SECRET_FILE


class TargetTests(SynchronousTestCase):
    """Q-83: what a command sends, and to whom."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.environment: dict[str, str] = {"KUP_DATA": str(self.folder)}

    def target(self, *words: str) -> ApiTarget:
        arguments = make_parser("topic").parse_args(["topic", "list", *words])
        self.patch(os, "environ", self.environment)
        return read_api_target(arguments)

    def refused(self, *words: str) -> str:
        return str(self.assertRaises(ValueError, self.target, *words))

    def keep_secret(self, text: str = "s3cret") -> None:
        (self.folder / SECRET_FILE).write_text(f"{text}\n")

    def test_the_secret_of_this_machine(self) -> None:
        """Q-83: it is read from the data folder, if it may be."""
        self.assertEqual(self.target(), ApiTarget("http://127.0.0.1:8081", ""))
        self.keep_secret()
        self.assertEqual(self.target().authorization, "Bearer s3cret")
        for url in ("http://localhost:1", "http://[::1]:1/", "https://127.0.0.2"):
            self.assertEqual(self.target("--url", url), ApiTarget(url.rstrip("/"), "Bearer s3cret"))

    def test_the_secret_stays_on_this_machine(self) -> None:
        """Q-83: another one gets it only if a flag names the folder."""
        self.keep_secret()
        url = "http://example.com:8081"
        self.assertEqual(self.target("--url", url).authorization, "")
        named = self.target("--url", url, "--data-dir", str(self.folder))
        self.assertEqual(named.authorization, "Bearer s3cret")

    def test_who_logs_in(self) -> None:
        """Q-83: a flag, then a token, then a name with a password, then the secret."""
        self.keep_secret()
        self.environment |= {"KUP_USERNAME": "bob", "KUP_PASSWORD": "pw:1"}
        self.assertEqual(self.target().authorization, self.basic("bob:pw:1"))
        self.assertEqual(self.target("--username", "al").authorization, self.basic("al:pw:1"))
        self.environment["KUP_TOKEN"] = "tok"
        self.assertEqual(self.target().authorization, "Bearer tok")
        file = self.folder / "token"
        file.write_text("filed\n")
        self.assertEqual(self.target("--token-file", str(file)).authorization, "Bearer filed")
        named = self.target("--data-dir", str(self.folder))
        self.assertEqual(named.authorization, "Bearer s3cret")

    def basic(self, text: str) -> str:
        return "Basic " + b64encode(text.encode()).decode()

    def test_the_url(self) -> None:
        """Q-83: a flag, then KUP_URL."""
        self.environment["KUP_URL"] = "http://h:1/"
        self.assertEqual(self.target().url, "http://h:1")
        self.assertEqual(self.target("--url", "http://h:2").url, "http://h:2")

    def test_what_is_wrong(self) -> None:
        """Q-83: nothing is sent then."""
        self.assertIn("is no URL", self.refused("--url", "localhost:8081"))
        self.assertIn("is no URL", self.refused("--url", "ftp://h"))
        self.assertIn("set KUP_PASSWORD", self.refused("--username", "alice"))
        self.assertIn("No such file", self.refused("--token-file", str(self.folder / "x")))
        self.assertIn("No such file", self.refused("--data-dir", str(self.folder)))
        self.keep_secret("a\nb")
        self.assertIn("cannot be in a header", self.refused("--data-dir", str(self.folder)))
        self.environment["KUP_TOKN"] = "x"
        self.assertIn("did you mean KUP_TOKEN?", self.refused())

    def test_a_wrong_command_line_asks_nobody(self) -> None:
        """Q-83: it is one line, and status 2, as of the other commands."""
        self.patch(sys, "stderr", io.StringIO())
        for words in (["topic"], ["log", "tail"], ["dlq", "inspect", "t", "x"], ["group", "reset"]):
            ended = self.assertRaises(SystemExit, make_parser(words[0]).parse_args, words)
            self.assertEqual(ended.code, 2)
