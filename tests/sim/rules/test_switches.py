"""Every switch names methods and attributes that exist: one that does not would switch nothing off.

The type checker checks the attributes of annotated objects (`tests.sim.rules` in `pyproject.toml`). It sees neither the
names of replaced methods, which are strings, nor the attributes of objects annotated as `Any`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.rules import MUTANTS, applied
from tests.sim.rules.switches import replaced
from tests.sim.scenarios.scenario import Scenario

ROOT = Path(__file__).parents[3]
RULES = sorted(path for path in Path(__file__).parent.glob("*.py") if path != Path(__file__))


def attributes_set(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each attribute that is assigned."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def members(tree: ast.AST) -> Iterator[str]:
    """Yield the names that classes declare or define, or assign to `self`."""
    for each in ast.walk(tree):
        if not isinstance(each, ast.ClassDef):
            continue
        for node in ast.walk(each):
            match node:
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.FunctionDef(name=name):
                    yield name
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    yield name


@pytest.fixture(scope="module")
def known() -> frozenset[str]:
    """The members of all classes in the code under test and in the simulation."""
    files = [*(ROOT / "src" / "lockring").rglob("*.py"), *(ROOT / "tests" / "sim" / "framework").glob("*.py")]
    return frozenset(name for file in files for name in members(ast.parse(file.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_switch_replaces_what_is_there(name: str) -> None:
    with applied(name):
        pass


def test_a_change_of_a_method_that_is_not_there_is_noticed() -> None:
    changes = [(Scenario, "quiet", None), (Scenario, "no_such_method", None)]
    with pytest.raises(AssertionError, match="Scenario defines no no_such_method"), replaced(changes):
        pass
    assert Scenario.quiet is not None, "the attribute replaced before must be as it was"


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_switches_set_attributes_that_are_there(path: Path, known: frozenset[str]) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known_here = known.union(members(tree))
    assert [(line, name) for line, name in attributes_set(tree) if name not in known_here] == []


def test_an_attribute_that_is_not_there_is_noticed(known: frozenset[str]) -> None:
    tree = ast.parse("def changed(self, message):\n    message.acquisition = 1\n    message.akquisition = 2")
    assert [(line, name) for line, name in attributes_set(tree) if name not in known] == [(3, "akquisition")]
