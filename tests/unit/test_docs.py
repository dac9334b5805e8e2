"""The documents are in step with the code."""

from __future__ import annotations

import importlib
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import CLOSE_MALFORMED, CLOSE_REASONS, ERRORS
from kupool.settings import ENV_PREFIX, Settings, declared, flag_name, reloadable, shown
from tests.requirements import DOCUMENT, ROOT, rendered, rows, tests_by_requirement
from tests.test_architecture import MAY_IMPORT


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


def named(name: str) -> Any:
    """Return the module, class, function or method of KuPool that a dotted name means."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(("kupool", *parts[:count])))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


class ArchitectureTests(SynchronousTestCase):
    """Issue 14, build 2: docs/architecture.md names what is there."""

    def setUp(self) -> None:
        self.text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
        self.spans = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", self.text))

    def test_every_name_exists(self) -> None:
        names = [n for n in self.spans if re.fullmatch(r"[a-z_]+(\.\w+)+", n)]
        names = [n for n in names if not n.endswith((".py", ".md", ".sqlite"))]
        self.assertGreater(len(names), 100)
        for name in names:
            try:
                named(name)
            except AttributeError:
                self.fail(f"docs/architecture.md: there is no kupool.{name}")

    def test_a_name_that_does_not_exist_is_found(self) -> None:
        for name in ("pool.judge.Rules.decide", "pool.nothing", "nothing.at.all"):
            self.assertRaises(AttributeError, named, name)

    def test_every_path_exists(self) -> None:
        paths = [p for p in self.spans if re.fullmatch(r"\w[\w/-]*\.(py|md)", p)]
        paths += [f"docs/{link}" for link in re.findall(r"\]\(([^)#]+)", self.text)]
        self.assertGreater(len(paths), 5)
        for path in paths:
            self.assertTrue((ROOT / path).exists(), path)

    def test_every_setting_exists(self) -> None:
        flags = re.findall(r"`--([a-z-]+)`", self.text)
        self.assertTrue(flags)
        self.assertLessEqual({flag.replace("-", "_") for flag in flags}, set(declared()))

    def test_the_house_is_what_the_test_of_imports_enforces(self) -> None:
        """Every package has a row, which says what it may import."""
        above: dict[str, set[str]] = {}
        for name, text in re.findall(r"(?m)^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", self.text):
            listed = set(re.findall(r"`(\w+)`", text))
            above[name] = set(above) - listed if text.startswith("all above") else listed
        self.assertEqual(set(above), set(MAY_IMPORT))
        for name, allowed in MAY_IMPORT.items():
            self.assertEqual(above[name], allowed - {name}, name)
