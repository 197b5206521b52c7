"""The line of `lockring ls` on the locks that it leaves out."""

from __future__ import annotations

import shlex

import pytest

from lockring import LockPage
from lockring.cli.ls import _rest_of


@pytest.mark.parametrize("name", ["jobs/1", "n" * 1_000, "it's; rm x", "$(id)"])
def test_the_name_behind_which_the_next_page_begins_is_one_whole_word_of_a_shell(name: str) -> None:
    line = _rest_of(LockPage([], matched=None, after=name, unserved_slots=0))
    assert shlex.split(line.partition("the next ones: ")[2]) == ["--after", name]
