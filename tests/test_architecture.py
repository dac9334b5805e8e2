"""The rules of the house: who may import whom, and what every module owes its reader."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyClass

ROOT = Path(__file__).parents[1]

#: What each room may import of the others. A room that is not here fails the test:
#: whoever adds one says first what it stands on.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "incidents": {"errors"},
    "callbacks": set(),
    "kinds": set(),
    "masking": set(),
    "moved": set(),
    "timing": set(),
    "storage": {"timing"},
    "wire": {"errors"},
    "session": {"errors", "wire"},
    "net": {
        "errors",
        "callbacks",
        "incidents",
        "moved",
        "timing",
        "wire",
        "session",
        "settings_file",
    },
    "live": {"errors", "callbacks", "wire", "session", "net"},
    "rooms": {"errors", "callbacks", "incidents", "timing", "wire", "session", "net", "bus"},
    "amqp": {"masking", "timing"},
    "log": {"errors", "masking", "timing", "wire", "net", "storage", "amqp"},
    "stats": {"errors", "wire", "log", "storage"},
    "backup": {"log", "storage"},
    "pool": {
        "errors",
        "callbacks",
        "timing",
        "wire",
        "session",
        "net",
        "live",
        "log",
        "storage",
        "bus",
    },
    "bus": {"errors", "callbacks", "incidents", "timing", "wire", "session", "net", "amqp"},
    "migration": {"wire", "storage", "amqp", "log"},
    "client": {"errors", "callbacks", "moved", "timing", "wire", "session", "net"},
    "settings_file": set(),
    "settings": {"kinds", "masking", "settings_file"},
    "options": {"kinds", "masking", "settings"},
}

#: The rooms that may see all others but the entrances, and `web`, which the daemon serves.
_ROOMS = {*MAY_IMPORT, "web", "daemon"}
MAY_IMPORT["web"] = _ROOMS - {"daemon", "options", "client"}
MAY_IMPORT["daemon"] = _ROOMS - {"options"}
MAY_IMPORT["tap"] = _ROOMS
MAY_IMPORT["commands"] = _ROOMS - {"web"}
MAY_IMPORT["cli"] = {"commands"}

#: What every room may stand on that has a reactor.
MECHANISMS = ("kupool.callbacks", "kupool.incidents", "kupool.timing")

#: These are known to each other by the interfaces in their packages' ``__init__`` alone.
BY_INTERFACE = ("live", "log", "bus")

#: Packages of which no file may be in a circle of files that import each other.
WITHOUT_CIRCLES = ("net", "session", "client", "pool", "web", "daemon")

#: Only these may import the global reactor; everyone else is given one.
REACTOR_USERS = {"tap", "cli", "commands"}

#: Beside the standard library, the rooms below import only this.
ONLY_THIS = {"wire": {"msgspec"}, "errors": set[str]()}


class Module(NamedTuple):
    """A module of ours: its dotted name, its room and its syntax tree."""

    name: str
    room: str
    tree: ast.Module


class Import(NamedTuple):
    """One imported name, as ``from module import name``; ``name`` is empty for modules."""

    module: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}".rstrip(".")


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted((ROOT / "kupool").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        room = parts[1] if len(parts) > 1 else ""
        found.append(Module(".".join(parts), room, ast.parse(path.read_text())))
    return tuple(found)


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, wherever in it, also those for type checking only."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name} imports relatively"
            yield from (Import(node.module or "", alias.name) for alias in node.names)


def import_graph(found: Iterable[Module]) -> dict[str, set[str]]:
    """Which files import which, type checking included."""
    trees = {module.name: module for module in found}
    graph = {}
    for name, module in trees.items():
        paths = [(i.path, i.module) for i in imports(module)]
        graph[name] = {p if p in trees else m for p, m in paths if p in trees or m in trees}
    return graph


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The sets of files of which each imports, by way of others, all of its set."""
    reached = {name: _reached(graph, name) for name in graph}
    return {
        frozenset(other for other in seen if name in reached[other])
        for name, seen in reached.items()
        if name in seen
    }


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        new = graph[left.pop()] - seen
        seen |= new
        left += new
    return seen


def room_of(imported: Import) -> str | None:
    """The room that an import reaches into; None for what is not ours."""
    parts = imported.path.split(".")
    if parts[0] != "kupool":
        return None
    rooms = {module.room for module in modules()}
    return parts[1] if len(parts) > 1 and parts[1] in rooms else ""


