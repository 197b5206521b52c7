"""Scenarios: a calm cluster with the default durations, and something that goes wrong at a chosen moment.

All checkers watch here too.
"""

from __future__ import annotations

from lockring.core.timing import Timing
from lockring.names import slot_of
from lockring.ring.state import SlotState
from tests.sim.node_shell import NodeShell
from tests.sim.run import Plan, Simulation, names_in
from tests.sim.workload import Habits
from tests.sim.world import Process, S

TTL_MS = 10_000


class Scenario:
    """A cluster that has come to rest.

    Attributes:
        simulation: the cluster.
        name: a lock name to play with.
    """

    def __init__(
        self, *, nodes: int = 3, clients: int = 2, late_nodes: int = 0, coordinators: int = 1, seed: int = 1
    ) -> None:
        habits = Habits(names_in([0], 1), (TTL_MS,), 0, S, S, 0.0, 0.0, 0.0)
        plan = Plan(nodes, clients, coordinators, Timing(), "sync", habits, [], S, S, late_nodes, False)
        self.simulation = Simulation(seed, story=True, plan=plan)
        self.world = self.simulation.world
        self.name = habits.names[0]
        self.simulation.begin(rivals=False)
        self.quiet()

    # ------------------------------------------------------------------ time

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + int(seconds * S))

    def quiet(self, seconds: float = 60) -> float:
        """Wait until everybody serves and nothing has moved for two seconds. Returns how long it took, in seconds."""
        begun, version, since = self.world.now, -1, self.world.now
        while self.world.now - begun < seconds * S:
            self.run(0.1)
            state = self.simulation.store.state
            if state is None or state.version != version or self.simulation.unserved():
                version, since = (0 if state is None else state.version), self.world.now
            elif self.world.now - since >= 2 * S:
                return (since - begun) / S
        raise AssertionError(f"not quiet after {seconds} s")

    def wait(self, what: object, seconds: float) -> float:
        """Wait until `what()` is true. Returns how long it took, in seconds."""
        assert callable(what)
        begun = self.world.now
        while not what():
            assert self.world.now - begun < seconds * S, f"not within {seconds} s"
            self.run(0.005)
        return (self.world.now - begun) / S

    # ------------------------------------------------------------------ who is what

    def slot(self) -> SlotState:
        """The slot of the lock, as stored."""
        state = self.simulation.store.state
        assert state is not None
        return state.slots[slot_of(self.name)]

    def node(self, name: str) -> NodeShell:
        """A node by its name."""
        return next(each for each in self.simulation.nodes if each.name == name)

    def primary(self) -> NodeShell:
        """The lock's primary."""
        primary = self.slot().primary
        assert primary is not None
        return self.node(primary.node)

    def backup(self) -> NodeShell:
        """The lock's backup."""
        backup = self.slot().backup
        assert backup is not None
        return self.node(backup.replica.node)

    # ------------------------------------------------------------------ what goes wrong

    def crash(self, process: Process, *, power: bool = False) -> None:
        """Kill a process; with `power` its machine too, so that nobody is told."""
        self.simulation.network.process_crashed(process, power=power)
        process.crash()

    def cut(self, one: Process, other: Process, seconds: float) -> None:
        """Cut two processes off from each other."""
        self.simulation.network.cut(one, other, int(seconds * S))
        self.simulation.network.cut(other, one, int(seconds * S))

    def slots_of(self, node: NodeShell) -> int:
        """How many slots a node is primary of."""
        state = self.simulation.store.state
        assert state is not None
        return sum(slot.primary is not None and slot.primary.node == node.name for slot in state.slots)
