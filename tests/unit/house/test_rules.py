"""Each rule of the house finds a module that breaks it: a check that cannot fail proves nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.unit.house import rules


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ("core", "from lockring.net.frames import encode"),
        ("core", "import lockring.clock"),
        ("core", "def f():\n    from lockring import client"),
        ("ring", "from lockring.core.node.core import NodeCore"),
        ("ring", "from lockring import Client"),
        ("net", "from lockring.server.node import main"),
        ("net", "from lockring.store.memory import MemoryStore"),
        ("client", "from lockring.server import node"),
        ("grpc_api", "from lockring.server.node import NodeServer"),
        ("client", "from lockring.grpc_api.server import GrpcServer"),
        ("server", "from lockring import Client"),
        ("errors", "from lockring.names import SLOTS"),
        ("store", "if True:\n    import lockring.cli"),
        ("journal", "from lockring.server.node import NodeServer"),
        ("journal", "from lockring.net.frames import encode"),
        ("apps", "from lockring.client.blocking.driver import BlockingDriver"),
        ("apps", "from lockring.cli import output"),
        ("server", "from lockring.apps.cleaner import worker"),
    ],
)
def test_an_import_against_the_direction_is_found(part: str, code: str) -> None:
    assert len(rules.wrong_way_imports(part, ast.parse(code))) == 1


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (
            "core",
            "from lockring.core.effects import Send\nfrom lockring.cluster_state import Copy\nimport heapq",
        ),
        ("ring", "from lockring import errors, names"),
        ("cli", "import lockring\nfrom lockring.client.blocking.client import Client"),
    ],
)
def test_an_import_in_the_direction_is_fine(part: str, code: str) -> None:
    assert rules.wrong_way_imports(part, ast.parse(code)) == []


def test_imports_are_allowed_in_one_direction_only() -> None:
    """The table itself goes one way."""
    for part, others in rules.MAY_IMPORT.items():
        for other in others:
            assert part not in rules.MAY_IMPORT[other], f"{part} and {other} know each other"


@pytest.mark.parametrize(
    "module",
    "asyncio time random secrets socket os logging threading subprocess uvloop selectors datetime uuid "
    "contextvars ssl sys signal tempfile pathlib concurrent.futures sqlite3".split(),
)
@pytest.mark.parametrize("form", ["import {}", "from {} import x", "def f():\n    import {} as y"])
def test_a_core_that_reaches_for_the_world_is_found(module: str, form: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(form.format(module))
    assert len(rules.impurities(ast.parse(planted.read_text()))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "x = hash('a')",
        "open('file')",
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "z = [x for x in frozenset(y)]",
    ],
)
def test_a_core_that_depends_on_the_process_is_found(code: str) -> None:
    assert len(rules.impurities(ast.parse(code))) == 1


def test_a_value_may_have_a_hash_of_its_own() -> None:
    assert rules.impurities(ast.parse("class C:\n    def __hash__(self): return hash(self.x)")) == []


def test_a_core_may_look_a_set_up_and_sort_it() -> None:
    assert rules.impurities(ast.parse("x = {1, 2}\n1 in x\nfor y in sorted(x): pass")) == []


@pytest.mark.parametrize(
    "code",
    [
        "def acquire(): pass",
        "async def acquire(): pass",
        "class Lock: pass",
        'class Lock:\n    """A lock."""\n    def acquire(self): pass',
    ],
)
def test_a_public_name_without_a_docstring_is_found(code: str) -> None:
    assert len(rules.undocumented(ast.parse(f'"""A module."""\n{code}'))) == 1


def test_a_module_without_a_docstring_is_found() -> None:
    assert rules.undocumented(ast.parse("x = 1")) == ["line 1: the module has no docstring"]


def test_private_and_overriding_names_may_go_without_a_docstring() -> None:
    code = '"""A module."""\ndef _f(): pass\nclass _C:\n    def f(self): pass\n'
    code += (
        'class D:\n    """D."""\n    def __enter__(self): pass\n    @typing.override\n    def f(self): pass'
    )
    assert rules.undocumented(ast.parse(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "def f(ttl: int): ...",
        "def f(self, *, lease_max: int | None = None): ...",
        "class C:\n    deadline: float = 0.0",
        "self.wait: int = 3",
    ],
)
def test_a_time_without_a_unit_is_found(code: str) -> None:
    assert len(rules.without_unit(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "def f(ttl_ms: int, deadline_ns: int | None, lease_s_max: float): ...",
        "def f(waiters: int, page: int, leases: dict[str, int], lease: Lease): ...",
        "deadlines: list[int] = []",
    ],
)
def test_times_with_a_unit_and_other_numbers_are_fine(code: str) -> None:
    assert rules.without_unit(ast.parse(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "def grant(self, *, generation: int) -> None: ...",
        "def drain(self, node: str | None) -> None: ...",
        "def slot_of(name: str) -> int: ...",
        "class Copy:\n    since_version: int = 0",
        "self.first_request: int = 0",
        "positions: list[tuple[int, int, int, int]] = []",
    ],
)
def test_a_number_or_a_name_of_the_protocol_without_its_type_is_found(code: str) -> None:
    assert len(rules.plain_ids(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "def grant(self, *, generation: Generation, version: Version | None) -> None: ...",
        "def drop_session(self, session: Session) -> int: ...",
        "def f(slots: int, name: str, counts: tuple[int, int]) -> None: ...",
    ],
)
def test_typed_numbers_and_counts_are_fine(code: str) -> None:
    assert rules.plain_ids(ast.parse(code)) == []


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME:", "issue " + "#3", "see /work" + "/main"])
def test_a_note_to_oneself_is_found(word: str) -> None:
    assert len(rules.banned_words(f"fine\n# {word} later\n")) == 1


def test_a_part_is_found_from_a_path() -> None:
    assert rules.part_of(rules.SOURCE / "core" / "node.py") == "core"
    assert rules.part_of(rules.SOURCE / "errors.py") == "errors"
    assert rules.part_of(rules.SOURCE / "__init__.py") == ""


def test_a_class_that_is_called_like_a_verb_is_found_unless_it_is_an_error() -> None:
    code = "class Watching: ...\nclass Parked: ...\nclass NodeLeaving(LockringError): ...\nclass Ring: ...\nclass HashRing: ..."
    assert rules.named_by_participles(ast.parse(code)) == [
        "line 1: Watching",
        "line 2: Parked",
        "line 4: Ring",
    ]


def test_a_call_with_too_many_positional_arguments_is_found() -> None:
    code = (
        "f(1, 2, 3, 4, 5)\nself.g(1, 2, 3, 4, 5, 6)\nf(1, 2, 3, 4, 5, last=6)\nf(g(1, 2, 3, *rest, 5, 6), 2)"
    )
    assert rules.long_calls(ast.parse(code)) == [(2, "self.g"), (4, "g")]
