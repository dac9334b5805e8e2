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
    "ranges": set(),
    "masking": set(),
    "printable": set(),
    "moved": set(),
    "patterns": set(),
    "timing": set(),
    "storage": {"timing"},
    "accounts": {"errors", "callbacks", "timing", "net", "storage", "permissions"},
    "permissions": {"patterns", "bus"},
    "wire": {"errors"},
    "session": {"errors", "wire"},
    "net": {
        "errors",
        "moved",
        "callbacks",
        "incidents",
        "ranges",
        "timing",
        "wire",
        "session",
        "settings_file",
    },
    "live": {
        "errors",
        "callbacks",
        "incidents",
        "patterns",
        "timing",
        "wire",
        "session",
        "net",
        "topics",
    },
    "rooms": {
        "errors",
        "moved",
        "callbacks",
        "incidents",
        "timing",
        "wire",
        "session",
        "net",
        "live",
        "bus",
    },
    "amqp": {"masking", "timing", "net"},
    "log": {"errors", "masking", "timing", "wire", "net", "storage", "amqp"},
    "topics": {"errors", "callbacks", "timing", "wire", "session", "net", "storage", "amqp", "log"},
    "stats": {"errors", "timing", "wire", "log", "storage"},
    "backup": {"wire", "storage", "log", "topics"},
    "activity": {"errors", "timing", "wire", "session", "net", "storage", "topics", "pool"},
    "pool": {
        "errors",
        "accounts",
        "callbacks",
        "timing",
        "wire",
        "session",
        "net",
        "live",
        "log",
        "storage",
        "bus",
        "permissions",
    },
    "bus": {
        "errors",
        "callbacks",
        "incidents",
        "patterns",
        "timing",
        "wire",
        "session",
        "net",
        "live",
        "amqp",
    },
    "migration": {"wire", "storage", "amqp", "log", "topics"},
    "client": {"errors", "callbacks", "moved", "ranges", "timing", "wire", "session", "net"},
    "settings_file": set(),
    "settings": {"kinds", "masking", "settings_file"},
    "options": {"kinds", "masking", "printable", "settings"},
}

#: The rooms that may see all others but the entrances, and `web`, which the daemon serves.
_ROOMS = {*MAY_IMPORT, "web", "daemon"}
MAY_IMPORT["web"] = _ROOMS - {"daemon", "options", "client"}
MAY_IMPORT["daemon"] = _ROOMS - {"options"}
MAY_IMPORT["tap"] = _ROOMS
MAY_IMPORT["commands"] = _ROOMS - {"web"}
MAY_IMPORT["cli"] = {"commands"}

#: What every room may stand on that has a reactor.
MECHANISMS = ("kupool.callbacks", "kupool.incidents", "kupool.patterns", "kupool.timing")

#: These are known to each other by the interfaces in their packages' ``__init__`` alone.
BY_INTERFACE = ("live", "log", "bus")

#: Only these may import the global reactor; everyone else is given one.
REACTOR_USERS = {"tap", "cli", "commands"}

#: Beside the standard library, the rooms below import only this.
ONLY_THIS = {"wire": {"msgspec"}, "errors": set[str]()}


#: How many positional parameters a function may have, besides ``self`` and ``cls``.
POSITIONAL = 4

#: Functions with more, as an interface of Twisted's names their parameters.
DICTATED = {
    "kupool.net.testing.names.MemoryNames.resolveHostName",  # IHostnameResolver
    "kupool.net.testing.network.MemoryNetwork.connectTCP",  # IReactorTCP
    "kupool.net.transport.ports.RestingListeners.listenSSL",  # IReactorSSL
    "kupool.net.dialling.tls._check.check",  # a callback of OpenSSL
    "kupool.net.transport.ports.RestingListeners.listenUNIX",  # IReactorUNIX
}

#: Functions with more that are not mended yet.

#: What may be anything, and is nothing at first: it belongs to the application, or is JSON.
ANYTHING = {
    "kupool.net.routing.request.Request.context",
    "kupool.rooms.room.Member.data",
    "kupool.rooms.room.Room.data",
    "kupool.rooms.spread.remote_peers.RemotePeer.context",
    "kupool.session.connection.Connection.context",
    "kupool.wire.messages.Reply.result",
}


