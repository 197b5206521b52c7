"""Schedules as the executable model of the protocol draws them, for the real cores: `--like-model`.

The model counts in ticks, here of 4 ms: backup lease, coordinator lease and TTL are 100 : 500 : 250 ticks (in half of
the schedules others), where the defaults are 2 s, 30 s and 10 s. So everything is short beside the coordinator lease,
and what takes a rare coincidence with the defaults happens often. Faults, their rates and lengths, the sizes of
cluster and workload are the model's. What it has and a real cluster has not is drawn as what comes nearest:

- Its network loses and reorders single messages; here connections break, and what is under way on them is lost.
- Its coordinator swaps copies at random; here nodes drain, and restart with another weight, as often.
- Its passive coordinators usurp the term at random; here a second one takes it over when it (re)starts.
"""

from __future__ import annotations

from lockring.slots import SLOTS
from tests.sim.framework.workload import Habits
from tests.sim.framework.world import MS, World
from tests.sim.seeds.plan import Plan, names_in, timing_of
from tests.sim.seeds.run import Simulation

TICK = 4 * MS

_FAULTS = (
    "node_crash",
    "node_crash",
    "coordinator_crash",
    "cut",
    "cut",
    "cut_one_way",
    "cut_coordinator",
    "cut_store",
    "node_pause",
    "coordinator_pause",
    "client_crash",
    "wall_jump",
    "split",
    "split",
)
_MOVES = ("drain", "reweigh", "drain", "reweigh")


def draw_model_plan(world: World, *, wipe: bool | None = None) -> Plan:
    """Return the plan of this seed, in the model's proportions."""
    rng = world.rng("model")
    backup_lease, ttl = rng.choice(((100, 250), (100, 250), (150, 150), (200, 120)))
    nodes, coordinators, clients = rng.choice((2, 3, 3, 4)), rng.choice((1, 2, 2)), rng.choice((2, 2, 3))
    moves = rng.choice((0, 1, 2, 4))
    kinds = rng.sample(_FAULTS, rng.randint(2, 6))
    kind = rng.random()
    if kind < 0.15:
        kinds, nodes, coordinators = ["split"], rng.choice((2, 3)), 2
    elif kind < 0.25:  # nodes lose the coordinator, one after the other
        kinds, nodes, coordinators = (
            ["cut_coordinator", "cut_coordinator", "node_crash"],
            rng.choice((2, 3)),
            1,
        )
        moves = 4
    elif kind < 0.35:  # news of states travels slowly
        kinds, nodes, coordinators, moves = ["cut_one_way", "node_pause"], rng.choice((2, 2, 3)), 1, 4
    kinds += _MOVES[:moves]
    if wipe:
        kinds = [each for each in kinds if each != "wall_jump"] + ["wipe", "wipe"]
    slots = rng.sample(range(SLOTS), rng.choice((1, 1, 2)))
    habits = Habits(
        names=names_in(slots, rng.choice((1, 1, 2)) * len(slots)),
        ttls_ms=(ttl * TICK // MS,),
        tasks=rng.choice((1, 2)),
        think_max=40 * TICK,
        hold_max=rng.choice((2700, 540, 180)) * TICK,
        try_once=0.0,
        impatient=0.0,
        cancel=0.1,
    )
    return Plan(
        nodes=nodes,
        clients=clients,
        coordinators=coordinators,
        timing=timing_of(500 * TICK, backup_lease * TICK),
        replication="sync",
        habits=habits,
        kinds=kinds,
        gap=rng.choice((60, 200, 600)) * TICK,
        trouble=2800 * TICK,
        late_nodes=0,
        wipe=bool(wipe),
    )


class ModelSimulation(Simulation):
    """A run whose plan and weather are drawn as the model draws them."""

    def __init__(self, seed: int, *, story: bool = False, wipe: bool | None = None) -> None:
        plan = draw_model_plan(World(seed), wipe=wipe)
        super().__init__(seed, story=story, plan=plan)

    def draw_weather(self) -> None:
        """How bad the network and the machines are, in the model's rates."""
        rng = self.world.rng("model weather")
        self.weather.latency = 4 * TICK
        self.weather.slow, self.weather.slow_max = (
            rng.choice((0.0, 0.02, 0.1)),
            rng.choice((60, 300, 1200)) * TICK,
        )
        self.weather.reset = rng.choice((0.0, 0.0005, 0.002, 0.005))
        self.weather.notice_max = self.weather.give_up_max = rng.choice((60, 300, 1200)) * TICK
        self.slowness.pause = rng.choice((0.0, 0.0, 0.002, 0.01))
        self.slowness.pause_max = rng.choice((60, 300, 900)) * TICK
        self.store.slow, self.store.slow_max = rng.choice((0.0, 0.0, 0.3)), 600 * TICK
        if set(self.plan.kinds) <= {"split", *_MOVES}:
            self.weather.reset = self.slowness.pause = 0.0
