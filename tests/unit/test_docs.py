"""The documents are in step with the code."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.commands.config import example
from kupool.errors import CLOSE_MALFORMED, CLOSE_REASONS, ERRORS
from kupool.settings import ENV_PREFIX, declared, flag_name
from tests import requirements, settings_page
from tests.requirements import DOCUMENT, ROOT, rendered, rows
from tests.test_architecture import MAY_IMPORT


class RequirementTests(SynchronousTestCase):
    def test_every_requirement_has_a_test(self) -> None:
        found = requirements.tests_by_requirement()
        self.assertEqual([r for r in rows() if r not in found], [])

    def test_the_document_is_in_step(self) -> None:
        self.assertEqual(
            DOCUMENT.read_text("utf-8"), rendered(), "run: python -m tests.requirements"
        )


class SettingsTests(SynchronousTestCase):
    def test_the_settings_page_is_in_step(self) -> None:
        """K-89: flags, environment, defaults and descriptions are as documented."""
        self.assertEqual(
            settings_page.PAGE.read_text("utf-8"),
            settings_page.rendered(),
            "run: python -m tests.settings_page",
        )

    def test_the_settings_page_has_every_group(self) -> None:
        """K-89: and so every setting, once."""
        text = settings_page.PAGE.read_text("utf-8")
        self.assertEqual(
            [found[1] for found in settings_page.TABLE.finditer(text)], settings_page.groups()
        )
        flags = re.findall(r"^\| `--([a-z-]+)` \| `KUP_", text, re.M)
        self.assertEqual(flags, [flag_name(name) for name in declared()])

    def test_the_example_file_is_in_step(self) -> None:
        """K-89: etc/kupool.yaml has every setting with its default."""
        self.assertEqual(
            (ROOT / "etc" / "kupool.yaml").read_text("utf-8").splitlines(),
            list(example()),
            "run: kupool config --example > etc/kupool.yaml",
        )

    def test_descriptions_stand_alone(self) -> None:
        """Issue 14: --help shows each alone, so no two are the same."""
        described: dict[str, str] = {}
        for name, f in declared().items():
            doc = f.metadata["doc"]
            self.assertNotIn(doc, described, name)
            self.assertFalse(doc.endswith("."), name)
            described[doc] = name

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


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def without_blocks(page: Path) -> str:
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", without_blocks(page), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        number = 0
        while (anchor := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(anchor)
    return found


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the paths and anchors that a page links to, within this repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, anchor = target.partition("#")
            yield path, anchor


class LinkTests(SynchronousTestCase):
    """Issue 14: what a page points to is there."""

    def test_links_and_anchors_resolve(self) -> None:
        wrong, seen = [], 0
        for page in pages():
            for path, anchor in links(page):
                seen += 1
                target = (page.parent / path).resolve() if path else page
                if not target.exists() or (anchor and anchor not in anchors(target)):
                    wrong.append(f"{page.name}: {path}#{anchor}")
        self.assertEqual(wrong, [])
        self.assertGreater(seen, 50)

    def test_pages_that_code_names_exist(self) -> None:
        """Error texts, units, comments and pages name pages as docs/NAME.md."""
        folders = ("kupool", "bench", "examples", "systemd", "etc", "tests", "twisted")
        files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
        files += [*pages(), ROOT / "compose.yaml", ROOT / "Dockerfile", ROOT / "Makefile"]
        wrong = []
        for file in files:
            if file.suffix in (".py", ".md", ".yaml", ".service", ".sh", "") and file != Path(
                __file__
            ):
                text = file.read_text("utf-8", errors="replace")
                for name in set(re.findall(r"\bdocs/([a-z-]+\.md)", text)):
                    if not (ROOT / "docs" / name).exists():
                        wrong.append(f"{file.relative_to(ROOT)}: docs/{name}")
        self.assertEqual(wrong, [])


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


class MakefileTests(SynchronousTestCase):
    """Issue 14, build 5: make help lists the targets."""

    def test_help_lists_every_target(self) -> None:
        done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
        assert phony is not None
        self.assertEqual(
            sorted(re.findall(r"^make (\w+) ", done.stdout, re.M)), sorted(phony[1].split())
        )
        self.assertIn("apt-get", done.stdout)