#: Unit tests of a behaviour that is not one module's, below `tests/unit`, each with the reason.
#: All others have the path and the name of the module that they test.
BEHAVIOURS = {
    "backup/test_backup": "making, checking and restoring are tested on the same folders",
    "bench/test_figures": "tests `bench`, not a package of kupool",
    "bus/compatible/test_predecessor": "clients of the predecessor, through the whole daemon",
    "bus/remote/test_remote_bus": "both ends of the networked bus, client and service",
    "bus/remote/test_strangers": "what sessions may do to each other through both ends",
    "bus/test_channel_ends": "both ends of ordered channels, one of which begins anew",
    "bus/test_attacks": "one session of a pool with passwords against the others",
    "bus/test_parts": "the small parts of the bus, a class of tests for each",
    "net/dialling/test_close_policy": "the table of closes, its readers and the wait after each",
    "net/dialling/test_close_table": "every client of the product against every close",
    "net/routing/test_handler_outcomes": "what handlers return and raise, in every router",
    "net/routing/test_routes": "what stands around handlers: requests, groups, guards",
    "net/test_connections": "connections and their manager as applications use them",
    "net/test_quiet": "what passes in good order is logged by no part of the framework",
    "net/workers/test_stopping": "a handler in a worker pool stops its own server",
    "rooms/spread/test_order": "spread rooms in any order of events",
    "rooms/test_docs": "the code of docs/rooms.md",
    "rooms/test_hostile": "members, hooks and moments that are against a room",
    "rooms/test_leftovers": "what many short sessions leave behind in all of the rooms",
    "rooms/test_matched_members": "members of a room who seek a match meanwhile",
    "session/test_budget": "the share of a turn that one session may use",
    "settings/test_settings": "a setting on its way from its sources to what is shown",
    "test_compose": "tests compose.yaml",
    "test_coverage_gate": "tests the Makefile",
    "test_docs": "tests the documents",
    "test_hostile_names": "names of peers in every place where they are shown",
    "test_endings": "SystemExit, KeyboardInterrupt, CancelledError in code of others",
    "test_everything_in_memory": "pool, bus, rooms and clients on one network in memory",
    "test_examples_in_memory": "tests `examples`",
    "test_fail2ban": "tests etc/fail2ban",
    "test_hooks_of_applications": "hooks of rooms, bus and servers alike",
    "test_import_effects": "imports every package",
    "wire/test_line_ends": "line endings from the splitter to the hub",
}


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


