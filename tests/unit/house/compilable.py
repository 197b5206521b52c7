"""The limits of a compiled module, as functions over its syntax tree.

Each returns what it found as sentences. The compiler refuses some of it, and says so. Some of it becomes code that is
wrong, or slow, and it says nothing.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Final

_SMALL_BELOW: Final = 2**62
"""The compiled build keeps smaller integers in registers; a larger one is an object, and slow to compare with."""

C_KEYWORDS: Final = frozenset(
    {
        "__alignof",
        "__asm",
        "__attribute",
        "__auto_type",
        "__complex",
        "__const",
        "__extension",
        "__imag",
        "__inline",
        "__int128",
        "__label",
        "__real",
        "__restrict",
        "__signed",
        "__thread",
        "__typeof",
        "__volatile",
        "_Alignas",
        "_Alignof",
        "_Atomic",
        "_Bool",
        "_Complex",
        "_Generic",
        "_Imaginary",
        "_Noreturn",
    }
)
"""Words of C and of its compilers that begin with an underscore, as the field of an attribute does."""

FREE_BASES: Final = frozenset(
    {"Enum", "IntEnum", "Exception", "Generic", "NamedTuple", "Protocol", "enum.Enum", "enum.IntEnum"}
)
"""Bases that the compiler knows, or of classes whose speed does not matter."""


def miscompiled_slices(tree: ast.Module) -> list[str]:
    """Find slices with a call in a bound: mypyc 2.4 calls it twice, unless a list, text or bytes are sliced."""
    return [
        f"line {node.lineno}: a call in the bound of a slice; give its result a name first"
        for node in ast.walk(tree)
        if isinstance(node, ast.Slice)
        for bound in (node.lower, node.upper, node.step)
        if bound is not None and any(isinstance(part, ast.Call | ast.Await) for part in ast.walk(bound))
    ]


def miscompiled_supers(tree: ast.Module) -> list[str]:
    """Find calls of `super()` that pass starred arguments on: mypyc 2.4 passes the containers themselves."""
    return [
        f"line {node.lineno}: super() is passed starred arguments; name each of them"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith("super().")
        and any(
            [
                *(isinstance(each, ast.Starred) for each in node.args),
                *(each.arg is None for each in node.keywords),
            ]
        )
    ]


def undefined_defaults(tree: ast.Module) -> list[str]:
    """Find defaults of None in a class for a choice of several types: mypyc 2.4 leaves such an attribute undefined."""
    return [
        f"line {line.lineno}: {ast.unparse(line.target)} would have no value; set it in the constructor"
        for node in _classes(tree)
        if "NamedTuple" not in map(ast.unparse, node.bases)
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.value, ast.Constant)
        and line.value.value is None
        and sum(isinstance(part, ast.BitOr) for part in ast.walk(line.annotation)) > 1
    ]


def believed_to_be_none(tree: ast.Module) -> list[str]:
    """Find attributes that a function sets to None and reads later: mypyc takes None for the type of what it reads.

    If a call in between has set the attribute, the compiled function raises a TypeError.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [found for function in functions for found in _read_after_none(function)]


