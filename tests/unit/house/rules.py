"""The rules of the house, as functions over the syntax tree of one module.

Each returns what it found as sentences, empty if the module keeps the rule. They are functions and not
assertions so that `test_rules.py` can show each of them a module that breaks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
SOURCE: Final = ROOT / "src" / "lockring"

_WORDS: Final = frozenset(
    {
        "addresses",
        "build_kind",
        "errors",
        "holders",
        "ids",
        "log_events",
        "names",
        "native",
        "protocol",
        "random_ids",
        "slots",
        "system_errors",
        "troubles",
        "units",
    }
)
_PURE_WORDS: Final = _WORDS - {"log_events", "native", "random_ids", "system_errors"}

MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "_version": frozenset(),
    "addresses": frozenset({"errors"}),
    "build_kind": frozenset({"_version", "units"}),
    "clock": frozenset(),
    "cluster_state": _PURE_WORDS,
    "errors": frozenset({"holders"}),
    "holders": frozenset(),
    "exits": frozenset({"errors"}),
    "ids": frozenset(),
    "names": frozenset({"errors", "ids"}),
    "log_events": frozenset(),
    "native": frozenset(),
    "protocol": frozenset({"ids"}),
    "ring_picture": _PURE_WORDS | {"cluster_state", "ring"},
    "random_ids": frozenset(),
    "slots": frozenset({"ids", "names"}),
    "file_editions": frozenset(),
    "system_errors": frozenset(),
    "terminals": frozenset(),
    "troubles": frozenset({"units"}),
    "units": frozenset({"errors"}),
    "ring": _PURE_WORDS | {"cluster_state"},
    "core": _PURE_WORDS | {"cluster_state", "ring"},
    "config": _WORDS | {"clock", "core"},
    "net": _WORDS | {"clock", "cluster_state", "core"},
    "store": _WORDS | {"clock", "cluster_state", "core", "file_editions"},
    "journal": _WORDS | {"clock", "core", "file_editions"},
    "security": _WORDS | {"clock", "core"},
    "grpc_api": _WORDS | {"_version", "client", "clock", "cluster_state", "core", "net", "security"},
    "server": _WORDS
    | {
        "_version",
        "clock",
        "cluster_state",
        "exits",
        "ring",
        "core",
        "net",
        "store",
        "journal",
        "config",
        "grpc_api",
        "ring_picture",
        "security",
        "terminals",
        "views",
    },
    "client": _WORDS | {"_version", "clock", "cluster_state", "ring", "core", "net", "security"},
    "views": _WORDS
    | {"_version", "client", "clock", "cluster_state", "core", "net", "ring", "ring_picture", "terminals"},
    "aio": frozenset({"client", "errors"}),
    "": frozenset({"_version", "aio", "client", "errors", "holders"}),
    "testing": _WORDS
    | {"", "aio", "clock", "cluster_state", "core", "net", "store", "config", "server", "client", "security"},
    "apps": frozenset(
        {"", "aio", "clock", "errors", "names", "native", "system_errors", "troubles", "units"}
    ),
    "cli": _WORDS
    | {
        "",
        "_version",
        "aio",
        "clock",
        "cluster_state",
        "exits",
        "ring",
        "core",
        "net",
        "store",
        "config",
        "server",
        "client",
        "ring_picture",
        "security",
        "terminals",
        "testing",
        "views",
        "apps",
    },
    "__main__": frozenset({"cli"}),
}
"""Which part of the package may import which others, besides itself. "" is `lockring` itself."""

PURE: Final = frozenset({"cluster_state", "ring", "core"})
PURE_INSIDE: Final = frozenset({"apps/cleaner/core"})
"""Folders inside of other parts that keep the rules of the cores."""

TYPED: Final = frozenset({"cluster_state", "core", "journal", "net", "protocol", "server", "slots", "store"})
"""The parts in which a number or a name of the protocol has a type of its own, see `plain_ids`.