def is_pure(module: Module) -> bool:
    text = ast.get_docstring(module.tree) or ""
    return re.search(r"\bPure\.|\(pure\)", text) is not None


class ImportTests(SynchronousTestCase):
    """Design section 2: dependencies go one way."""

    def test_rooms_import_only_what_they_may(self) -> None:
        for module in modules():
            if not module.room:
                continue
            self.assertIn(module.room, MAY_IMPORT, f"{module.name}: a room without a rule")
            for imported in imports(module):
                room = room_of(imported)
                if room and room != module.room:
                    self.assertIn(
                        room, MAY_IMPORT[module.room], f"{module.name} imports {imported.path}"
                    )

    def test_the_rules_have_no_circle(self) -> None:
        left = {room: set(needs) & set(MAY_IMPORT) for room, needs in MAY_IMPORT.items()}
        for room, needs in left.items():
            needs.discard(room)
        while left:
            free = [room for room, needs in left.items() if not needs & set(left)]
            self.assertTrue(free, f"a circle among {sorted(left)}")
            for room in free:
                del left[room]

    def test_no_circle_of_files(self) -> None:
        """Issue 12: imports go downwards between files, too."""
        found = {
            circle
            for circle in circles(import_graph(modules()))
            if any(name.split(".")[1] in WITHOUT_CIRCLES for name in circle)
        }
        self.assertEqual(found, set())

    def test_a_circle_is_found(self) -> None:
        """Issue 12: however it is made: by a package, in a function, for types alone."""
        sources = {
            "kupool.a": "from kupool.b import one",
            "kupool.b": "def f():\n    import kupool.c",
            "kupool.c": "if TYPE_CHECKING:\n    from kupool import a",
            "kupool.d": "from kupool.a import two\nfrom kupool.e import three",
            "kupool.e": "from kupool.a import four",
        }
        made = [Module(name, name[7:], ast.parse(text)) for name, text in sources.items()]
        self.assertEqual(
            circles(import_graph(made)), {frozenset(("kupool.a", "kupool.b", "kupool.c"))}
        )

    def test_entrances_are_imported_by_nobody(self) -> None:
        for module in modules():
            for imported in imports(module):
                room = room_of(imported)
                if room != module.room:
                    self.assertNotIn(room, ("cli", "tap"), f"{module.name}: {imported.path}")
                    if room == "web":
                        self.assertIn(module.room, ("daemon", "tap"), module.name)

    def test_wire_and_errors_stand_on_the_standard_library_and_msgspec(self) -> None:
        for module in modules():
            allowed = ONLY_THIS.get(module.room)
            if allowed is None:
                continue
            for imported in imports(module):
                top = imported.module.split(".")[0]
                ours = top == "kupool" or top in sys.stdlib_module_names
                self.assertTrue(ours or top in allowed, f"{module.name} imports {imported.path}")

    def test_the_core_of_the_bus_stands_on_the_standard_library_and_twisted(self) -> None:
        """A-01: only the forms over a network import anything else of ours or of others, but
        for mechanisms that stand on no more themselves.
        """
        forms = ("kupool.bus.remote", "kupool.bus.rabbit")
        core = [
            module
            for module in modules()
            if module.room in ("bus", "callbacks") and not module.name.startswith(forms)
        ]
        self.assertIn("kupool.bus.broker", {module.name for module in core})
        for module in core:
            for imported in imports(module):
                top = imported.module.split(".")[0]
                if top == "kupool":
                    own = imported.path.startswith(("kupool.bus", *MECHANISMS))
                    self.assertTrue(own, module.name)
                    self.assertFalse(imported.path.startswith(forms), module.name)
                else:
                    ours = top in sys.stdlib_module_names or top in ("twisted", "zope")
                    self.assertTrue(ours, f"{module.name} imports {imported.path}")

    def test_the_mechanisms_stand_on_the_standard_library_and_twisted(self) -> None:
        """A-01, issue 12: all may use them, the core of the bus too."""
        for module in modules():
            if not module.name.startswith(MECHANISMS):
                continue
            for imported in imports(module):
                top = imported.module.split(".")[0]
                ours = top in sys.stdlib_module_names or top in ("twisted", "zope")
                own = imported.module.startswith((*MECHANISMS, "kupool.errors"))
                self.assertTrue(ours or own, f"{module.name} imports {imported.path}")

    def test_rooms_know_each_other_by_their_interfaces(self) -> None:
        for module in modules():
            # A move is from the inside of one engine to the inside of another.
            if module.room in ("daemon", "commands", "web", "tap", "migration"):
                continue
            for imported in imports(module):
                room = room_of(imported)
                if room in BY_INTERFACE and room != module.room:
                    self.assertEqual(imported.module, f"kupool.{room}", f"in {module.name}")
                    package = importlib.import_module(imported.module)
                    self.assertIn(imported.name, package.__all__, f"in {module.name}")

    def test_the_pool_uses_public_names_of_net_only(self) -> None:
        """X-03: the pool, and rooms, stand on what is there for everybody."""
        for module in modules():
            if module.room not in ("pool", "rooms"):
                continue
            for imported in imports(module):
                if room_of(imported) == "net":
                    self.assertFalse(imported.name.startswith("_"), f"{module.name}: {imported}")
                    self.assertNotIn("._", imported.module)

    def test_nobody_reaches_into_another_object(self) -> None:
        """What begins with an underscore belongs to its own module."""
        for module in modules():
            own = _private_names(module)
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Attribute) and _private(node.attr):
                    whose = node.value.id if isinstance(node.value, ast.Name) else ""
                    if whose in ("self", "cls", "os"):  # os._exit() has no other name
                        continue
                    self.assertIn(node.attr, own, f"{module.name}:{node.lineno} .{node.attr}")

    def test_nobody_imports_private_names(self) -> None:
        for module in modules():
            for imported in imports(module):
                if room_of(imported) is not None:
                    self.assertFalse(_private(imported.name), f"{module.name}: {imported.path}")

    def test_only_the_entrances_import_the_global_reactor(self) -> None:
        for module in modules():
            for imported in imports(module):
                if imported.path.startswith("twisted.internet.reactor"):
                    self.assertIn(module.room, REACTOR_USERS, module.name)

    def test_pure_modules_import_no_twisted_and_no_clock(self) -> None:
        pure = [module for module in modules() if is_pure(module)]
        names = {module.name for module in pure}
        self.assertLessEqual({"kupool.pool.judge", "kupool.pool.nonces"}, names)
        for module in pure:
            for imported in imports(module):
                top = imported.module.split(".")[0]
                self.assertNotIn(top, ("twisted", "time", "socket", "threading"), module.name)


