"""Names that have moved go on working, and none of our own code uses an old one."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.requirements import ROOT

#: The modules from which names have moved.
PACKAGES = ("kupool.net", "kupool.net.workers.crew", "kupool.client", "kupool.rooms")

#: What the packages offered in the release before names moved.
BEFORE = {
    "kupool.net": (
        "LATER Backoff BaseRouter Client ClientFailure ClientSettings ConfigError Connection "
        "ConnectionClosed ConnectionEnded ConnectionManager ConnectionNotFound Delivery Heartbeat "
        "HookedObserver IClosingObserver IConnectionObserver IRouter IdRouter Intercepted Meter "
        "NotConnected Observer Policy Processes PropertyNotFound RateLimit Request RequestTimeout "
        "Router Server ServerConfig ServerSettings StallWatch Threads Tlv Unknown Unreachable "
        "WorkerPool WorkerSettings allow correlated run"
    ),
    "kupool.bus": (
        "Answer BusError BusSettings BusStatus Handler IBus Kind Message Model NotMine Outcome "
        "Recent Refusal Step SubscriberStatus Subscription Topic TopicStatus"
    ),
    "kupool.rooms": (
        "Closing Created Disconnected IRoomHooks Incoming Joined Left Lobby LobbyObserver "
        "MatchOutcome MatchRequest Matchmaker Member Presence Renamed Returned Room RoomBusy "
        "RoomGone RoomHooks RoomSettings TakenOver TimerFired Wheel"
    ),
    "kupool.client": (
        "AlreadyConnected Answer ClientClosed ClientError ClientSettings NotAuthorized "
        "NotConnected Outcome PoolClient Server SessionRefused TooManyUnanswered Unreachable "
        "Worker parse_server"
    ),
}

MOVED: dict[str, dict[str, str]] = {name: import_module(name).MOVED for name in PACKAGES}


def sources() -> Iterator[tuple[str, str]]:
    """Our own Python: what it is called, and its text. Blocks of documents included."""
    for folder in ("kupool", "examples", "tests", "tools", "bench", "twisted"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != Path(__file__):
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for path in (*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")):
        for block in re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
            yield path.name, block


def imported(text: str) -> Iterator[tuple[str, str]]:
    """The module and the name of each ``from module import name``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


class MovedNamesTests(SynchronousTestCase):
    """Issue 12, point 4: a package exports what a first program needs, and old names work."""

    def test_each_old_name_is_the_object_of_the_new_place_and_warns(self) -> None:
        for package, places in MOVED.items():
            made = import_module(package)
            for name, place in places.items():
                module, _, new = place.rpartition(".")
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    found = getattr(made, name)
                self.assertIs(found, getattr(import_module(module), new), place)
                (warning,) = seen
                self.assertIs(warning.category, DeprecationWarning)
                self.assertIn(f"from {module} import {new}", str(warning.message))
                self.assertEqual(warning.filename, __file__)

    def test_every_name_of_the_release_before_is_there(self) -> None:
        for package, names in BEFORE.items():
            made = import_module(package)
            for name in names.split():
                self.assertTrue(name in made.__all__ or name in MOVED.get(package, ()), name)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self.assertIsNotNone(getattr(made, name))

    def test_a_name_has_one_place(self) -> None:
        for package, places in MOVED.items():
            made = import_module(package)
            self.assertEqual(set(places) & set(vars(made)), set())

    def test_other_names_are_missing_as_ever(self) -> None:
        for package in PACKAGES:
            with self.assertRaisesRegex(AttributeError, f"'{package}' has no attribute 'Nothing'"):
                _ = import_module(package).Nothing

    def test_we_use_no_old_name(self) -> None:
        old = {f"{package}.{name}" for package, places in MOVED.items() for name in places}
        used = re.compile("|".join(re.escape(name) + r"\b" for name in sorted(old)))
        imports = re.compile(rf"from\s+(?:{'|'.join(map(re.escape, PACKAGES))})\s+import")
        for where, text in sources():
            self.assertEqual(used.findall(text), [], where)
            if imports.search(text):  # to parse every file takes seconds
                self.assertEqual({".".join(i) for i in imported(text)} & old, set(), where)


class FrameworkTableTests(SynchronousTestCase):
    """Issue 12, point 4: docs/framework.md has one table of names and their modules."""

    def table(self) -> dict[str, str]:
        text = (ROOT / "docs" / "framework.md").read_text("utf-8")
        rows = re.findall(r"^\| (`\w.*`) \| `(kupool\.[\w.]+)` \| .+ \|$", text, re.M)
        return {name: module for names, module in rows for name in re.findall(r"`(\w+)`", names)}

    def test_every_name_is_public_in_its_module(self) -> None:
        for name, module in self.table().items():
            made = import_module(module)
            self.assertIn(name, getattr(made, "__all__", vars(made)), module)

    def test_it_has_what_the_package_offers_and_what_has_moved(self) -> None:
        table = self.table()
        net = import_module("kupool.net")
        self.assertEqual({n for n, m in table.items() if m == "kupool.net"}, set(net.__all__))
        for place in MOVED["kupool.net"].values():
            module, _, name = place.rpartition(".")
            self.assertEqual(table.get(name), module)