@cache
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Every node of a tree: one walk for all rules."""
    return tuple(ast.walk(tree))


@cache
def imports(module: Module) -> tuple[Import, ...]:
    """Every import of a module, wherever in it, also those for type checking only."""
    found = []
    for node in nodes_of(module.tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name} imports relatively"
            found += [Import(node.module or "", alias.name) for alias in node.names]
    return tuple(found)


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


@cache
def rooms_of_all() -> frozenset[str]:
    """The rooms of all modules."""
    return frozenset(module.room for module in modules())


def room_of(imported: Import) -> str | None:
    """The room that an import reaches into; None for what is not ours."""
    parts = imported.path.split(".")
    if parts[0] != "kupool":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in rooms_of_all() else ""


def named_twice(found: Iterable[Module]) -> dict[str, set[str]]:
    """The names that stand for two things: a class and another, or a class and an alias.

    Each with the modules that give it.
    """
    classes: dict[str, list[str]] = {}
    aliases: dict[str, list[str]] = {}
    for module in found:
        for node in nodes_of(module.tree):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(module.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    if alias.asname not in (None, alias.name):
                        aliases.setdefault(alias.asname, []).append(module.name)
        for node in module.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            for target in targets:
                if isinstance(target, ast.Name):
                    aliases.setdefault(target.id, []).append(module.name)
    given = {name: owners + aliases.get(name, []) for name, owners in classes.items()}
    return {name: set(owners) for name, owners in given.items() if len(owners) > 1}


@cache
def scopes(module: Module) -> tuple[tuple[str, ast.AST], ...]:
    """Every node of a module below a class or a function, with the dotted name of that."""
    found: list[tuple[str, ast.AST]] = []
    left: list[tuple[str, ast.AST]] = [(module.name, module.tree)]
    while left:
        scope, node = left.pop()
        for child in ast.iter_child_nodes(node):
            found.append((scope, child))
            named = isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            left.append((f"{scope}.{child.name}" if named else scope, child))
    return tuple(found)


def too_wide(module: Module) -> set[str]:
    """The functions of a module that have too many positional parameters."""
    found = set()
    for scope, node in scopes(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            own = names[:1] in (["self"], ["cls"])
            if len(names) - own > POSITIONAL:
                found.add(f"{scope}.{node.name}")
    return found


def seams(module: Module) -> set[str]:
    """The attributes of a module's classes that are ``Any`` and None at first.

    That is how one looks that somebody else is to fill in later.
    """
    found = set()
    for scope, node in scopes(module):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Constant):
            continue
        if node.value.value is not None or not _is_any(node.annotation):
            continue
        if isinstance(node.target, ast.Attribute):
            found.add(f"{scope.rpartition('.')[0]}.{node.target.attr}")
        elif isinstance(node.target, ast.Name):
            found.add(f"{scope}.{node.target.id}")
    return found


def _is_any(annotation: ast.expr) -> bool:
    parts = ast.unparse(annotation).replace(" ", "").split("|")
    return "Any" in parts or "Optional[Any]" in parts


def is_pure(module: Module) -> bool:
    text = ast.get_docstring(module.tree) or ""
    return re.search(r"\bPure\.|\(pure\)", text) is not None


def unit_tests() -> list[str]:
    """The files of unit tests: their paths below `tests/unit`, without the suffix."""
    folder = ROOT / "tests" / "unit"
    paths = sorted(folder.rglob("test_*.py"))
    return [path.relative_to(folder).with_suffix("").as_posix() for path in paths]


def module_of(test: str) -> Path | None:
    """The module that a file of unit tests has its name from, if there is one."""
    folder, _, name = test.rpartition("/")
    places = (ROOT / "kupool" / folder, ROOT / folder)
    paths = (place / f"{name.removeprefix('test_')}.py" for place in places)
    return next(filter(Path.is_file, paths), None)


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
        """Issues 12 and 13: imports go downwards between files, too, everywhere."""
        self.assertEqual(circles(import_graph(modules())), set())

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
        forms = ("kupool.bus.remote", "kupool.bus.rabbit", "kupool.bus.compatible")
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
                    # The package names its forms, and imports them when they are used.
                    of_a_form = imported.path.startswith(forms)
                    self.assertFalse(of_a_form and module.name != "kupool.bus", module.name)
                else:
                    ours = top in sys.stdlib_module_names or top in ("twisted", "zope")
                    self.assertTrue(ours, f"{module.name} imports {imported.path}")

    def test_the_forms_of_the_bus_are_imported_when_they_are_used(self) -> None:
        """A-01, issue 13: who uses the bus in one process loads nothing that is for networks."""
        script = (
            "import sys, kupool.bus\n"
            "def heavy():\n"
            "    return sorted({n.split('.')[0] for n in sys.modules} & {'pika', 'msgspec'})\n"
            "print(heavy(), 'kupool.net' in sys.modules, kupool.bus.LocalBus.__name__)\n"
            "from kupool.bus import RemoteBus\n"
            "print(heavy(), RemoteBus.__module__)\n"
            "from kupool.bus import RabbitBus\n"
            "print(heavy(), RabbitBus.__module__, kupool.bus.RabbitBus is RabbitBus)\n"
            "try:\n"
            "    kupool.bus.Nothing\n"
            "except AttributeError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
        )
        self.assertEqual(
            done.stdout.splitlines(),
            [
                "[] False LocalBus",
                "['msgspec'] kupool.bus.remote.client",
                "['msgspec'] kupool.bus.rabbit.bus True",
                "module 'kupool.bus' has no attribute 'Nothing'",
            ],
            done.stderr,
        )

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
            # A move is from the inside of one engine to the inside of another. The table of
            # permissions stands on the rules and patterns of the bus, which are pure.
            if module.room in ("daemon", "commands", "web", "tap", "migration", "permissions"):
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
            for node in nodes_of(module.tree):
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


class ConstructionTests(SynchronousTestCase):
    """Issue 12: objects are complete when they are made, and calls say what they hand over."""

    def test_at_most_four_positional_parameters(self) -> None:
        found = set().union(*map(too_wide, modules()))
        self.assertEqual(found, DICTATED)

    def test_too_many_are_found(self) -> None:
        """Methods, functions within others, those without ``self``; not keyword-only ones."""
        made = Module(
            "kupool.a",
            "a",
            ast.parse(
                "def four(a, b, c, d, *, e): ...\n"
                "def five(a, b, c, d, e): ...\n"
                "class C:\n"
                "    def four(self, a, b, /, c, d): ...\n"
                "    async def five(self, a, /, b, c, d, e=0): ...\n"
                "    @staticmethod\n"
                "    def outer():\n"
                "        def inner(a, b, c, d, e): ...\n"
            ),
        )
        self.assertEqual(
            too_wide(made), {"kupool.a.five", "kupool.a.C.five", "kupool.a.C.outer.inner"}
        )

    def test_nothing_is_left_to_be_filled_in(self) -> None:
        found = set().union(*map(seams, modules()))
        self.assertEqual(found, ANYTHING)

    def test_what_is_left_is_found(self) -> None:
        """In a class, and in its methods, however it is written; a type that says more is none."""
        made = Module(
            "kupool.a",
            "a",
            ast.parse(
                "class C:\n"
                "    one: Any = None\n"
                "    fine: int | None = None\n"
                "    def __init__(self):\n"
                "        self.two: Any = None\n"
                "        self.three: Any | None = None\n"
                "        self.known: Peer | None = None\n"
                "        self.given: Any = 1\n"
            ),
        )
        self.assertEqual(seams(made), {f"kupool.a.C.{name}" for name in ("one", "two", "three")})


def _private(name: str) -> bool:
    # The methods of a named tuple have an underscore only to stay clear of its fields.
    named_tuple = name in ("_replace", "_asdict", "_fields", "_make")
    return name.startswith("_") and not name.startswith("__") and not named_tuple


def _private_names(module: Module) -> set[str]:
    """The private attributes that a module makes itself: by assignment, def or slots."""
    own = set()
    for node in nodes_of(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    return own


def _own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions inside of it."""
    left = list(body)
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            left += ast.iter_child_nodes(node)


