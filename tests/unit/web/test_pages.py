"""The dashboard's files: how they are served, and the rules that they keep."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.web.pages import FOLDER, INDEX, TYPES, StaticFiles
from tests.fakes.web_site import RouteTestCase

#: What Chromium sends for a page.
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

#: The most bytes that a browser loads for the first view, compressed.
FIRST_VIEW = 100_000

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


def source(name: str) -> str:
    """Return the text of a file of the dashboard."""
    return (FOLDER / name).read_text("utf-8")


def scripts() -> list[Path]:
    """Return all modules of the dashboard."""
    return sorted(FOLDER.rglob("*.js"))


class DashboardServingTests(RouteTestCase):
    """W-86, Q-84: a browser gets the page, and programs keep the index."""

    def test_a_browser_gets_the_page(self) -> None:
        answer = self.ask("/", Accept=BROWSER)
        self.assertEqual(
            (answer.code, answer.headers["content-type"]), (200, TYPES[".html"].decode())
        )
        self.assertIn(b"<!doctype html>", answer.body)

    def test_programs_get_the_index(self) -> None:
        """W-86: what was there before is unchanged for those who ask for no page."""
        for accept in (None, "*/*", "application/json", "application/json, text/html;q=0.9"):
            headers = {} if accept is None else {"Accept": accept}
            answer = self.ask("/", **headers)
            self.assertEqual(answer.headers["content-type"], "application/json", accept)
            self.assertEqual(answer.json["name"], "kupool")
            self.assertIn("Accept", answer.headers["vary"])

    def test_weights_that_are_no_numbers(self) -> None:
        answer = self.ask("/", Accept="text/html;q=many, */*")
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_other_paths_stay_unknown(self) -> None:
        for path in (
            "/nope",
            "/dashboard/nope.js",
            "/dashboard/../pages.py",
            "/dashboard/%2e%2e/pages.py",
        ):
            answer = self.ask(path, Accept=BROWSER)
            self.assertEqual((answer.code, "error" in answer.json), (404, True), path)

    def test_the_page_has_a_path_of_its_own(self) -> None:
        answer = self.ask("/dashboard")
        self.assertEqual((answer.code, answer.headers["location"]), (302, "/dashboard/"))
        self.assertIn(b"<!doctype html>", self.ask("/dashboard/").body)

    def test_other_methods(self) -> None:
        self.assertEqual(self.ask("/dashboard", "POST", b"{}").code, 405)
        self.assertEqual(self.ask("/dashboard/", "POST", b"{}").code, 405)

    def test_headers(self) -> None:
        """W-86: nothing but our own files and this server may be used."""
        for path in ("/", "/dashboard/", "/dashboard/app.js", "/dashboard/style.css"):
            headers = self.ask(path, Accept=BROWSER).headers
            self.assertEqual(headers["content-security-policy"], STRICT)
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["referrer-policy"], "no-referrer")

    def test_files_with_the_version_are_kept(self) -> None:
        """W-86: a browser asks once for a file of a version, and each time for the page."""
        version = StaticFiles().version
        page = self.ask("/", Accept=BROWSER)
        self.assertEqual(page.headers["cache-control"], "no-cache")
        found = re.findall(rb'"(/dashboard/[^"]+)"', page.body)
        self.assertGreater(len(found), 3)
        for path in found:
            self.assertTrue(path.startswith(f"/dashboard/{version}/".encode()), path)
            answer = self.ask(path.decode())
            self.assertEqual(answer.code, 200, path)
            self.assertIn("immutable", answer.headers["cache-control"])
        self.assertEqual(self.ask("/dashboard/0123456789abcdef/app.js").code, 404)
        self.assertEqual(self.ask("/dashboard/app.js").headers["cache-control"], "no-cache")

    def test_what_the_browser_has_is_not_sent_again(self) -> None:
        for path in ("/", "/dashboard/style.css"):
            for encoding in ("gzip", "identity"):
                first = self.ask(path, Accept=BROWSER, Accept_Encoding=encoding)
                again = self.ask(
                    path,
                    Accept=BROWSER,
                    Accept_Encoding=encoding,
                    If_None_Match=first.headers["etag"],
                )
                self.assertEqual((again.code, again.body), (304, b""))
                other = self.ask(path, Accept=BROWSER, If_None_Match='"another"')
                self.assertEqual(other.code, 200)

    def test_compression(self) -> None:
        """W-86: files are compressed for those who accept it, and for nobody else."""
        plain = self.ask("/dashboard/style.css")
        self.assertNotIn("content-encoding", plain.headers)
        self.assertEqual(plain.body, (FOLDER / "style.css").read_bytes())
        for accepted in ("gzip", "deflate, gzip;q=0.5", "*"):
            packed = self.ask("/dashboard/style.css", Accept_Encoding=accepted)
            self.assertEqual(packed.headers["content-encoding"], "gzip")
            self.assertEqual(int(packed.headers["content-length"]), len(packed.body))
            self.assertEqual(gzip.decompress(packed.body), plain.body)
            self.assertNotEqual(packed.headers["etag"], plain.headers["etag"])
        for refused in ("gzip;q=0", "br", "*;q=0", "identity, *;q=0"):
            answer = self.ask("/dashboard/style.css", Accept_Encoding=refused)
            self.assertNotIn("content-encoding", answer.headers, refused)

    def test_head(self) -> None:
        answer = self.ask("/dashboard/style.css", "HEAD")
        self.assertEqual((answer.code, answer.body), (200, b""))
        self.assertEqual(int(answer.headers["content-length"]), len(source("style.css").encode()))


class DashboardFilesTests(SynchronousTestCase):
    """W-86: rules that every file of the dashboard keeps."""

    def test_the_first_view_is_small(self) -> None:
        """W-86: what the overview loads is under 100 KB together."""
        files = StaticFiles().files
        wanted, loaded = [INDEX, "first.js", "style.css", "app.js", "pages/overview.js"], set()
        wanted.append("texts_zh.js")  # one language is loaded: the larger one
        while wanted:
            name = wanted.pop()
            if name in loaded:
                continue
            loaded.add(name)
            for found in re.findall(r'^(?:import|export) .*?from "(.+?)";', source(name), re.M):
                target = (FOLDER / name).parent / found
                wanted.append(target.resolve().relative_to(FOLDER.resolve()).as_posix())
        self.assertGreater(len(loaded), 12)
        size = sum(len(files[name].compressed or files[name].body) for name in loaded)
        self.assertLess(size, FIRST_VIEW)

    def test_no_text_becomes_markup(self) -> None:
        """W-86: a name with HTML in it is shown as text."""
        wrong = re.compile(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|"
            r"new Function|createContextualFragment|setHTMLUnsafe"
        )
        for path in scripts():
            self.assertIsNone(wrong.search(path.read_text("utf-8")), path)

    def test_nothing_comes_from_elsewhere(self) -> None:
        """W-86: no request goes to another server; a name space is no request."""
        allowed = {"http://www.w3.org/2000/svg"}
        for path in FOLDER.rglob("*"):
            if path.is_file():
                found = set(
                    re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]+[\w/.-]*", path.read_text("utf-8"))
                )
                self.assertEqual(found - allowed, set(), path)

    def test_the_page_has_no_code_or_style_of_its_own(self) -> None:
        """W-86: the policy would refuse them."""
        page = source(INDEX)
        self.assertEqual(re.findall(r"<script(?![^>]*\ssrc=)", page), [])
        self.assertEqual(re.findall(r"<style|\sstyle=|\son\w+=", page), [])
        for path in scripts():
            self.assertNotIn("style:", path.read_text("utf-8"), path)

    def test_all_that_is_imported_is_there(self) -> None:
        for path in scripts():
            for found in re.findall(r'(?:from|import)\(? ?"(\..+?)"', path.read_text("utf-8")):
                self.assertTrue((path.parent / found).is_file(), (path, found))

    def test_both_languages_have_the_same_texts(self) -> None:
        """W-86: no text is missing in a language, and all have the same values to fill in."""
        tables = [self.texts(name) for name in ("texts_en.js", "texts_zh.js")]
        self.assertEqual(list(tables[0]), list(tables[1]))
        for key, text in tables[0].items():
            values = [sorted(re.findall(r"\{\w+\}", one)) for one in (text, tables[1][key])]
            self.assertEqual(values[0], values[1], key)
            self.assertTrue(tables[1][key].strip(), key)

    def test_every_text_that_is_used_exists(self) -> None:
        texts = self.texts("texts_en.js")
        for path in scripts():
            code = path.read_text("utf-8")
            used = re.findall(r'\bt\("([^"]+)"', code)
            self.assertEqual([key for key in used if key not in texts], [], path)

    def test_modules_are_small(self) -> None:
        """W-86: one idea in each."""
        for path in scripts():
            if not path.name.startswith("texts_"):
                self.assertLessEqual(len(path.read_text("utf-8").splitlines()), 300, path)

    def test_it_says_so_without_scripts(self) -> None:
        page = source(INDEX)
        self.assertRegex(page, r"(?s)<noscript>.*JavaScript.*/stats.*</noscript>")

    def test_colours_have_enough_contrast(self) -> None:
        """W-86: WCAG AA, 4.5 to 1, for every text colour on every ground, in both themes."""
        styles = source("style.css")
        light = dict(re.findall(r"--([\w-]+): (#\w{6});", styles.split('[data-theme="dark"]')[0]))
        dark = dict(
            re.findall(r"--([\w-]+): (#\w{6});", styles.rsplit(':root[data-theme="dark"] {', 1)[1])
        )
        self.assertEqual(set(light), set(dark))
        for theme in (light, dark):
            for text in ("text", "dim", "accent", "good", "warn", "bad"):
                for ground in ("ground", "panel", "raised"):
                    self.assertGreaterEqual(
                        contrast(theme[text], theme[ground]), 4.5, (text, ground)
                    )
            for state in ("good", "warn", "bad"):
                self.assertGreaterEqual(
                    contrast(theme[state], theme[f"{state}-ground"]), 4.5, state
                )
            self.assertGreaterEqual(contrast(theme["text"], theme["bad-ground"]), 4.5)
            self.assertGreaterEqual(contrast(theme["on-accent"], theme["accent"]), 4.5)
            self.assertGreaterEqual(contrast(theme["edge"], theme["panel"]), 3.0)

    def test_both_ways_to_the_dark_theme_are_the_same(self) -> None:
        """W-86: the system's choice and the switch show the same colours."""
        blocks = re.findall(
            r"color-scheme: dark;\s+(--ground.*?)\}|\"dark\"\] \{\s+(--ground.*?)\}",
            source("style.css"),
            re.S,
        )
        found = [" ".join("".join(block).split()) for block in blocks]
        self.assertEqual(len(found), 2)
        self.assertEqual(found[0], found[1])

    def texts(self, name: str) -> dict[str, str]:
        return dict(re.findall(r'^  "(.+?)": "(.*)",$', source(name), re.M))


