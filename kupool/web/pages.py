"""The dashboard: a page of static files, at ``/`` for browsers and at ``/dashboard``.

The files are read, compressed and named by a hash of their content once, at the start. A file is at
``/dashboard/VERSION/NAME``, where a browser may keep it for ever, and at ``/dashboard/NAME``, where
it asks each time whether it has changed. ``VERSION`` is a hash of all files, so that modules of two
releases never meet in one page.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.web.http import CACHED
from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.util import redirectTo

from kupool.web.answers import ApiResource, Handler, NotFound, tokens

#: The folder of the files in the package, and the path of the page.
FOLDER = Path(__file__).parent / "dashboard"
DASHBOARD_PATH = "/dashboard"

#: The file that is the page; in it, :data:`VERSION_MARK` stands for the version.
INDEX = "index.html"
VERSION_MARK = b"{version}"

#: The content types of all files that are served.
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

#: What the page may load and do: its own files and this server's API, and nothing else.
CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)

#: The headers of every file.
HEADERS = {
    b"Content-Security-Policy": CONTENT_SECURITY_POLICY,
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}

#: How long a browser may use a file without asking: as long as it likes, or never.
KEEP = b"public, max-age=31536000, immutable"
ASK = b"no-cache"


class StaticFile(NamedTuple):
    """A file as it is sent: ``compressed`` by gzip where that makes it smaller, otherwise None."""

    kind: bytes
    body: bytes
    compressed: bytes | None
    etag: bytes


class StaticFiles:
    """The files of a folder, by their names in it, such as ``pages/log.js``.

    Raises :class:`OSError` if the folder or its page cannot be read.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        bodies = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES
        }
        if INDEX not in bodies:
            raise FileNotFoundError(f"{folder} has no {INDEX}")
        self.version = _digest(b"\0".join([*(n.encode() for n in bodies), *bodies.values()]))
        bodies[INDEX] = bodies[INDEX].replace(VERSION_MARK, self.version.encode())
        self.files: Mapping[str, StaticFile] = {
            name: _file(name, body) for name, body in bodies.items()
        }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _file(name: str, body: bytes) -> StaticFile:
    compressed = gzip.compress(body, 9, mtime=0)
    return StaticFile(
        TYPES[Path(name).suffix],
        body,
        compressed if len(compressed) < len(body) else None,
        b'"%b"' % _digest(body).encode(),
    )


def takes_gzip(request: Request) -> bool:
    """Say whether a request accepts gzip: it names it, or ``*``, and not with the weight 0."""
    weights = _weights(tokens(request, b"accept-encoding"))
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def wants_page(request: Request) -> bool:
    """Say whether a request asks for a page: it prefers ``text/html`` to JSON, and names it.

    ``*/*``, which ``curl`` sends, does not name it.
    """
    weights = _weights(tokens(request, b"accept"))
    html = max(weights.get("text/html", 0.0), weights.get("application/xhtml+xml", 0.0))
    return html > 0 and html >= weights.get("application/json", 0.0)


def _weights(elements: list[str]) -> dict[str, float]:
    """Return the weight of each element of a header such as ``text/html;q=0.9``."""
    found: dict[str, float] = {}
    for element in elements:
        name, *params = (part.strip() for part in element.split(";"))
        weight = 1.0
        for param in params:
            if param.startswith("q="):
                try:
                    weight = float(param[2:])
                except ValueError:
                    weight = 0.0
        found[name] = weight
    return found


class FileResource(ApiResource):
    """Answers GET and HEAD with a file; ``cache`` is its ``Cache-Control``."""

    isLeaf = True

    def __init__(self, file: StaticFile, cache: bytes = ASK) -> None:
        super().__init__({b"GET": _never})
        self._file = file
        self._cache = cache

    def render(self, request: Any) -> Any:
        """Return the file, or nothing if the browser has it already."""
        if request.method not in (b"GET", b"HEAD"):
            return super().render(request)
        file = self._file
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        request.setHeader(b"Cache-Control", self._cache)
        compressed = file.compressed if takes_gzip(request) else None
        # The compressed form is another representation: it has an entity tag of its own.
        etag = file.etag if compressed is None else file.etag[:-1] + b'-gzip"'
        for vary in (b"Accept-Encoding", b"Accept"):
            request.responseHeaders.addRawHeader(b"Vary", vary)
        if request.setETag(etag) is CACHED:
            return b""
        request.setHeader(b"Content-Type", file.kind)
        if compressed is not None:
            request.setHeader(b"Content-Encoding", b"gzip")
        body = file.body if compressed is None else compressed
        request.setHeader(b"Content-Length", b"%d" % len(body))
        return body


class DashboardPages(ApiResource):
    """``/dashboard`` and the files below it."""

    def __init__(self, files: StaticFiles) -> None:
        super().__init__({b"GET": _never})
        self._files = files
        self.page = FileResource(files.files[INDEX])

    def getChild(self, path: bytes, request: Any) -> IResource:
        """Return the resource of a file."""
        names = [path, *request.postpath]
        request.prepath += request.postpath
        request.postpath = []
        versioned = names[0] == self._files.version.encode() and len(names) > 1
        name = b"/".join(names[1:] if versioned else names).decode(errors="replace")
        file = self._files.files.get(name or INDEX)
        if file is None:
            return NotFound()
        cache = KEEP if versioned and name != INDEX else ASK
        return FileResource(file, cache)

    def render(self, request: Any) -> Any:
        """Send a browser to the page: the names of its files are relative to that."""
        if request.method not in (b"GET", b"HEAD"):
            return super().render(request)
        return redirectTo(DASHBOARD_PATH.encode() + b"/", request)


async def _never(request: Request) -> object:
    """Stand for the methods in the list of routes; ``render`` answers them."""
    raise AssertionError("the page answers by itself")


class RootPage(ApiResource):
    """``/``, and every path without a route: the page for a browser, the index for others."""

    def __init__(self, handlers: Mapping[bytes, Handler], page: FileResource) -> None:
        super().__init__(handlers)
        self._page = page

    def getChild(self, path: bytes, request: Any) -> IResource:
        """Return this one for ``/``, and a 404 for every other path."""
        return self if path == b"" and not request.postpath else NotFound()

    def render(self, request: Any) -> Any:
        """Answer with the page, or with the index as JSON."""
        if request.method in (b"GET", b"HEAD") and wants_page(request):
            return self._page.render(request)
        # A cache must not give a browser's page to a program, nor the index to a browser.
        request.setHeader(b"Vary", b"Accept")
        return super().render(request)


__all__ = [
    "CONTENT_SECURITY_POLICY",
    "DASHBOARD_PATH",
    "FOLDER",
    "INDEX",
    "TYPES",
    "DashboardPages",
    "FileResource",
    "RootPage",
    "StaticFiles",
    "takes_gzip",
    "wants_page",
]