Not the client's face and the command line, whose users write plain numbers and text; nor the ring, which calculates.
"""

PURE_MAY_IMPORT: Final = frozenset(
    {
        "__future__",
        "abc",
        "array",
        "bisect",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "itertools",
        "math",
        "operator",
        "struct",
        "types",
        "typing",
        "zlib",
        # a third party, used for values only
        "msgspec",
    },
)
"""All that the cores may use from outside: nothing that reads a clock, draws a number or touches the world."""

PURE_MAY_NOT_CALL: Final = frozenset({"open", "print", "input", "eval", "exec", "__import__", "hash"})
"""`hash` of a text differs from one process to the next, so what depends on it cannot be replayed."""

_NAMED_FOR_TIME: Final = frozenset(
    {"ttl", "timeout", "deadline", "lease", "wait", "waited", "age", "delay", "grace"}
)
_UNITS: Final = frozenset({"ns", "ms", "s"})


def is_generated(path: Path) -> bool:
    """Return whether `make proto` generates this file."""
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def part_of(path: Path, source: Path = SOURCE) -> str:
    """The part of the package that a file belongs to: a key of `MAY_IMPORT`."""
    first = path.relative_to(source).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def is_pure(path: Path, source: Path = SOURCE) -> bool:
    """Whether a file belongs to a core."""
    folder = path.relative_to(source).parent.as_posix()
    return part_of(path, source) in PURE or folder in PURE_INSIDE


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module that is imported anywhere in a tree, also inside functions, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are banned by the linter"
            assert node.module is not None
            if node.module == "lockring":  # `from lockring import errors` names a part
                yield from ((node.lineno, f"lockring.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def wrong_way_imports(part: str, tree: ast.AST) -> list[str]:
    """Imports of a part of the package that this part may not know."""
    found = []
    for line, module in imports_of(tree):
        package, _, inner = module.partition(".")
        if package != "lockring":
            continue
        target = inner.split(".")[0]
        if target not in MAY_IMPORT:
            target = ""  # `from lockring import Client`
        if target != part and target not in MAY_IMPORT[part]:
            found.append(f"line {line}: {part or 'lockring'} may not import {module}")
    return found


def impurities(tree: ast.AST) -> list[str]:
    """Find what a core may not do: reach for the world outside, or depend on an order that is not its own."""
    found = [
        f"line {line}: a core may not import {module}"
        for line, module in imports_of(tree)
        if module.split(".")[0] not in PURE_MAY_IMPORT | {"lockring"}
    ]
    own_hashes = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef) and outer.name == "__hash__"
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if isinstance(node, ast.Call) and called in PURE_MAY_NOT_CALL and node not in own_hashes:
            found.append(f"line {node.lineno}: a core may not call {called}()")
        if isinstance(node, ast.For | ast.comprehension) and _is_set(node.iter):
            found.append(f"line {node.iter.lineno}: the order of a set is not the same in every process")
    return found


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp)


def undocumented(tree: ast.Module) -> list[str]:
    """The module, public classes, functions and methods without a docstring."""
    found = [] if ast.get_docstring(tree) else ["line 1: the module has no docstring"]
    outers: list[ast.Module | ast.ClassDef] = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))]
    for outer in outers:
        if isinstance(outer, ast.ClassDef) and outer.name.startswith("_"):
            continue
        for node in outer.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            inherits = any(
                ast.unparse(mark).rpartition(".")[2] in {"override", "overload", "setter"}
                for mark in node.decorator_list
            )
            if not node.name.startswith("_") and not inherits and not ast.get_docstring(node):
                found.append(f"line {node.lineno}: {node.name} has no docstring")
    return found


def without_unit(tree: ast.AST) -> list[str]:
    """Numbers named for a time whose name does not end in a unit (qualifiers such as _max may follow)."""
    found = []
    for node in ast.walk(tree):
        named: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [(each.arg, each.annotation) for each in arguments]
        elif isinstance(node, ast.AnnAssign):
            named = [(ast.unparse(node.target).rpartition(".")[2], node.annotation)]
        for name, annotation in named:
            words = re.split("_", name.lower())
            if annotation is None or not re.search(r"\b(int|float)\b", ast.unparse(annotation)):
                continue
            if re.search(r"[\[]", ast.unparse(annotation)):
                continue  # a container of numbers is named for what it holds
            if _NAMED_FOR_TIME & set(words) and not _UNITS & set(words):
                found.append(f"line {getattr(node, 'lineno', 0)}: {name} has no unit (_ns, _ms or _s)")
    return found


TYPE_OF: Final[dict[str, str]] = {
    "acquisition": "AcquisitionNumber",
    "client": "ClientId",
    "cluster": "ClusterId",
    "connection": "ConnectionId",
    "epoch": "Epoch",
    "generation": "Generation",
    "incarnation": "Incarnation",
    "index": "MutationIndex",
    "link": "LinkId",
    "node": "NodeId",
    "operation": "OperationNumber",
    "request": "RequestNumber",
    "sequence": "SequenceNumber",
    "session": "SessionId",
    "slot": "SlotNumber",
    "term": "TermId",
    "version": "Version",
    "view": "Generation",
}
"""The type in `lockring.ids` of a value whose name ends in this word."""


def plain_ids(tree: ast.AST) -> list[str]:
    """Arguments, fields, variables and results that are annotated int or str where `lockring.ids` has a type for them.

    Records of three or more plain numbers are found too: nothing tells such numbers apart.
    """
    found = []
    for node in ast.walk(tree):
        for name, annotation in _annotations(node):
            kind, word = ast.unparse(annotation).removesuffix(" | None"), name.rpartition("_")[2]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                word = name.removesuffix("_of")  # `drop_session` returns no session, `slot_of` returns a slot
            if kind in ("int", "str") and word in TYPE_OF:
                found.append(f"line {annotation.lineno}: {name} is a plain {kind}, not a {TYPE_OF[word]}")
            if re.search(r"\btuple\[int(, int){2,}\]", kind):
                found.append(f"line {annotation.lineno}: {name} is {kind}: name its parts")
    return found


def _annotations(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """Return what a node annotates, with its names."""
    if isinstance(node, ast.arg) and node.annotation is not None:
        return [(node.arg, node.annotation)]
    if isinstance(node, ast.AnnAssign):
        return [(ast.unparse(node.target).rpartition(".")[2], node.annotation)]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
        return [(node.name, node.returns)]
    return []


def classes_of(tree: ast.AST) -> list[ast.ClassDef]:
    """Every class that a module defines, also inside of others."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


