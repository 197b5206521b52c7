"""The lines of `lockring status` that need no cluster."""

from __future__ import annotations

import pytest

from lockring.cli.status import builds_line


@pytest.mark.parametrize(
    ("builds", "line"),
    [
        (["compiled", "compiled"], "lockring runs compiled on 2 nodes"),
        (["interpreted", "compiled"], "lockring runs compiled on 1 node, interpreted on 1 node"),
        (["compiled", None], "lockring runs compiled on 1 node"),  # no answer, or an older version
        ([None], ""),
    ],
)
def test_the_nodes_of_each_build_are_counted(builds: list[str | None], line: str) -> None:
    assert builds_line(builds) == line