class StaticFilesTests(SynchronousTestCase):
    """W-86: what the files are called, and what is among them."""

    def make(self, **files: str) -> StaticFiles:
        folder = Path(self.mktemp())
        folder.mkdir()
        for name, text in files.items():
            (folder / name.replace("_", ".")).write_text(text, "utf-8")
        return StaticFiles(folder)

    def test_another_file_makes_another_version(self) -> None:
        one = self.make(index_html="{version}", a_js="1")
        other = self.make(index_html="{version}", a_js="2")
        self.assertNotEqual(one.version, other.version)
        self.assertEqual(one.files["index.html"].body, one.version.encode())
        self.assertEqual(one.version, self.make(index_html="{version}", a_js="1").version)

    def test_only_known_types_are_served(self) -> None:
        files = self.make(index_html="", secret_txt="x", a_js="1").files
        self.assertEqual(sorted(files), ["a.js", "index.html"])

    def test_a_folder_without_a_page(self) -> None:
        self.assertRaises(FileNotFoundError, self.make, a_js="1")

    def test_small_files_are_not_compressed(self) -> None:
        self.assertIsNone(self.make(index_html="x").files["index.html"].compressed)


class HostilePathTests(RouteTestCase):
    """W-86: no path leads out of the folder."""

    @given(
        st.lists(
            st.sampled_from(["..", "%2e%2e", "%2f", "%00", "pages", "app.js", "", ".", "a"]),
            max_size=6,
        )
    )
    def test_any_path(self, parts: list[str]) -> None:
        answer = self.ask("/dashboard/" + "/".join(parts))
        self.assertIn(answer.code, (200, 404))
        self.assertNotIn(b"from __future__", answer.body)


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours, as WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
