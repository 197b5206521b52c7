"""Modules that the client uses where the program uses them, and does not load by itself."""

from __future__ import annotations

import sys
from typing import Any


def loaded(name: str) -> Any:
    """Return a module that the program has imported, None before its import has ended, in whichever thread it began.

    It never waits: the other thread may wait for the client.
    """
    module = sys.modules.get(name)
    # The mark by which the interpreter itself waits for imports of other threads. A module without one was put there
    # by the program.
    if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None
    return module