def _read_after_none(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    attributes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
    stored = Counter(ast.unparse(node) for node in attributes if isinstance(node.ctx, ast.Store))
    emptied = {
        ast.unparse(target): node.lineno
        for node in ast.walk(function)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Constant)
        and node.value.value is None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    for node in attributes:
        name = ast.unparse(node)
        if (
            isinstance(node.ctx, ast.Load)
            and stored[name] == 1
            and node.lineno > emptied.get(name, node.lineno)
        ):
            yield f"line {node.lineno}: {name} was set to None above; if a call has set it since, that is an error"


def keywords_of_c(tree: ast.Module) -> list[str]:
    """Find attributes whose fields would be words of C: an attribute is a field with an underscore before its name."""
    names = {
        node.attr: node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    return [
        f"line {line}: the attribute {name!r} is a word of C in the compiled build; name it otherwise"
        for name, line in names.items()
        if f"_{name}" in C_KEYWORDS
    ]


def refused_classes(tree: ast.Module, compiled_names: frozenset[str]) -> list[str]:
    """Find classes that cannot be compiled, or only to slow ones.

    Args:
        tree: the module.
        compiled_names: the classes of the compiled modules.
    """
    return [
        f"line {node.lineno}: {problem}"
        for node in _classes(tree)
        for problem in _problems(node, compiled_names)
    ]


def _problems(node: ast.ClassDef, compiled_names: frozenset[str]) -> Iterator[str]:
    bases = [ast.unparse(base.value if isinstance(base, ast.Subscript) else base) for base in node.bases]
    for base in bases:
        if base not in FREE_BASES and base not in compiled_names:
            yield f"{node.name} has the base {base}, which is not compiled: its attributes would be slow"
    if sum(base not in ("Generic", "Protocol") for base in bases) > 1:
        yield f"{node.name} has several bases, of which the compiler allows one"
    if any(isinstance(inner, ast.ClassDef) for inner in ast.walk(node) if inner is not node):
        yield f"{node.name} has a class within it, which the compiler does not allow"
    if "__weakref__" in {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}:
        yield f"{node.name} is to be referred to weakly, which compiled objects cannot be"


def weak_references_to_self(tree: ast.Module) -> list[str]:
    """Find weak references to objects of the module itself, which cannot be made once they are compiled."""
    return [
        f"line {node.lineno}: a weak reference to an object of this module"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("weakref.ref", "ref")
        and node.args
        and ast.unparse(node.args[0]) == "self"
    ]


def starred_choices(tree: ast.Module) -> list[str]:
    """Find `x in (1, *others)`: mypyc 2.4 fails with an error of its own."""
    return [
        f"line {node.lineno}: a starred element behind `in`; compare in another way"
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for operator, choices in zip(node.ops, node.comparators, strict=True)
        if isinstance(operator, ast.In | ast.NotIn)
        and isinstance(choices, ast.Tuple | ast.List | ast.Set)
        and any(isinstance(each, ast.Starred) for each in choices.elts)
    ]


def asynchronous_generators(tree: ast.Module) -> list[str]:
    """Find asynchronous generators."""
    return [
        f"line {node.lineno}: the asynchronous generator {node.name}, which the compiler does not allow"
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef) and _yields(node)
    ]


def _yields(function: ast.AsyncFunctionDef) -> bool:
    """Return whether a function itself yields, and not one within it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Yield):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
    return False


def large_instants(tree: ast.Module) -> list[str]:
    """Find instants and durations that do not fit into a register of the compiled build."""
    return [
        f"line {node.lineno}: {ast.unparse(node.target)} is 2**62 or more, which is slow in the compiled build"
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.target).endswith("_NS")
        and node.value is not None
        and any(
            abs(_integer(part)) >= _SMALL_BELOW for part in ast.walk(node.value) if isinstance(part, ast.expr)
        )
    ]


def _integer(node: ast.expr) -> int:
    """Return the value of a constant or of a power of two, 0 for anything else."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.BinOp(ast.Constant(value=int(base)), ast.Pow(), ast.Constant(value=int(power))):
            return base**power if 0 <= power < 100 else 0
        case ast.BinOp(ast.Constant(value=int(base)), ast.LShift(), ast.Constant(value=int(places))):
            return base << places if 0 <= places < 100 else 0
    return 0


def structs(tree: ast.Module) -> list[str]:
    """Find structs: a compiled module cannot define them all, and gains nothing where it can."""
    return [
        f"line {node.lineno}: {node.name} is a struct; make it a plain class, or leave the module interpreted"
        for node in _classes(tree)
        if any(ast.unparse(base) in ("msgspec.Struct", "Struct", "Message") for base in node.bases)
    ]


def class_names(tree: ast.Module) -> set[str]:
    """Return the names of a module's classes."""
    return {node.name for node in _classes(tree)}


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