def _lets_the_end_pass(handler: ast.ExceptHandler) -> bool:
    """Whether a handler of everything awaits nothing and always raises what it caught."""
    nodes = list(_own_nodes(handler.body))
    last = handler.body[-1]
    return (
        isinstance(last, ast.Raise)
        and not any(isinstance(n, ast.Await | ast.AsyncFor | ast.AsyncWith) for n in nodes)
        and not any(isinstance(n, ast.Return | ast.Break | ast.Continue) for n in nodes)
        and all(n.exc is None for n in nodes if isinstance(n, ast.Raise))
    )


def swallowed_ends(tree: ast.AST) -> Iterator[int]:
    """The lines of a module where a coroutine catches its own end, which is
    ``GeneratorExit``, and does anything but to raise it again.
    """
    for function in nodes_of(tree):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        for node in _own_nodes(function.body):
            if not isinstance(node, ast.Try):
                continue
            for handler in node.handlers:
                caught = "BaseException" if handler.type is None else ast.unparse(handler.type)
                if not re.search(r"\b(BaseException|GeneratorExit)\b", caught):
                    continue
                if not _lets_the_end_pass(handler):
                    yield handler.lineno
                elif "GeneratorExit" in caught:
                    break  # nothing is left of it for the handlers below


def waiting_ends(tree: ast.AST) -> Iterator[int]:
    """The lines of a module where a coroutine waits in a ``finally``, or for the end of an
    ``async with``, which it may not do where it is closed: see ``timing.waiting.and_then``.
    """
    for function in nodes_of(tree):
        if not isinstance(function, ast.AsyncFunctionDef):
            continue
        for node in _own_nodes(function.body):
            if isinstance(node, ast.AsyncWith):
                yield node.lineno
            elif isinstance(node, ast.Try):
                waits = ast.Await | ast.AsyncFor | ast.AsyncWith
                yield from (n.lineno for n in _own_nodes(node.finalbody) if isinstance(n, waits))


