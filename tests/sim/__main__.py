"""`python -m tests.sim --seeds 0..1000`, `--seed 7`, `--mutants`: run the simulation from a shell."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.sim.drills import DRILLS
from tests.sim.mutants import MUTANTS, SHIELDED, applied
from tests.sim.run import run_seed
from tests.sim.world import Violation


def find_mutant(name: str, first: int, seconds: float) -> bool:
    """Run the drill made for a rule, or else seeds, without that rule until there is a violation; say after how many."""
    started, seed = time.perf_counter(), first
    wipe = True if name == "wipe_no_wait" else None
    with applied(name):
        if name in DRILLS:
            try:
                DRILLS[name]()
            except Violation as error:
                print(f"{name:22} found by its drill: {str(error)[:150]}", flush=True)
                return True
        while time.perf_counter() - started < seconds:
            result = run_seed(seed, wipe=wipe)
            seed += 1
            if result.what == "CRASH":
                print(f"{name:22} CRASH in seed {result.seed}: {result.violation}", flush=True)
                return False
            if result.violation:
                text = result.violation.splitlines()[-1] if result.what == "INVARIANT" else result.violation
                took = time.perf_counter() - started
                print(
                    f"{name:22} found by seed {result.seed} ({seed - first} seeds, {took:.0f} s): {text[:150]}",
                    flush=True,
                )
                return True
    shield = SHIELDED.get(name)
    print(f"{name:22} NOT FOUND in {seed - first} seeds" + (f" ({shield})" if shield else ""), flush=True)
    return shield is not None


def main() -> int:
    """Run what the arguments say; 1 if there was a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", default="", help="how many, or FIRST..LAST")
    parser.add_argument("--seed", type=int, help="replay one and print its story")
    parser.add_argument("--quiet", action="store_true", help="with --seed: only the end of the story")
    parser.add_argument("--only", default=None, help="with --seed: numbers of the faults to keep")
    parser.add_argument("--wipe", action="store_true", help="lose the store in every seed")
    parser.add_argument("--stop", type=int, default=0, help="stop after so many violations")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument(
        "--mutants", action="store_true", help="switch every rule off in turn until a seed notices"
    )
    parser.add_argument("--mutant", default="", help="switch one rule off: " + ", ".join(MUTANTS))
    parser.add_argument("--each", type=float, default=60, help="seconds per mutant")
    arguments = parser.parse_args()
    if arguments.mutants or (arguments.mutant and arguments.seed is None):
        names = list(MUTANTS) if arguments.mutants else arguments.mutant.split(",")
        found = [find_mutant(name, 0, arguments.each) for name in names]
        print(f"{sum(found)} of {len(found)} found")
        return 0 if all(found) else 1
    wipe = True if arguments.wipe else None
    if arguments.seed is not None:
        only = None
        if arguments.only is not None:
            only = frozenset(int(each) for each in arguments.only.split(",") if each)
        show = None if arguments.quiet else print
        if arguments.mutant == "wipe_no_wait":
            wipe = True
        with applied(arguments.mutant):
            result = run_seed(arguments.seed, story=True, show=show, only=only, wipe=wipe)
        print(dict(sorted(result.stats.items())))
        print(
            "digest", result.digest()[:16], "simulated", result.simulated_ns / 1e9, "s, turns", result.turns
        )
        print("VIOLATION " + result.violation if result.violation else "no violation")
        return 1 if result.violation else 0
    first, _, last = arguments.seeds.rpartition("..")
    begin, end = (int(first), int(last)) if first else (0, int(last or 100) - 1)
    stats: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    started, seeds, simulated, turns = time.perf_counter(), 0, 0, 0
    for seed in range(begin, end + 1):
        result = run_seed(seed, wipe=wipe)
        seeds += 1
        simulated += result.simulated_ns
        turns += result.turns
        for name, count in result.stats.items():
            stats[name] = max(stats[name], count) if name.endswith("_max") else stats[name] + count
        if result.violation:
            kinds[result.what] += 1
            print(f"seed {seed}: {result.violation}", flush=True)
            if arguments.stop and kinds.total() >= arguments.stop:
                break
        if time.perf_counter() - started > arguments.seconds:
            break
    took = time.perf_counter() - started
    print(", ".join(f"{name} {count}" for name, count in sorted(stats.items())))
    print(
        f"{seeds} seeds in {took:.1f} s ({seeds / took:.1f}/s), {simulated / 1e9:.0f} s simulated "
        f"({1000 * took / (simulated / 1e9):.1f} ms per second), {turns} turns, violations {dict(kinds) or 'none'}"
    )
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