def _private(name: str) -> bool:
    # The methods of a named tuple have an underscore only to stay clear of its fields.
    named_tuple = name in ("_replace", "_asdict", "_fields", "_make")
    return name.startswith("_") and not name.startswith("__") and not named_tuple


def _private_names(module: Module) -> set[str]:
    """The private attributes that a module makes itself: by assignment, def or slots."""
    own = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    return own


def nouns(module: Module) -> Iterator[tuple[str, bool]]:
    """The classes of a module, wherever in it, and its aliases of types.

    With each, whether it is a class. Private ones are known in their module alone.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and not _private(node.name):
            yield node.name, True
    for node in module.tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and re.match("[A-Z]+[a-z]", target.id):
                    yield target.id, False


def homonyms(found: Iterable[Module]) -> dict[str, list[str]]:
    """The names that two modules give, one of them to a class, and these modules."""
    given: dict[str, list[str]] = {}
    classes = set()
    for module in found:
        for name, is_class in nouns(module):
            given.setdefault(name, []).append(module.name)
            if is_class:
                classes.add(name)
    return {name: where for name, where in given.items() if len(where) > 1 and name in classes}


class NounTests(SynchronousTestCase):
    """Design section 2: nouns are unique across the product, whether public or not."""

    def test_no_name_stands_for_two_things(self) -> None:
        self.assertEqual(homonyms(modules()), {})

    def test_a_second_one_is_found(self) -> None:
        """Also as an alias, or inside a function; private ones and aliases alone may be."""
        sources = {
            "kupool.a": "class Link: pass\nclass _Own: pass\nclass Call: pass\nKey = int | str",
            "kupool.b": "def f():\n    class Link: pass\nclass _Own: pass\nKey = str | None",
            "kupool.c": "Call = Callable[[], None]\nCALL = 1",
        }
        made = [Module(name, name[7:], ast.parse(text)) for name, text in sources.items()]
        self.assertEqual(
            homonyms(made), {"Link": ["kupool.a", "kupool.b"], "Call": ["kupool.a", "kupool.c"]}
        )


class ExportTests(SynchronousTestCase):
    """Design section 2: a package exports its public names and nothing else."""

    def packages(self) -> Iterator[Module]:
        for path in sorted((ROOT / "kupool").rglob("__init__.py")):
            name = ".".join(path.parent.relative_to(ROOT).parts)
            yield next(module for module in modules() if module.name == name)

    def test_a_package_only_exports(self) -> None:
        """What it offers is defined in its modules, and listed in ``__all__``, whole."""
        for package in self.packages():
            offered, ours = set[str](), {"__all__", "__version__", "__getattr__", "MOVED"}
            for node in package.tree.body[1:]:
                match node:
                    case ast.ImportFrom(module="__future__" | "kupool.moved"):
                        pass
                    case ast.ImportFrom():
                        offered |= {alias.name for alias in node.names}
                    case ast.Assign(targets=[ast.Name(name)]):
                        self.assertIn(name, ours, package.name)
                    case _:
                        self.fail(f"{package.name}:{node.lineno} does more than to export")
            listed = getattr(importlib.import_module(package.name), "__all__", ())
            self.assertEqual(offered, set(listed), package.name)
            self.assertEqual([name for name in listed if _private(name)], [], package.name)


class DocumentationTests(SynchronousTestCase):
    def test_every_module_says_what_it_is_for(self) -> None:
        for module in modules():
            text = ast.get_docstring(module.tree) or ""
            self.assertGreater(len(text), 10, f"{module.name} has no docstring")

    def test_what_a_module_offers_is_documented(self) -> None:
        """Every name in ``__all__`` exists, and classes and functions have docstrings."""
        for module in modules():
            if module.room not in (
                "wire",
                "net",
                "live",
                "log",
                "amqp",
                "bus",
                "stats",
                "pool",
                "rooms",
                "storage",
                "timing",
                "incidents",
            ):
                continue
            made = importlib.import_module(module.name)
            for name in getattr(made, "__all__", ()):
                offered = getattr(made, name)
                if inspect.isclass(offered) or inspect.isfunction(offered):
                    self.assertTrue(inspect.getdoc(offered), f"{module.name}.{name}")


class InterfaceTests(SynchronousTestCase):
    """Design section 2: every implementation fits its interface."""

    def classes(self) -> Iterator[type]:
        for module in modules():
            if module.room in ("", "tap", "cli"):
                continue
            made = importlib.import_module(module.name)
            for _, found in inspect.getmembers(made, inspect.isclass):
                if found.__module__ == module.name:
                    yield found

    def interfaces(self) -> set[Any]:
        return {
            found
            for module in modules()
            if module.room not in ("", "tap", "cli")
            for found in vars(importlib.import_module(module.name)).values()
            if isinstance(found, InterfaceClass) and found.__module__.startswith("kupool.")
        }

    def test_implementations_fit(self) -> None:
        checked = 0
        for found in self.classes():
            for interface in implementedBy(found).declared:
                self.assertTrue(verifyClass(interface, found), f"{found}: {interface}")
                checked += 1
        self.assertGreater(checked, 5)

    def test_every_interface_has_an_implementation(self) -> None:
        interfaces = self.interfaces()
        self.assertLessEqual(
            {"IChannel", "ILog", "IRouter", "IConnectionObserver"},
            {interface.__name__ for interface in interfaces},
        )
        implemented = {i for found in self.classes() for i in implementedBy(found)}
        self.assertEqual({i.__name__ for i in interfaces - implemented}, set())


class ReactorTests(SynchronousTestCase):
    def test_importing_us_installs_no_reactor(self) -> None:
        """facts.md: twistd chooses the reactor after it has read the plugins."""
        names = [module.name for module in modules()]
        script = (
            "import importlib, sys\n"
            "import twisted.plugins.kupool_plugin\n"
            "print(sorted(n for n in sys.modules if n.startswith('kupool.')))\n"
            "import kupool.tap\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
            f"for name in {names!r}:\n"
            "    importlib.import_module(name)\n"
            "    if 'twisted.internet.reactor' in sys.modules:\n"
            "        print(name)\n"
            "        break\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout, "[]\nFalse\n", done.stderr)
