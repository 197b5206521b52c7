"""The rules of the house hold for every module there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.house import rules
from tests.unit.house.reading import MODULES, findings, name_of, text_of, tree_of

LINES_MAX = 600

BENCH = sorted((rules.ROOT / "bench").rglob("*.py"))
PURE = [path for path in MODULES if rules.is_pure(path)]


def test_imports_point_one_way() -> None:
    parts = {rules.part_of(path) for path in MODULES}
    assert parts <= rules.MAY_IMPORT.keys(), "a new part: say in rules.py what it may import"
    assert findings(MODULES, lambda path: rules.wrong_way_imports(rules.part_of(path), tree_of(path))) == {}


def test_cores_touch_nothing_outside() -> None:
    assert findings(PURE, lambda path: rules.impurities(tree_of(path))) == {}


def test_times_in_cores_carry_their_unit() -> None:
    assert findings(PURE, lambda path: rules.without_unit(tree_of(path))) == {}


def test_numbers_and_names_of_the_protocol_have_types_of_their_own() -> None:
    typed = [path for path in MODULES if rules.part_of(path) in rules.TYPED]
    assert findings(typed, lambda path: rules.plain_ids(tree_of(path))) == {}


def test_public_names_are_documented() -> None:
    assert findings([*MODULES, *BENCH], lambda path: rules.undocumented(tree_of(path))) == {}


def test_modules_stay_short() -> None:
    lengths = {name_of(path): len(text_of(path).splitlines()) for path in [*MODULES, *BENCH]}
    long = {name: lines for name, lines in lengths.items() if lines > LINES_MAX}
    assert long == {}, "cut them where the meaning changes"


PUBLIC_TWINS = {"Client", "Grant", "Grants", "Group", "Lock", "Membership", "RWLock"}
"""Classes of the public interface that the blocking and the asyncio client have both, by the same name."""
FACE_TWINS = {"ChangeCalls", "LossNotices", "WatchUpdates", "Wakeup"}
"""Classes below it that the generated code of the two clients finds under one name."""
TWINS = PUBLIC_TWINS | FACE_TWINS


def test_a_class_name_means_one_thing() -> None:
    found: dict[str, list[str]] = {}
    for path in MODULES:
        for each in rules.classes_of(tree_of(path)):
            found.setdefault(each.name, []).append(name_of(path))
    assert {name: places for name, places in found.items() if len(places) > 1 and name not in TWINS} == {}


def test_twins_are_those_of_the_two_clients_alone() -> None:
    places = {
        (each.name, name_of(path))
        for path in MODULES
        for each in rules.classes_of(tree_of(path))
        if each.name in TWINS
    }
    assert {Path(path).parent.as_posix() for _, path in places} == {"client/aio", "client/blocking"}
    assert len(places) == 2 * len(TWINS)


def test_no_call_passes_more_by_position_than_a_reader_can_count() -> None:
    def long_calls(path: Path) -> list[str]:
        return [
            f"line {line}: {function}"
            for line, function in rules.long_calls(tree_of(path))
            if (name_of(path), function) not in rules.LONG_CALLS
        ]

    assert findings([*MODULES, *BENCH], long_calls) == {}, "pass them by keyword"


@pytest.mark.parametrize(("module", "function"), rules.LONG_CALLS)
def test_an_exception_for_a_long_call_is_needed_once(module: str, function: str) -> None:
    calls = [called for _, called in rules.long_calls(tree_of(rules.SOURCE / module))]
    assert calls.count(function) == 1, "take it off the list if it is not needed; make the call in one place"


def test_no_class_is_named_by_a_participle() -> None:
    assert findings(MODULES, lambda path: rules.named_by_participles(tree_of(path))) == {}


def test_sources_hold_no_notes_to_oneself() -> None:
    places = [
        path
        for folder in ("src", "tests", "bench", "docs", "proto", "examples/node")
        for path in sorted((rules.ROOT / folder).rglob("*"))
    ]
    texts = [
        path
        for path in places
        if path.suffix in {".py", ".md", ".toml", ".txt", ".proto", ".js"}
        and "node_modules" not in path.parts
    ]
    texts += [*sorted(rules.ROOT.glob("*.md")), rules.ROOT / "Makefile", rules.ROOT / "pyproject.toml"]
    found = {
        path.relative_to(rules.ROOT).as_posix(): words
        for path in texts
        if (words := rules.banned_words(path.read_text(encoding="utf-8")))
    }
    assert found == {}
