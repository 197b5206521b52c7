"""Where stories are kept, and what a file says."""

from __future__ import annotations

import inspect
from pathlib import Path

from tests.sim.stories.tales import TALES


def path_of(name: str) -> Path:
    """The file of a story."""
    return Path(__file__).parent / f"{name}.txt"


def told(name: str) -> str:
    """The whole text of a story, played now."""
    tell = TALES[name]
    title = name.replace("_", " ")
    return f"{title}\n{'=' * len(title)}\n{inspect.getdoc(tell)}\n{tell()}"