NOUNS_LIKE_PARTICIPLES: Final = frozenset({"HashRing", "KeyRing", "Setting", "Timing"})


def named_by_participles(tree: ast.AST) -> list[str]:
    """Classes that are called like a verb: a class is a thing. Errors are named for what happened."""
    return [
        f"line {each.lineno}: {each.name}"
        for each in classes_of(tree)
        if re.search(r"(?:ing|ed)$", each.name)
        and each.name not in NOUNS_LIKE_PARTICIPLES
        and not _is_error(each)
    ]


def _is_error(each: ast.ClassDef) -> bool:
    bases = {ast.unparse(base).rpartition(".")[2] for base in each.bases}
    return bool(
        bases
        & {
            "LockringError",
            "Exception",
            "InvalidRequest",
            "ConfigError",
            "Denied",
            "RuntimeError",
            "StoreError",
            "Unavailable",
        }
    )


_BANNED: Final = re.compile(
    r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b|\b[Ii]ssue #|/work" r"/|/tmp/pl" r"an|\.\./sha" r"red",
)


def banned_words(text: str) -> list[str]:
    """Notes to oneself, and what means nothing to a reader of the repository."""
    return [
        f"line {number}: {match.group()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for match in _BANNED.finditer(line)
    ]


def import_graph(trees: dict[str, ast.Module], packages: frozenset[str]) -> dict[str, frozenset[str]]:
    """Which module imports which others of the package, also inside functions and under TYPE_CHECKING.

    Args:
        trees: by dotted name of the module.
        packages: those names that are packages; what is imported from one may be a module of it.
    """
    return {
        name: frozenset(
            target
            for node in ast.walk(tree)
            for target in _targets(node, trees, packages)
            if target != name and not (target in packages and name.startswith(target + "."))
        )
        for name, tree in trees.items()
    }


def _targets(node: ast.AST, trees: dict[str, ast.Module], packages: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in trees)
    elif isinstance(node, ast.ImportFrom) and node.module in trees:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if node.module in packages and inner in trees else node.module


def circles(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others. Tarjan, "Depth-first search", 1972."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph.get(name, ())):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == name:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(found)


ATTRIBUTES_MAX: Final = 12


def attributes_of(each: ast.ClassDef) -> set[str]:
    """The attributes that a class sets on itself, or declares."""
    found = {
        node.target.id
        for node in each.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    for node in ast.walk(each):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        for target in targets:
            for inner in target.elts if isinstance(target, ast.Tuple) else [target]:
                if (
                    isinstance(inner, ast.Attribute)
                    and isinstance(inner.value, ast.Name)
                    and inner.value.id == "self"
                ):
                    found.add(inner.attr)
    return found


def too_many_attributes(tree: ast.AST) -> list[str]:
    """Classes with more to hold than a reader can: they are several things."""
    return [
        f"line {each.lineno}: {each.name} has {len(attributes_of(each))} attributes"
        for each in classes_of(tree)
        if len(attributes_of(each)) > ATTRIBUTES_MAX
    ]


def hubs(tree: ast.AST) -> list[str]:
    """Parts that hold the whole they belong to."""
    return [
        f"line {node.lineno}: self.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr in {"_node", "_service", "_core"}
    ]


POSITIONAL_MAX: Final = 5

LONG_CALLS: Final[dict[tuple[str, str], str]] = {
    (
        "client/blocking/driver.py",
        "self._section.inside",
    ): "the section hands on what a blocking acquire is given",
    (
        "core/node/grants.py",
        "_new_put",
    ): "the one constructor of the mutation that each replicated grant makes",
}
"""Calls on the measured hot path, by module and function called. The figure stands beside each of them."""


def long_calls(tree: ast.AST) -> list[tuple[int, str]]:
    """Calls whose arguments only their positions name, and that are too many for a reader to count.

    Returns:
        The line and the function called, of each.
    """
    return [
        (node.lineno, ast.unparse(node.func))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and len(node.args) > POSITIONAL_MAX
    ]
