"""The documents are in step with the code."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import CLOSE_MALFORMED, CLOSE_REASONS, ERRORS
from kupool.settings import ENV_PREFIX, Settings, declared, flag_name, reloadable, shown
from tests.requirements import DOCUMENT, ROOT, rendered, rows, tests_by_requirement


class RequirementTests(SynchronousTestCase):
    def test_every_requirement_has_a_test(self) -> None:
        found = tests_by_requirement()
        self.assertEqual([r for r in rows() if r not in found], [])

    def test_the_document_is_in_step(self) -> None:
        self.assertEqual(
            DOCUMENT.read_text("utf-8"), rendered(), "run: python -m tests.requirements"
        )


class SettingsTests(SynchronousTestCase):
    def test_operations_lists_every_setting_with_its_default(self) -> None:
        """K-89: flags, environment and defaults are as documented."""
        text = (ROOT / "docs" / "operations.md").read_text("utf-8")
        defaults, now = shown(Settings()), reloadable()
        for name in declared():
            row = re.search(rf"^\| `--{flag_name(name)}` \| (.*?) \| .* \|(.*)\|$", text, re.M)
            assert row is not None, name
            self.assertEqual(row[1], f"`{defaults[name]}`" if defaults[name] else "none", name)
            self.assertEqual(row[2].strip() == "yes", name in now, name)

    def test_both_readmes_show_the_same_settings(self) -> None:
        tables = []
        for name in ("README.md", "README.zh-CN.md"):
            text = (ROOT / name).read_text("utf-8")
            tables.append(re.findall(rf"^\| `--([a-z-]+)` \| `({ENV_PREFIX}\w+)` \|", text, re.M))
        self.assertEqual(*tables)
        self.assertTrue(tables[0])
        for flag, variable in tables[0]:
            self.assertEqual(ENV_PREFIX + flag.replace("-", "_").upper(), variable)
            self.assertIn(flag.replace("-", "_"), declared())

    def test_both_readmes_show_the_same_commands(self) -> None:
        blocks = [
            [
                line
                for block in re.findall(
                    r"^```console\n(.*?)^```", (ROOT / name).read_text("utf-8"), re.M | re.S
                )
                for line in block.splitlines()
            ]
            for name in ("README.md", "README.zh-CN.md")
        ]
        self.assertEqual(*blocks)


class ProtocolTests(SynchronousTestCase):
    def test_every_error_and_close_is_documented(self) -> None:
        """K-39: texts and codes are stable, and as documented."""
        text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
        for error in ERRORS[1:]:
            self.assertRegex(text, rf"(?m)^\| {error.code} \| {re.escape(error.text)}")
        for reason in CLOSE_REASONS:
            if reason is not CLOSE_MALFORMED:
                self.assertRegex(text, rf"(?m)^\| {reason.code} \| {re.escape(reason.reason)} \|")
