"""One run: its cast, its phases, and what must hold at the end of each."""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from lockring.core.client.link_checks import CHECK_NS
from lockring.core.client.links import DOUBT_NS
from lockring.core.timing import up
from lockring.slots import SLOTS, slot_of
from tests.sim.framework.checkers import Checkers
from tests.sim.framework.coordinator_shell import CoordinatorShell
from tests.sim.framework.movement import Movement
from tests.sim.framework.network import Network, Weather
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.operator import Consent, Operator
from tests.sim.framework.store import SimStore
from tests.sim.framework.watches import holders_of, waiters_of
from tests.sim.framework.workload import ClientShell
from tests.sim.framework.world import MS, Process, S, Slowness, Violation, World
from tests.sim.seeds.alone import one_fault
from tests.sim.seeds.faults import Fault, Injector, draw_faults
from tests.sim.seeds.plan import Plan, draw_plan


class Simulation:
    """A cluster, its clients and its troubles.

    Attributes:
        world: time, statistics, story.
        plan: what the seed drew.
        slots: the slots that the workload uses.
    """

    def __init__(
        self, seed: int, *, story: bool = False, plan: Plan | None = None, wipe: bool | None = None
    ) -> None:
        self.world = world = World(seed, story=story)
        self.plan = plan if plan is not None else draw_plan(world, wipe=wipe)
        self.weather = Weather()
        self.slowness = Slowness()
        self.network = Network(world, self.weather)
        self.store = SimStore(world)
        self.store.is_shared = self.plan.standbys
        self.store.timeout = min(2 * S, self.plan.timing.coordinator_lease_ns // 2)
        self.nodes: list[NodeShell] = []
        self.clients: list[ClientShell] = []
        self.coordinators: list[CoordinatorShell] = []
        self.slots = sorted({slot_of(name) for name in self.plan.habits.names})
        self.checkers = Checkers(world, self.nodes, sync=self.plan.replication == "sync")
        self.store.on_change = self.checkers.state_stored
        Movement(self.coordinators, world.stats).watch(self.store)
        Consent(self.nodes).watch(self.store)
        self.operator = Operator(world, self.network)
        world.after_turn = self._after_turn
        self.injector = Injector(self)
        for number in range(self.plan.coordinators):
            self.coordinators.append(
                CoordinatorShell(
                    world,
                    self.network,
                    f"c{number + 1}",
                    store=self.store,
                    timing=self.plan.timing,
                    replication=self.plan.replication,
                    slowness=self.slowness,
                    drift=True,
                )
            )
        for _ in range(self.plan.nodes):
            self._make_node()
        for number in range(self.plan.clients):
            self.clients.append(
                ClientShell(
                    world,
                    self.network,
                    f"k{number + 1}",
                    seeds=[node.address for node in self.nodes]
                    + [each.address for each in self.coordinators],
                    habits=self.plan.habits,
                    checkers=self.checkers,
                    slowness=self.slowness,
                    drift=True,
                    group=self.plan.group,
                )
            )

    # ------------------------------------------------------------------ the cast

    def _make_node(self) -> NodeShell:
        node = NodeShell(
            self.world,
            self.network,
            f"n{len(self.nodes) + 1}",
            coordinators=[each.address for each in self.coordinators],
            timing=self.plan.timing,
            weight=1,
            slowness=self.slowness,
            drift=True,
            tap=self.checkers,
            durability=self.plan.durability,
        )
        if self.store.is_shared:
            node.names_coordinators = False
        self.nodes.append(node)
        return node

    def add_node(self, node_id: str = "") -> None:
        """One more node joins, if there are not enough already, under its process's name or another node's id."""
        if len(self.nodes) < self.plan.nodes + self.plan.late_nodes:
            node = self._make_node()
            node.id = node_id or node.name
            node.start()

    def processes(self) -> list[Process]:
        """Return all processes."""
        return [*self.coordinators, *self.nodes, *self.clients]

    @property
    def is_healed(self) -> bool:
        """Whether the faults are over."""
        return self._healed

    def has_left(self, process: Process) -> bool:
        """Whether a process is not to be started again."""
        return process in self.coordinators[1:] and self._healed and not self.plan.standbys

    _healed = False
    _half_open = 0  # for how long who is at one end of a dead connection may not know it, since the faults

    def _after_turn(self, process: Process) -> None:
        if isinstance(process, NodeShell):
            if not process.gone():
                self.checkers.after_node(process)
        elif self._healed and isinstance(process, CoordinatorShell) and process is self.coordinators[0]:
            if process.deciding is not None and process.deciding.is_over:
                self._begin_again(process)

    def _begin_again(self, process: Process) -> None:
        """Start a process again that has ended by itself, as a supervisor would."""
        self.network.process_crashed(process, power=False)
        process.crash()
        self.world.after(100 * MS, process.start)

    # ------------------------------------------------------------------ phases

    def begin(self, *, rivals: bool = True) -> None:
        """Start every process, in some order and not at once; without `rivals` only the first coordinator."""
        rng = self.world.rng("begin")
        for process in self.processes():
            if process in self.coordinators[1:] and not rivals:
                continue
            self.world.after(rng.randrange(500 * MS), process.start)

    def settle(self, bound: int, what: str) -> int:
        """Wait until every slot is served, at most `bound`. Returns how long it took."""
        begun = self.world.now
        while True:
            missing = self.unserved()
            if not missing:
                return self.world.now - begun
            if self.world.now - begun > bound:
                raise Violation("P7", f"{what}: slots {missing} are not served after {bound / S:.1f} s")
            self.world.run_until(self.world.now + 20 * MS)

    def unserved(self) -> list[int]:
        """The slots that no node may serve now."""
        served = {slot for node in self.nodes for slot in node.serving()}
        return [slot for slot in range(SLOTS) if slot not in served]

    def draw_weather(self) -> None:
        """How bad the network and the machines are in this run."""
        rng = self.world.rng("weather")
        self.weather.latency = rng.choice((MS, 2 * MS, 20 * MS))
        self.weather.slow = rng.choice((0.0, 0.02, 0.1, 0.3))
        self.weather.slow_max = rng.choice((50 * MS, 200 * MS, 200 * MS, S, 3 * S))
        self.weather.reset = rng.choice((0.0, 0.0, 0.0005, 0.003))
        self.weather.notice_max = rng.choice((200 * MS, 3 * S))
        self.weather.give_up_max = rng.choice((S, 10 * S))
        self.slowness.pause = rng.choice((0.0, 0.0, 0.001, 0.01))
        self.slowness.pause_max = rng.choice((50 * MS, S, self.plan.timing.coordinator_lease_ns))
        self.slowness.batch = rng.choice((0.0, 0.1, 0.5))
        self.slowness.batch_max = rng.choice((2 * MS, 20 * MS))
        self.slowness.late = rng.choice((MS, 20 * MS))
        self.store.slow = rng.choice((0.0, 0.0, 0.05))
        self.store.unknown = rng.choice((0.0, 0.0, 0.01))
        self.weather.errs = self.world.rng("senders").choice((0.0, 0.0, 0.02, 0.2))

    def trouble(
        self, without: frozenset[int] = frozenset(), only: frozenset[int] | None = None
    ) -> list[Fault]:
        """Let things go wrong for a while."""
        plan = self.plan
        scale = plan.timing.coordinator_lease_ns
        faults = draw_faults(
            self.world.rng("faults"),
            plan.kinds,
            self.world.now,
            self.world.now + plan.trouble,
            plan.gap,
            self.world.rng("scale").choice((S, scale, scale)),
        )
        for fault in faults:
            if fault.number not in without and (only is None or fault.number in only):
                self.world.at(fault.at, self.injector.happen, fault)
        self.world.run_until(self.world.now + plan.trouble)
        return faults

    def heal(self) -> None:
        """End all faults, and start every process that is missing. One coordinator is left if none stands by."""
        if self.world.story is not None:
            self.world.tell("!!", "HEAL")
        self._healed = True
        # A client asks on a connection that is open to its system only, and does so every few seconds.
        noticed_at = self.network.hushed_at + up(CHECK_NS + DOUBT_NS)
        self._half_open = max(self.weather.give_up_max, noticed_at - self.world.now)
        self.network.heal()
        self.store.heal()
        for node in self.nodes:
            if node.disk is not None:
                node.disk.heal()
        weather = Weather()
        self.weather.__dict__.update(weather.__dict__)
        self.slowness.__dict__.update(Slowness().__dict__)
        for process in self.processes():
            process.resume()
        first = self.coordinators[0]
        for rival in self.coordinators[1:]:
            if not self.plan.standbys:
                self.network.process_crashed(rival, power=False)
                rival.crash()
        if (
            not self.plan.standbys
            and first.alive
            and first.deciding is not None
            and not first.deciding.is_active
        ):
            self.network.process_crashed(first, power=False)
            first.crash()
        left = self.coordinators if self.plan.standbys else [first]
        for process in [*self.nodes, *self.clients, *left]:
            if not process.alive and not (isinstance(process, NodeShell) and process.draining):
                process.start()
        for node in self.nodes:
            if node.draining and not any(other.alive and not other.draining for other in self.nodes):
                self.network.process_crashed(node, power=False)
                node.crash()
                node.start()

        self.operator.undrain_all([each.address for each in left])

    def recovery_bound(self) -> int:
        """Within this time after all faults every slot must be served: the longest wait of the rules, and some more."""
        timing = self.plan.timing
        lease = up(up(timing.coordinator_lease_ns))
        return lease + timing.member_lease_ns + timing.stabilization_ns + 15 * S

    def finish(self) -> None:
        """After the faults: every slot is served and stays so, every call ends, nothing is left behind."""
        world, plan = self.world, self.plan
        took = self.settle(self.recovery_bound(), "after the faults")
        world.stats["recovery_ms_max"] = took // MS
        # Moves go on. Who still served from before the faults may stop only now, if the coordinator has lost its store.
        for _ in range(1 if plan.sprint else 3):
            world.run_until(world.now + min(S, plan.timing.coordinator_lease_ns // 6))
            self.settle(self.recovery_bound() - took, "a while after the faults")
        if plan.group is not None:
            self._groups_settle()
        for client in self.clients:
            client.stop()
        ttl = max(plan.habits.ttls_ms) * MS
        waits_until = world.now + self._half_open + 2 * S + up(ttl) + plan.habits.hold_max
        self._until(self._nobody_waits, waits_until)
        for client in self.clients:
            for ticket in client.waiting():
                raise Violation("P7", f"{client.name} still waits for {ticket!r}")
        # Effects of the faults may end only now: a dead connection that no process had noticed, a message that
        # was under way for seconds, a read without an answer that held up the heartbeats.
        self.settle(self.recovery_bound(), "at the end")
        self._check_watches()
        if plan.sprint:  # what is left may take a TTL to run out
            return
        self._until(self._nothing_is_left, waits_until + up(up(ttl)) + S)
        for node in self.nodes:
            left = node.leftovers()
            if left:
                raise Violation("LEAK", f"{node.name} still has {left}")

    def _check_watches(self) -> None:
        """Check that every watch shows the lock's present state, and reported every gap."""
        self._until(lambda: not self._unseen(), self.world.now + self._half_open + 20 * S)
        for text in self._unseen():
            raise Violation("WATCH", text)
        self.checkers.watches.check()

    def _unseen(self) -> list[str]:
        """The watches whose newest picture is not what the lock's primary has."""
        found = []
        for client in self.clients:
            for name, seen in client.watches.items() if client.alive else ():
                slot = slot_of(name)
                node = next((each for each in self.nodes if slot in each.serving()), None)
                if node is None or node.core is None:
                    found.append(f"{name!r} is not served by any node")
                    continue
                lock = node.core.slots[slot].table.describe(name, node.name, node.now_ns(), expired=True)
                picture = (holders_of(lock), waiters_of(lock))
                if seen.lock is None or (holders_of(seen.lock), waiters_of(seen.lock)) != picture:
                    found.append(f"{client.name} watches {name!r} and sees {seen.lock}, not {lock}")
        return found

    def _groups_settle(self) -> None:
        """Check that members stay in their groups: soon all of them have one settled view with just them, and each
        key has its owner."""
        for client in self.clients:
            assert client.group is not None
            client.group.freeze()
        groups, timing = self.checkers.groups, self.plan.timing
        ttl = up(max(self.plan.habits.ttls_ms) * MS)
        bound = self.recovery_bound() + 2 * ttl + self._half_open + timing.group_window_max_ns + 4 * S
        self._until(lambda: groups.unsettled() is None, self.world.now + bound)
        why = groups.unsettled()
        if why is not None:
            raise Violation("G3", f"{why}, {bound / S:.1f} s after the faults")

    def _until(self, done: Callable[[], bool], end: int) -> None:
        """Let time pass until `done()`, or until `end`."""
        while self.world.now < end and not done():
            self.world.run_until(min(end, self.world.now + 50 * MS))

    def _nobody_waits(self) -> bool:
        return not any(client.waiting() for client in self.clients)

    def _nothing_is_left(self) -> bool:
        return not any(node.leftovers() for node in self.nodes)

    def run(self, without: frozenset[int] = frozenset(), only: frozenset[int] | None = None) -> None:
        """The whole run."""
        self.begin()
        self.settle(5 * S + 4 * self.plan.timing.stabilization_ns, "at the start")
        if self.plan.alone:
            one_fault(self)
        else:
            self.draw_weather()
            self.trouble(without, only)
        self.heal()
        self.finish()


class Result(NamedTuple):
    """The outcome of a seed.

    Attributes:
        violation: None if all held.
        what: the property that does not hold, "INVARIANT" for a core that contradicts itself, "CRASH" for a bug.
        simulated_ns: how long the run was in true time.
    """

    seed: int
    violation: str | None
    what: str
    stats: Counter[str]
    story: list[str]
    simulated_ns: int
    turns: int

    def digest(self) -> str:
        """A hash of the story."""
        return hashlib.sha256("\n".join(self.story).encode()).hexdigest()


def run_seed(
    seed: int,
    *,
    story: bool = False,
    show: Callable[[str], None] | None = None,
    without: frozenset[int] = frozenset(),
    only: frozenset[int] | None = None,
    wipe: bool | None = None,
    kind: Callable[..., Simulation] | None = None,
) -> Result:
    """Run one seed to its end or to its first violation; `kind` makes another simulation than the usual one."""
    simulation = (kind or Simulation)(seed, story=story, wipe=wipe)
    world = simulation.world
    world.show = show
    if story:
        world.tell("!!", f"seed {seed}: {simulation.plan}")
    violation, what = None, ""
    try:
        simulation.run(without, only)
    except Violation as error:
        violation, what = str(error), error.what
    except AssertionError as error:
        violation, what = "".join(traceback.format_exception(error)[-4:]), "INVARIANT"
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed that shows it is reported
        violation, what = "".join(traceback.format_exception(error)[-4:]), "CRASH"
    if violation is not None and story:
        world.tell("!!", f"VIOLATION {violation}")
    return Result(seed, violation, what, world.stats, world.story or [], world.now, world.turns)
