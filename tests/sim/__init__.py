"""The simulation: the real core classes on a simulated network and simulated clocks, from one integer seed.

The cores are loaded a second time, with few slots instead of 4096, which makes a seed about thirty times
faster and changes no rule: nothing in the cores depends on how many slots there are. Everything below
`tests.sim` is bound to that second copy; the rest of the test run keeps the first one. `LOCKRING_SIM_SLOTS`
chooses another number of slots (4096 is the real thing); `many.slots_of_seed` says which number a seed has.

So: modules here import from `lockring` as usual, tests import from `tests.sim` only.
"""

from __future__ import annotations

import importlib
import os
import sys
import types

import lockring
from tests import builds

SLOTS_VARIABLE = "LOCKRING_SIM_SLOTS"
SLOTS_SIMULATED = int(os.environ.get(SLOTS_VARIABLE, "8"))

_MODULES = (
    *(f"framework.{name}" for name in ("world", "network", "store", "shells", "disk", "journal_shell")),
    *(f"framework.{name}" for name in ("node_shell", "operator")),
    *(
        f"framework.{name}"
        for name in ("coordinator_shell", "watches", "states", "checkers", "movement", "workload", "groups")
    ),
    *(f"seeds.{name}" for name in ("faults", "plan", "alone", "run", "model_schedule", "many")),
    "scenarios.scenario",
    "rules",
    "rules.missing",
    "stories.transcript",
)


def _load_with_few_slots() -> None:
    builds.refuse_if_compiled("the simulation loads the cores a second time, with other constants")
    mine = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "lockring"}
    for name in mine:
        del sys.modules[name]
    try:
        # A bare package: the real one's `__init__` would import the rest before the number of slots is changed.
        bare = types.ModuleType("lockring")
        bare.__path__ = list(lockring.__path__)
        sys.modules["lockring"] = bare
        slots = importlib.import_module("lockring.slots")
        slots.SLOTS = SLOTS_SIMULATED  # type: ignore[attr-defined]
        # Logs are short here: they are compacted all the same, in several steps.
        importlib.import_module("lockring.journal.growth").REWRITE_BYTES_MIN = 16 * 1024  # type: ignore[attr-defined]
        importlib.import_module("lockring.core.node.journal").REWRITE_COST_MAX = 4  # type: ignore[attr-defined]
        # So are queues between nodes, and snapshots have parts.
        importlib.import_module("lockring.core.node.leases")._SENT_KEPT_MAX = 16  # type: ignore[attr-defined]
        importlib.import_module("lockring.core.node.peer_link").LINK_COST_MAX = 3  # type: ignore[attr-defined]
        importlib.import_module("lockring.core.node.reign").SNAPSHOT_PART_HOLDERS = 1  # type: ignore[attr-defined]
        for name in _MODULES:
            importlib.import_module(f"{__name__}.{name}")
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] == "lockring"]:
            del sys.modules[name]
        sys.modules.update(mine)


if __name__ == "tests.sim":  # pytest also runs this file under another name, from which nothing is imported
    _load_with_few_slots()
