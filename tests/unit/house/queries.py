"""Queries that change something: a method that answers a question by its name or its docstring, and assigns.

A method is a query if it is a property, if its name asks (`is_…`, `why_…`, `…_of`), or if its docstring begins with
"Return". It *changes* something if it assigns to an attribute or an item of one of its arguments, changes a
collection there, or calls a method that does. Names stand for methods: a call of `x.name()` changes something if every
class with a method of this name changes something in it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_ASKS: Final = re.compile(
    r"_?(?:(?:accounts|any|can|find|had|has|is|knows|may|must|needs|next|was|why|will)_\w+|\w+_of|\w+_[mn]s)"
)
_ANSWERS: Final = re.compile(r"(?:Return|Yield)\b")
_CHANGES_COLLECTION: Final = frozenset(
    {
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "setdefault",
        "update",
    }
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class _Step(NamedTuple):
    """A step of a method that may change something its caller has given it: an assignment, or the call of a method.

    Attributes:
        line: its line.
        called: the method's name, "" for an assignment.
        is_own: whether the method is one of the same object.
    """

    line: int
    called: str = ""
    is_own: bool = False


class Method(NamedTuple):
    """A method, or a function of a module, whose class is "" then."""

    module: str
    owner: str
    node: Function
    steps: list[_Step]

    @property
    def name(self) -> str:
        """Its name within all modules, as in `core/node/rights.py: Rights.may_serve`."""
        return self.beside(self.node.name)

    def beside(self, name: str) -> str:
        """Return the name within all modules of another method of the same class."""
        return f"{self.module}: {self.owner}.{name}" if self.owner else f"{self.module}: {name}"


def methods_of(trees: Mapping[str, ast.Module]) -> list[Method]:
    """Return the functions of modules, and the methods of their classes."""
    found = []
    for module, tree in trees.items():
        for owner in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))):
            name = owner.name if isinstance(owner, ast.ClassDef) else ""
            functions = [node for node in owner.body if isinstance(node, Function)]
            found += [Method(module, name, node, list(_steps(node))) for node in functions]
    return found


def is_query(method: Method) -> bool:
    """Return whether a method answers a question, by its name, its docstring or its being a property."""
    node = method.node
    if any(ast.unparse(each).endswith("property") for each in node.decorator_list):
        return True
    if node.returns is None or ast.unparse(node.returns) == "None":
        return False
    return bool(_ASKS.fullmatch(node.name) or _ANSWERS.match(ast.get_docstring(node) or ""))


def changing_queries(trees: Mapping[str, ast.Module], caches: Mapping[str, str]) -> list[str]:
    """Return the queries that change something, with the lines where they do.

    Args:
        trees: by the modules' names.
        caches: methods that keep an answer for the next time, which no caller can tell, each with its reason.
    """
    everything = methods_of(trees)
    methods = [method for method in everything if method.name not in caches]
    kept = {method.node.name for method in everything if method.name in caches}
    names = {method.node.name for method in methods} - kept
    changing: set[str] = set()
    while True:
        commands = names - {method.node.name for method in methods if method.name not in changing}
        commands |= _CHANGES_COLLECTION
        more = {method.name for method in methods if _changes(method, changing, commands)}
        if more == changing:
            break
        changing = more
    return [
        f"{method.name}, line {line}"
        for method in methods
        if is_query(method)
        for line in _changes(method, changing, commands)
    ]


def _changes(method: Method, changing: set[str], commands: set[str]) -> list[int]:
    """Return the lines in which a method changes something."""
    return [
        step.line
        for step in method.steps
        if not step.called
        or (method.beside(step.called) in changing if step.is_own else step.called in commands)
    ]


def _steps(function: Function) -> Iterator[_Step]:
    arguments = function.args
    given = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    inside = list(_inside(function))
    # A name that the function binds again may stand for something of its own.
    given -= {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in inside:
        match node:
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                if _root(node) in given:
                    yield _Step(node.lineno)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                yield _Step(node.lineno, name, is_own=True)
            case ast.Call(func=ast.Attribute(attr=name) as called) if _root(called) in given:
                yield _Step(node.lineno, name)


def _inside(function: Function) -> Iterator[ast.AST]:
    """Yield what a function does itself: not what functions within it do, since it may only hand them out."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _FUNCTIONS):
            stack.extend(ast.iter_child_nodes(node))


def _root(node: ast.AST) -> str:
    """Return the name at which a chain of attributes, items and calls begins, "" if it is something else."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
