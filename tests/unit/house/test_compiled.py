"""The modules that are compiled can be, mean the same when they are, and the list of those that are not is true."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterable

import pytest

from compiled import modules
from lockring import build_kind
from tests.unit.house import compilable, rules
from tests.unit.house.reading import findings, tree_of

TREES = {
    name: tree_of(rules.ROOT / modules.path_of(name))
    for name in [*modules.compiled_modules(), *modules.INTERPRETED]
}
PATHS = [rules.ROOT / modules.path_of(name) for name in modules.compiled_modules()]
COMPILED_CLASSES = frozenset(
    name for module in modules.compiled_modules() for name in compilable.class_names(TREES[module])
)


def compiled_findings(*found_in: Callable[[ast.Module], Iterable[object]]) -> dict[str, list[object]]:
    """Return by compiled module what some rules find in it."""
    return findings(
        PATHS, lambda path: itertools.chain.from_iterable(rule(tree_of(path)) for rule in found_in)
    )


def test_a_compiled_module_means_what_its_source_means() -> None:
    found = compiled_findings(
        compilable.miscompiled_slices,
        compilable.miscompiled_supers,
        compilable.undefined_defaults,
        compilable.believed_to_be_none,
    )
    assert found == {}


def test_a_compiled_module_has_nothing_that_the_compiler_refuses() -> None:
    found = compiled_findings(
        compilable.keywords_of_c,
        lambda tree: compilable.refused_classes(tree, COMPILED_CLASSES),
        compilable.weak_references_to_self,
        compilable.asynchronous_generators,
        compilable.starred_choices,
    )
    assert found == {}


def test_a_compiled_module_has_nothing_that_is_slow_when_compiled() -> None:
    assert compiled_findings(compilable.large_instants, compilable.structs) == {}


@pytest.mark.parametrize(("module", "reason"), modules.INTERPRETED.items())
def test_a_module_that_stays_interpreted_has_its_reason(module: str, reason: str) -> None:
    assert module.rpartition("/")[0] in modules.PACKAGES
    tree = TREES[module]
    source = (rules.ROOT / modules.path_of(module)).read_text(encoding="utf-8")
    found = {
        modules.STRUCTS: bool(compilable.structs(tree)),
        modules.PUBLIC: module.startswith("client/"),
        modules.DRIVER: "__weakref__" in source or re.search(r"^class \w*Driver\b", source, re.MULTILINE),
        modules.LIST: re.search(r"^class \w+\(list\[", source, re.MULTILINE),
        modules.HANDLERS: len(tree.body) == 3 and isinstance(tree.body[2], ast.FunctionDef),
        modules.GENERATOR: bool(compilable.asynchronous_generators(tree)),
    }
    assert found[reason]


def test_single_modules_are_of_no_package_that_is_compiled_as_a_whole() -> None:
    assert [name for name in modules.SINGLE if name.rpartition("/")[0] in modules.PACKAGES] == []


def test_the_module_that_tells_the_build_is_compiled() -> None:
    assert build_kind.units.__name__.removeprefix("lockring.") in modules.compiled_modules()


@pytest.mark.parametrize(
    ("code", "find"),
    [
        ("view[: read(data)]", compilable.miscompiled_slices),
        ("view[len(head) :]", compilable.miscompiled_slices),
        ("super().__init__(*arguments)", compilable.miscompiled_supers),
        ("super().__init__(**options)", compilable.miscompiled_supers),
        ("class A:\n    item: B | C | None = None", compilable.undefined_defaults),
        ("def f():\n    self.x = None\n    begin()\n    show(self.x)", compilable.believed_to_be_none),
        ("self._thread = 1", compilable.keywords_of_c),
        ("class A(dict): ...", lambda tree: compilable.refused_classes(tree, frozenset())),
        ("class A(B, C): ...", lambda tree: compilable.refused_classes(tree, frozenset({"B", "C"}))),
        ("class A:\n    class B: ...", lambda tree: compilable.refused_classes(tree, frozenset())),
        (
            "class A:\n    __slots__ = ('__weakref__',)",
            lambda tree: compilable.refused_classes(tree, frozenset()),
        ),
        ("weakref.ref(self)", compilable.weak_references_to_self),
        ("async def f():\n    yield 1", compilable.asynchronous_generators),
        ("x not in (1, *others)", compilable.starred_choices),
        ("LATE_NS: Final = 1 << 62", compilable.large_instants),
        ("LATE_NS: Final = -(2**62)", compilable.large_instants),
        (f"LATE_NS: Final = {2**62}", compilable.large_instants),
        ("class A(msgspec.Struct): ...", compilable.structs),
    ],
)
def test_what_must_not_be_compiled_is_found(code: str, find) -> None:
    assert len(find(ast.parse(code))) == 1


@pytest.mark.parametrize(
    ("code", "find"),
    [
        ("view[:end]; view[a + 1 : b]", compilable.miscompiled_slices),
        ("super().__init__(one, two=2)", compilable.miscompiled_supers),
        ("class A:\n    item: B | None = None\n    other: B | C | None", compilable.undefined_defaults),
        ("class A(NamedTuple):\n    item: B | C | None = None", compilable.undefined_defaults),
        (
            "def f():\n    self.x = None\n    self.x = begin()\n    show(self.x)",
            compilable.believed_to_be_none,
        ),
        ("self.thread = self._threads", compilable.keywords_of_c),
        (
            "class A(Protocol[T]): ...\nclass B(A): ...\nclass C(NamedTuple): ...",
            lambda tree: compilable.refused_classes(tree, frozenset({"A"})),
        ),
        ("weakref.ref(member)", compilable.weak_references_to_self),
        ("async def f():\n    def g():\n        yield 1", compilable.asynchronous_generators),
        ("x in (1, 2) + others; for_each([1, *others])", compilable.starred_choices),
        ("LATE_NS: Final = 1 << 61; MASK: Final = 1 << 64", compilable.large_instants),
        ("class A: ...", compilable.structs),
    ],
)
def test_what_may_be_compiled_is_not_found(code: str, find) -> None:
    assert find(ast.parse(code)) == []
