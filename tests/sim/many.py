"""Many seeds at once: on every core, in the number of slots that each seed draws.

The number of slots is fixed when the cores are loaded (see the package), so that seeds of different numbers run in
different processes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice

from tests.sim import SLOTS_VARIABLE
from tests.sim.mutants import applied
from tests.sim.run import Result, run_seed

CHUNK = 10


def slots_of_seed(seed: int) -> int:
    """How many slots the cluster of a seed has: usually 8, sometimes fewer than nodes, sometimes many."""
    return {3: 2, 7: 24}.get(seed % 10, 8)


def run_many(
    seeds: Iterable[int], *, jobs: int | None = None, wipe: bool | None = None, mutant: str = ""
) -> Iterator[Result]:
    """Run seeds and give their results as they come: in the order of the seeds of each number of slots.

    Args:
        seeds: which.
        jobs: how many processes; by default one a core.
        wipe: whether to lose the store, in every seed or in none; None leaves it to the seed.
        mutant: a rule to switch off, "" for none.
    """
    by_slots: dict[int, list[int]] = {}
    for seed in seeds:
        by_slots.setdefault(slots_of_seed(seed), []).append(seed)
    for slots, some in by_slots.items():
        chunks = iter([some[at : at + CHUNK] for at in range(0, len(some), CHUNK)])
        with _pool(slots, jobs) as pool:
            # Not all at once: whoever stops early would wait for what is submitted.
            under_way: list[Future[list[Result]]] = []
            try:
                while True:
                    room = 2 * (jobs or os.cpu_count() or 1) - len(under_way)
                    under_way += [pool.submit(_run, chunk, wipe, mutant) for chunk in islice(chunks, room)]
                    if not under_way:
                        break
                    yield from under_way.pop(0).result()
            finally:
                for future in under_way:
                    future.cancel()


def _pool(slots: int, jobs: int | None) -> ProcessPoolExecutor:
    os.environ[SLOTS_VARIABLE] = str(slots)  # for the processes that the pool starts
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _run(seeds: list[int], wipe: bool | None, mutant: str) -> list[Result]:
    with applied(mutant):
        return [run_seed(seed, wipe=wipe) for seed in seeds]
