"""Each event that a server logs has a name, and `docs/logs.md` has all of them, with their fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.house.reading import tree_of
from tests.unit.house.rules import ROOT

SOURCES = ROOT / "src" / "lockring"
PAGE = ROOT / "docs" / "logs.md"
GRAVE = ("info", "warning", "error", "critical", "exception")
BY_LOOKUP = {"store-failed", "store-works-again", "leads-no-more", "stands-by"}
"""Names that stand in the code apart from the call."""


def sources() -> list[Path]:
    return sorted(path for path in SOURCES.rglob("*.py") if "_pb2" not in path.name)


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (each for each in ast.walk(tree_of(path)) if isinstance(each, ast.Call))


def events_in_the_code() -> dict[str, set[str]]:
    """Return the names of all events, each with the names of its fields."""
    found: dict[str, set[str]] = {name: set() for name in BY_LOOKUP}
    for path in sources():
        for call in calls(path):
            name = ast.unparse(call.func).rpartition(".")[2]
            first = call.args[0] if call.args else None
            if name in ("event", "note", "warn", "Note") and isinstance(first, ast.Constant):
                fields = {each.arg for each in call.keywords if each.arg} if name == "event" else set()
                if isinstance(first.value, str) and re.fullmatch("[a-z]+(-[a-z]+)*", first.value):
                    found.setdefault(first.value, set()).update(fields)
    return found


def events_of_the_page() -> dict[str, set[str]]:
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| ([^|]*)\|$", PAGE.read_text().split("## Events")[1], re.M)
    return {
        name: set(re.findall(r"`(\w+)`", fields))
        for names, fields in rows
        for name in re.findall(r"`([^`]+)`", names)
    }


def test_the_page_has_every_event_and_no_other() -> None:
    assert set(events_of_the_page()) == set(events_in_the_code())


def test_the_page_has_the_fields_of_every_event() -> None:
    page = events_of_the_page()
    missing = {
        name: fields - page[name] for name, fields in events_in_the_code().items() if fields - page[name]
    }
    # Those of notes come with all of them.
    assert missing == {}


@pytest.mark.parametrize("package", ["server", "net", "security", "store", "grpc_api"])
def test_each_line_that_a_server_logs_names_its_event(package: str) -> None:
    nameless = [
        f"{path.name}:{call.lineno}"
        for path in sorted((SOURCES / package).rglob("*.py"))
        for call in calls(path)
        if isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func.value) in ("log", "self._log")
        and call.func.attr in (*GRAVE, "log")
        and not any(keyword.arg == "extra" for keyword in call.keywords)
    ]
    assert nameless == []
