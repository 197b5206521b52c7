"""`python -m tests.sim --seeds 0..1000`, `--seed 7`, `--mutants`: run the simulation from a shell."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import as_completed
from functools import partial

from tests.sim import SLOTS_SIMULATED, SLOTS_VARIABLE
from tests.sim.rules import MUTANTS, applied
from tests.sim.rules.missing import find_mutant
from tests.sim.seeds.many import kind_of_seed, pool_of, run_many, slots_of_seed
from tests.sim.seeds.run import run_seed


def _count(text: str) -> int:
    """A number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)


def _range(text: str) -> tuple[int, int]:
    """The first and the last seed."""
    first, dots, last = text.partition("..")
    begin, end = (_count(first), _count(last)) if dots else (0, _count(first) - 1)
    if end < begin:
        raise argparse.ArgumentTypeError(f"there are no seeds in {text!r}")
    return begin, end


def parse() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=_range, default=(0, 99), help="how many, or FIRST..LAST")
    parser.add_argument("--seed", type=_count, help="replay one and print its story")
    parser.add_argument("--quiet", action="store_true", help="with --seed: only the end of the story")
    parser.add_argument("--only", default=None, help="with --seed: numbers of the faults to keep")
    parser.add_argument("--wipe", action="store_true", help="lose the store in every seed")
    parser.add_argument("--stop", type=int, default=0, help="stop after so many violations")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--jobs", type=int, default=None, help="processes; by default one a core")
    parser.add_argument(
        "--mutants", action="store_true", help="switch every rule off in turn until a checker notices"
    )
    parser.add_argument("--mutant", default="", help="switch one rule off: " + ", ".join(MUTANTS))
    parser.add_argument("--each", type=float, default=60, help="seconds per mutant")
    parser.add_argument("--no-drills", action="store_true", help="find mutants by seeds alone")
    parser.add_argument("--like-model", action="store_true", help="draw every schedule as the model does")
    return parser.parse_args()


def replay(arguments: argparse.Namespace) -> int:
    """Run one seed and tell its story; 1 if there was a violation."""
    slots = slots_of_seed(arguments.seed)
    if slots != SLOTS_SIMULATED:
        os.environ[SLOTS_VARIABLE] = str(slots)
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    only = None
    if arguments.only is not None:
        only = frozenset(int(each) for each in arguments.only.split(",") if each)
    wipe = True if arguments.wipe or arguments.mutant == "wipe_no_wait" else None
    show = None if arguments.quiet else print
    kind = kind_of_seed(arguments.seed, like_model=arguments.like_model)
    with applied(arguments.mutant):
        result = run_seed(arguments.seed, story=True, show=show, only=only, wipe=wipe, kind=kind)
    print(dict(sorted(result.stats.items())))
    print(f"digest {result.digest()[:16]}, {result.simulated_ns / 1e9} s simulated, {result.turns} turns")
    print("VIOLATION " + result.violation if result.violation else "no violation")
    return 1 if result.violation else 0


def run_all(arguments: argparse.Namespace) -> int:
    """Run many seeds and sum up; 1 if there was a violation."""
    begin, end = arguments.seeds
    stats: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    started, seeds, simulated, turns = time.perf_counter(), 0, 0, 0
    told_at = started
    wipe = True if arguments.wipe else None
    for result in run_many(
        range(begin, end + 1), jobs=arguments.jobs, wipe=wipe, like_model=arguments.like_model
    ):
        seeds += 1
        simulated += result.simulated_ns
        turns += result.turns
        for name, count in result.stats.items():
            stats[name] = max(stats[name], count) if name.endswith("_max") else stats[name] + count
        if result.violation:
            kinds[result.what] += 1
            print(f"seed {result.seed}: {result.violation}", flush=True)
            if arguments.stop and kinds.total() >= arguments.stop:
                break
        now = time.perf_counter()
        if now - told_at > 60:
            told_at = now
            print(f"… {seeds} seeds, {kinds.total()} violations, {now - started:.0f} s", flush=True)
        if now - started > arguments.seconds:
            break
    took = time.perf_counter() - started
    print(", ".join(f"{name} {count}" for name, count in sorted(stats.items())))
    print(
        f"{seeds} seeds in {took:.1f} s ({seeds / took:.1f}/s), {simulated / 1e9:.0f} s simulated "
        f"({1000 * took / (simulated / 1e9):.1f} ms per second), {turns} turns, violations {dict(kinds) or 'none'}"
    )
    return 1 if kinds else 0


def find_all(arguments: argparse.Namespace) -> int:
    """Switch rules off, one at a time; 1 if one is not missed."""
    names = arguments.mutant.split(",") if arguments.mutant else list(MUTANTS)
    find = partial(
        find_mutant,
        seconds=arguments.each,
        drills=not (arguments.no_drills or arguments.like_model),
        like_model=arguments.like_model,
    )
    found = 0
    with pool_of(SLOTS_SIMULATED, arguments.jobs) as pool:
        for future in as_completed([pool.submit(find, name) for name in names]):
            was_found, text = future.result()
            found += was_found
            print(text, flush=True)
    print(f"{found} of {len(names)} found")
    return 0 if found == len(names) else 1


def main() -> int:
    """Run what the arguments say."""
    arguments = parse()
    if arguments.seed is not None:
        return replay(arguments)
    if arguments.mutants or arguments.mutant:
        return find_all(arguments)
    return run_all(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
