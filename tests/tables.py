"""What objects keep in tables: so that a test can say that nothing is left behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any


def attributes(thing: object) -> Iterator[tuple[str, Any]]:
    """The attributes of one object, of slots and otherwise."""
    names = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    names += getattr(thing, "__dict__", {})
    for name in dict.fromkeys(names):
        if name != "__weakref__" and hasattr(thing, name):
            yield name, getattr(thing, name)


def tables(root: object, package: str) -> dict[str, int]:
    """How much is in each dict, set, list and deque of an object of a package, and of all
    objects of the package that it has: by the way there.

    What is in the tables is looked at as well, under one way for all of a table.
    """
    found: dict[str, int] = {}
    seen = {id(root)}
    left: list[tuple[str, object]] = [("", root)]
    while left:
        way, thing = left.pop()
        if isinstance(thing, dict | set | frozenset | list | tuple | deque):
            if not isinstance(thing, tuple):
                found[way] = found.get(way, 0) + len(thing)
            inside = [*thing, *thing.values()] if isinstance(thing, dict) else list(thing)
            nexts = [(f"{way}[]", one) for one in inside]
        elif type(thing).__module__.startswith(package) and not isinstance(thing, type):
            nexts = [(f"{way}.{name}", one) for name, one in attributes(thing)]
        elif isinstance(thing, MethodType):
            nexts = [(way, thing.__self__)]
        elif isinstance(thing, FunctionType):
            cells = [cell.cell_contents for cell in thing.__closure__ or ()]
            nexts = [(f"{way}()", one) for one in cells]
        else:
            nexts = []
        for name, one in nexts:
            if id(one) not in seen:
                seen.add(id(one))
                left.append((name, one))
    return found
