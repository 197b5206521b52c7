"""The blocking face of the client is what `make sync` makes of the asyncio face."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.house.rules import ROOT


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("client_sync", ROOT / "client_sync" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_blocking_face_is_what_make_sync_would_write(generator: ModuleType, tmp_path: Path) -> None:
    generator.generate(tmp_path)
    stale = [
        name
        for name in generator.MODULES
        if (tmp_path / f"{name}.py").read_text() != (generator.TARGET / f"{name}.py").read_text()
    ]
    assert stale == [], "run `make sync`"


def test_a_rule_that_matches_nothing_is_an_error(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "PROSE", (*generator.PROSE, ("words that no docstring has", "")))
    with pytest.raises(SystemExit, match="rules that match nothing"):
        generator.generate(tmp_path)


def test_code_and_prose_have_rules_of_their_own(generator: ModuleType) -> None:
    source = 'async def f() -> None:\n    """Wait `async with` care."""\n    await g("async with")  # async with g\n'
    assert generator.converted(source, generator.Rules()) == (
        'def f() -> None:\n    """Wait `with` care."""\n    g("async with")  # with g\n'
    )


@pytest.mark.parametrize("name", ["_support", "loss_notices", "change_calls"])
def test_modules_that_exist_twice_have_the_same_names(generator: ModuleType, name: str) -> None:
    def names(folder: Path) -> set[str]:
        module = f"lockring.client.{folder.name}.{name}"
        imported = importlib.import_module(module)
        return {
            each
            for each, value in vars(imported).items()
            if not each.startswith("_") and getattr(value, "__module__", None) == module
        }

    assert names(generator.SOURCE) == names(generator.TARGET)
