"""The structure of the house: what the import graph and the classes of the cores look like."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.house import rules
from tests.unit.house.reading import MODULES, findings, name_of, tree_of

CORE = [path for path in MODULES if rules.part_of(path) == "core"]
MACHINES = ("node", "coordinator", "client")


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(rules.SOURCE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


PACKAGES = frozenset(dotted(path) for path in MODULES if path.name == "__init__.py")
GRAPH = rules.import_graph({dotted(path): tree_of(path) for path in MODULES}, PACKAGES)


def imports_from(package: str) -> Iterator[tuple[str, str]]:
    """Which modules outside of a package import which of its modules."""
    for name, targets in GRAPH.items():
        for target in sorted(targets):
            if target.startswith(package + ".") and not (name + ".").startswith(package + "."):
                yield name, target


def test_no_modules_import_each_other_not_even_for_their_types() -> None:
    assert rules.circles(GRAPH) == []


def test_a_circle_is_found_also_through_a_third_module_and_for_types_alone() -> None:
    trees = {
        "p.a": ast.parse("from p.b import x"),
        "p.b": ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.c import y"),
        "p.c": ast.parse("def f():\n    from p import a"),
        "p.d": ast.parse("from p.a import z"),
        "p": ast.parse(""),
    }
    assert rules.circles(rules.import_graph(trees, frozenset({"p"}))) == [["p.a", "p.b", "p.c"]]


@pytest.mark.parametrize("machine", MACHINES)
def test_no_machine_imports_another(machine: str) -> None:
    others = tuple(f"lockring.core.{other}" for other in MACHINES if other != machine)
    found = [
        (name, target)
        for name, targets in GRAPH.items()
        if name.startswith(f"lockring.core.{machine}")
        for target in sorted(targets)
        if target.startswith(others)
    ]
    assert found == []


@pytest.mark.parametrize("machine", MACHINES)
def test_shells_import_the_face_of_a_machine_alone(machine: str) -> None:
    assert list(imports_from(f"lockring.core.{machine}")) == []


@pytest.mark.parametrize("machine", MACHINES)
def test_the_parts_that_a_machine_lists_exist(machine: str) -> None:
    path = rules.SOURCE / "core" / machine / "core.py"
    head = ast.get_docstring(tree_of(path)) or ""
    listed = [
        name
        for line in re.findall(r"^- (`.*?):", head, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", line)
    ]
    assert [name for name in listed if not path.with_name(f"{name}.py").exists()] == []


def floors_of_the_node() -> list[list[str]]:
    """The modules on each floor of the node in the architecture page's picture, from the top."""
    page = (rules.SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    _, picture, _ = page.split("The node's machine stands on ")[1].split("```", 2)
    core, service, *floors = picture.strip().splitlines()
    return [core.split()[:1], service.split()[:1], *(floor.split()[1:] for floor in floors)]


def test_the_picture_of_the_node_shows_each_of_its_modules_once() -> None:
    modules = sorted(path.stem for path in (rules.SOURCE / "core" / "node").glob("[!_]*.py"))
    assert sorted(module for floor in floors_of_the_node() for module in floor) == modules


def test_no_module_of_the_node_imports_one_from_a_floor_above_it() -> None:
    package = "lockring.core.node."
    height = {
        package + module: -depth for depth, floor in enumerate(floors_of_the_node()) for module in floor
    }
    upwards = [
        (name, target)
        for name in height
        for target in sorted(GRAPH[name])
        if target in height and height[target] > height[name]
    ]
    assert upwards == []


def test_no_part_holds_the_whole() -> None:
    assert findings(CORE, lambda path: rules.hubs(tree_of(path))) == {}


def test_a_class_of_a_core_holds_no_more_than_a_reader_can() -> None:
    assert findings(CORE, lambda path: rules.too_many_attributes(tree_of(path))) == {}


def test_no_class_of_a_core_inherits_from_another() -> None:
    names = {each.name for path in CORE for each in rules.classes_of(tree_of(path))}
    found = [
        f"{name_of(path)}: {each.name}"
        for path in CORE
        for each in rules.classes_of(tree_of(path))
        if names & {ast.unparse(base).rpartition(".")[2] for base in each.bases}
    ]
    assert found == []


def test_the_drivers_of_the_clients_are_composed_and_inherit_from_no_part() -> None:
    drivers = ["lockring.client.blocking.driver", "lockring.client.aio.threaded_driver"]
    reached: list[str] = []
    while drivers:
        name = drivers.pop()
        reached.append(name)
        near = ("lockring.client.blocking.", "lockring.client.aio.")
        drivers += [target for target in GRAPH[name] if target.startswith(near) and target not in reached]
    classes = [
        each for path in MODULES if dotted(path) in reached for each in rules.classes_of(tree_of(path))
    ]
    names = {each.name for each in classes}
    assert {"BlockingDriver", "Section", "AsyncDriver", "ThreadedDriver"} <= names
    assert [each.name for each in classes if names & {ast.unparse(base) for base in each.bases}] == []
