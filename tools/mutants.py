"""The mutants of a module: its source with one operator, constant, comparison or call changed.

What changes no behaviour is left alone: annotations, docstrings, interfaces, lines of the log,
assertions, and what is for type checkers.
"""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}

_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}

#: Decorators and assignments whose constants are for tools, not for the program.
_FOR_TOOLS = ("__all__", "__slots__")

#: Expressions that only ask who is asked: a log's name, before the dot.
_LOGS = ("log", "_log", "logger")


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the span that is replaced, in bytes, and by what."""

    path: str
    line: int
    statement: str
    was: str
    becomes: str
    start: int
    end: int

    @property
    def change(self) -> str:
        """The change in words that stay the same when lines move."""
        return f"{self.was} -> {self.becomes}"

    def applied(self, source: bytes) -> bytes:
        """Return the source with the change."""
        return source[: self.start] + self.becomes.encode() + source[self.end :]


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Return every mutant of a file, in the order of its lines."""
    found = _Finder(path, source)
    for statement in ast.parse(source).body:
        found.visit(statement)
    return found.mutants


class _Finder(ast.NodeVisitor):
    """Walks through what runs, and notes every change that may be made there."""

    def __init__(self, path: str, source: bytes) -> None:
        self._path = path
        self._source = source
        self._lines = source.decode().splitlines()
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._in_function = 0
        self.mutants: list[Mutant] = []

    # -- what is left alone

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [ast.unparse(base) for base in node.bases]
        if not any(base.endswith("Interface") or base == "Protocol" for base in bases):
            self._body(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if any("overload" in ast.unparse(each) for each in node.decorator_list):
            return
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        self._in_function += 1
        self._body(node.body)
        self._in_function -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def _body(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(t, ast.Name) and t.id in _FOR_TOOLS for t in node.targets):
            self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """An assertion says what is known."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Pieces of an f-string have no text of their own in older Pythons."""

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return
        self._negate(node.test)
        self.generic_visit(node)

    # -- what is changed

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        # Comparisons, `not` and `and` have changes of their own.
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            self._replace(test, ast.UnaryOp(ast.Not(), test))

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                changed = copy.deepcopy(node)
                changed.ops[place] = other()
                self._replace(node, changed)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace(node, ast.BoolOp(other, node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            self._replace(node, node.operand)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        types = isinstance(node.op, ast.BitOr) and not self._in_function
        if not types and not any(_is_text(side) for side in (node.left, node.right)):
            other = _OPERATORS.get(type(node.op))
            if other is not None:
                self._replace(node, ast.BinOp(node.left, other(), node.right))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        other = _OPERATORS.get(type(node.op))
        if other is not None and not _is_text(node.value):
            self._replace(node, ast.AugAssign(node.target, other(), node.value))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace(node, ast.Constant(not value))
        elif isinstance(value, int):
            self._replace(node, ast.Constant(value + 1))
        elif isinstance(value, float):
            self._replace(node, ast.Constant(value * 2 if value else 1.0))
        elif isinstance(value, str):
            self._replace(node, ast.Constant(f"{value}!"))
        elif isinstance(value, bytes):
            self._replace(node, ast.Constant(value + b"!"))

    def visit_Call(self, node: ast.Call) -> None:
        if not _is_log(node) and ast.unparse(node.func) != "TypeVar":
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Constant) or _is_log(value):
            return
        if isinstance(value, ast.Call):
            self._replace(node, ast.Constant(None))
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._replace(node, ast.Continue())

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace(node, ast.Break())

    def visit_Raise(self, node: ast.Raise) -> None:
        """Texts of errors are for people; conditions around them are changed."""

    # -- noting

    def _replace(self, node: ast.expr | ast.stmt, other: ast.expr | ast.stmt) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        text = ast.unparse(other)
        becomes = text if isinstance(node, ast.stmt) or _is_simple(other) else f"({text})"
        was = " ".join(self._source[start:end].decode().split())
        statement = self._lines[node.lineno - 1].strip()
        mutant = Mutant(self._path, node.lineno, statement, was, becomes, start, end)
        self.mutants.append(mutant)


def _is_simple(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and not isinstance(node.value, complex)


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr | ast.List | ast.Tuple):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _is_log(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return name in _LOGS
