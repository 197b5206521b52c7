"""Look for a check that misses a rule that is switched off: the drill made for it, or else seeds."""

from __future__ import annotations

import time

from tests.sim import SLOTS_SIMULATED
from tests.sim.framework.world import Violation
from tests.sim.rules import DRILLS, applied
from tests.sim.seeds.many import kind_of_seed, slots_of_seed
from tests.sim.seeds.run import run_seed


def find_mutant(
    name: str, seconds: float, *, drills: bool = True, like_model: bool = False
) -> tuple[bool, str]:
    """Run the drill made for a rule, or else seeds, without that rule until there is a violation.

    Args:
        name: the mutant.
        seconds: give up after so long.
        drills: whether to try its drill first.
        like_model: draw every schedule as the model does.

    Returns:
        Whether there was one, and a line that says so, with the number of seeds.
    """
    started, seed, seeds = time.perf_counter(), -1, 0
    wipe = True if name == "wipe_no_wait" else None
    with applied(name):
        if drills and name in DRILLS:
            try:
                DRILLS[name]()
            except Violation as error:
                return True, f"{name:22} found by its drill: {str(error)[:150]}"
            except AssertionError as error:
                return False, f"{name:22} its drill does not come to its point: {error}"
        while time.perf_counter() - started < seconds:
            seed += 1
            if slots_of_seed(seed) != SLOTS_SIMULATED:
                continue
            result = run_seed(seed, wipe=wipe, kind=kind_of_seed(seed, like_model=like_model))
            seeds += 1
            if result.what == "CRASH":
                return False, f"{name:22} CRASH in seed {seed}: {result.violation}"
            if result.violation:
                text = result.violation.splitlines()[-1] if result.what == "INVARIANT" else result.violation
                took = time.perf_counter() - started
                return True, f"{name:22} found by seed {seed} ({seeds} seeds, {took:.0f} s): {text[:150]}"
    return False, f"{name:22} NOT FOUND in {seeds} seeds"
