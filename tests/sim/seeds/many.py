"""Many seeds at once, on every core: what each of them is about, and in how many slots.

The number of slots is fixed when the cores are loaded (see the package), so that seeds of different numbers run in
different processes.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice

from tests.sim import SLOTS_VARIABLE
from tests.sim.rules import applied
from tests.sim.seeds.model_schedule import ModelSimulation
from tests.sim.seeds.run import Result, Simulation, run_seed

CHUNK = 10


def slots_of_seed(seed: int) -> int:
    """How many slots the cluster of a seed has: usually few, sometimes fewer than nodes, sometimes more."""
    return {3: 2, 5: 8, 7: 24, 9: 8}.get(seed % 10, 4)


def kind_of_seed(seed: int, *, like_model: bool = False) -> Callable[..., Simulation]:
    """The simulation that a seed runs: one in twenty, or all with `like_model`, draws its schedule as the model
    does."""
    return ModelSimulation if like_model or seed % 20 == 5 else Simulation


def run_many(
    seeds: Iterable[int],
    *,
    jobs: int | None = None,
    wipe: bool | None = None,
    mutant: str = "",
    like_model: bool = False,
) -> Iterator[Result]:
    """Run seeds and give their results as they come: in the order of the seeds of each number of slots.

    Args:
        seeds: which.
        jobs: how many processes; by default one a core.
        wipe: whether to lose the store, in every seed or in none; None leaves it to the seed.
        mutant: a rule to switch off, "" for none.
        like_model: draw every schedule as the model does.
    """
    by_slots: dict[int, list[int]] = {}
    for seed in seeds:
        by_slots.setdefault(slots_of_seed(seed), []).append(seed)
    for slots, some in by_slots.items():
        chunks = iter([some[at : at + CHUNK] for at in range(0, len(some), CHUNK)])
        with pool_of(slots, jobs) as pool:
            # Not all at once: a caller that stops early would wait for all submitted runs.
            under_way: list[Future[list[Result]]] = []
            try:
                while True:
                    room = 2 * (jobs or os.cpu_count() or 1) - len(under_way)
                    under_way += [
                        pool.submit(_run, chunk, wipe, mutant, like_model) for chunk in islice(chunks, room)
                    ]
                    if not under_way:
                        break
                    yield from under_way.pop(0).result()
            finally:
                for future in under_way:
                    future.cancel()


@contextmanager
def pool_of(slots: int, jobs: int | None) -> Iterator[ProcessPoolExecutor]:
    """Processes, by default one a core, in which clusters have so many slots."""
    before = os.environ.get(SLOTS_VARIABLE)
    os.environ[SLOTS_VARIABLE] = str(slots)  # for the processes that the pool starts
    try:
        with ProcessPoolExecutor(
            jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
        ) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ[SLOTS_VARIABLE]
        else:
            os.environ[SLOTS_VARIABLE] = before


def _end_with_parent() -> None:
    """Leave no process behind, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run(seeds: list[int], wipe: bool | None, mutant: str, like_model: bool) -> list[Result]:
    with applied(mutant):
        return [run_seed(seed, wipe=wipe, kind=kind_of_seed(seed, like_model=like_model)) for seed in seeds]