class CoroutineTests(SynchronousTestCase):
    """Issue 12, point 5: a coroutine that is closed ends there, and waits for nothing."""

    def test_no_coroutine_waits_at_its_own_end(self) -> None:
        for module in modules():
            self.assertEqual(list(waiting_ends(module.tree)), [], module.name)

    def test_one_that_waits_is_found(self) -> None:
        start = "async def f():\n try:\n  await work()\n finally:\n"
        for body in ("await end()", "async for one in ends(): one()", "if late: await end()"):
            self.assertEqual(list(waiting_ends(ast.parse(f"{start}  {body}"))), [5], body)
        for body in ("end()", "later(lambda: end())"):
            self.assertEqual(list(waiting_ends(ast.parse(f"{start}  {body}"))), [])
        within = ast.parse("async def f():\n async with work():\n  end()")
        self.assertEqual(list(waiting_ends(within)), [2])

    def test_no_coroutine_swallows_its_own_end(self) -> None:
        for module in modules():
            self.assertEqual(list(swallowed_ends(module.tree)), [], module.name)

    def test_one_that_does_is_found(self) -> None:
        swallows = (
            "await undo(); raise",
            "log()",
            "return 1",
            "raise ValueError from None",
            "\n  if told: return 1\n  raise",
        )
        start = "async def f():\n try:\n  await work()\n "
        for body in swallows:
            for caught in ("except BaseException", "except (OSError, BaseException)", "except"):
                tree = ast.parse(f"{start}{caught}: {body}")
                self.assertEqual(list(swallowed_ends(tree)), [4], body)
                passed = ast.parse(f"{start}except GeneratorExit: raise\n {caught}: {body}")
                self.assertEqual(list(swallowed_ends(passed)), [], body)
        for body in ("raise", "log(); raise"):
            self.assertEqual(list(swallowed_ends(ast.parse(f"{start}except: {body}"))), [])
        plain = ast.parse("def f():\n try: work()\n except BaseException: pass")
        self.assertEqual(list(swallowed_ends(plain)), [])


class NameTests(SynchronousTestCase):
    """Issue 13, build 6: a name stands for one thing across the product."""

    def test_a_name_stands_for_one_thing(self) -> None:
        self.assertEqual(named_twice(modules()), {})

    def test_a_name_that_stands_for_two_is_found(self) -> None:
        """In two modules or one, inside of a class or a function, or as an alias of another."""
        sources = {
            "kupool.a": "class One: ...\nclass Two: ...\nclass Fine: ...\nclass Four: ...",
            "kupool.b": "class C:\n    class One: ...",
            "kupool.c": "def f():\n    from kupool.b import C as Two",
            "kupool.d": "class Three: ...\nclass Three: ...\nFour = int",
            "kupool.e": "from kupool.a import Fine as Fine\nOther = Fine\nOther = C",
        }
        made = [Module(name, name[7:], ast.parse(text)) for name, text in sources.items()]
        self.assertEqual(
            named_twice(made),
            {
                "One": {"kupool.a", "kupool.b"},
                "Two": {"kupool.a", "kupool.c"},
                "Three": {"kupool.d"},
                "Four": {"kupool.a", "kupool.d"},
            },
        )


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


class MirrorTests(SynchronousTestCase):
    """Issue 14: the folders of the unit tests mirror the packages."""

    def test_a_file_of_tests_has_the_place_of_what_it_tests(self) -> None:
        """`tests/unit/net/test_server.py` tests `kupool/net/server.py`."""
        found = unit_tests()
        self.assertGreater(len(found), 100)
        without = [name for name in found if name not in BEHAVIOURS and not module_of(name)]
        self.assertEqual(without, [], "no such module: move the file, or give a reason")

    def test_reasons_are_given_for_what_needs_one(self) -> None:
        self.assertEqual(set(BEHAVIOURS) - set(unit_tests()), set(), "no such file of tests")
        self.assertEqual([name for name in BEHAVIOURS if module_of(name)], [])

    def test_what_is_no_test_is_elsewhere(self) -> None:
        """Fakes are in `tests/fakes`, real servers in `tests/servers`, tools in `tools`."""
        kinds = ("unit", "contract", "integration", "faults", "browser")
        others = [
            path.relative_to(ROOT).as_posix()
            for kind in kinds
            for path in (ROOT / "tests" / kind).rglob("*.py")
            if not path.name.startswith("test_") and path.name != "__init__.py"
        ]
        self.assertEqual(others, [])


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
