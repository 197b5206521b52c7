"""The protocol is what its stories say."""

from __future__ import annotations

import pytest

from tests.sim.stories.files import path_of, told
from tests.sim.stories.tales import TALES


@pytest.mark.parametrize("name", TALES)
def test_a_story_is_as_it_was_written_down(name: str) -> None:
    written = path_of(name).read_text(encoding="utf-8")
    assert told(name) == written, "if this is meant: python -m tests.sim.stories, and review the difference"


def test_every_file_is_a_story() -> None:
    found = {path.stem for path in path_of("x").parent.glob("*.txt")}
    assert found == set(TALES)
