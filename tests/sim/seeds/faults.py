"""The faults of a run: drawn in advance from the seed, so that a run can be repeated without some of it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from tests.sim.framework.disk import STYLES
from tests.sim.framework.world import MS, Process, S

if TYPE_CHECKING:
    from tests.sim.framework.coordinator_shell import CoordinatorShell
    from tests.sim.framework.disk import Picture, SimDisk
    from tests.sim.framework.node_shell import NodeShell
    from tests.sim.seeds.run import Simulation

KINDS = (
    "node_crash",
    "node_crash",
    "node_crash",
    "both_crash",
    "node_quick_restart",
    "client_crash",
    "coordinator_crash",
    "coordinator_crash",
    "node_pause",
    "node_pause",
    "client_pause",
    "coordinator_pause",
    "cut",
    "cut",
    "cut_one_way",
    "cut_one_way",
    "cut_coordinator",
    "cut_coordinator",
    "cut_store",
    "split",
    "split",
    "slow_store",
    "wall_jump",
    "drain",
    "join",
    "reweigh",
    "resets",
    "hush",
)

SHARED_STORE_KINDS = (
    "leader_crash",
    "leader_pause",
    "leader_pause",
    "leader_cut_from_store",
    "late_write",
    "unknown_outcomes",
    "unknown_outcomes",
    "campaigns_unanswered",
)
"""Further faults, for a store that names a leader among several coordinators."""

JOURNAL_KINDS = (
    "all_crash",
    "all_crash",
    "all_crash",
    "all_stop",
    "killed_writing",
    "killed_writing",
    "disk_full",
    "disk_fails",
    "disk_slow",
    "disk_lost",
    "disk_older",
    "disk_flip",
    "disk_owner",
)
"""Those of clusters whose nodes keep journals."""


class Fault(NamedTuple):
    """One thing that goes wrong.

    Attributes:
        number: its place in the schedule.
        at: true time.
        kind: one of `KINDS`, `SHARED_STORE_KINDS` or `JOURNAL_KINDS`, "wipe" or "set_back".
        draw: seed of its own draws (whom it hits).
        duration: for how long, where that means something.
    """

    number: int
    at: int
    kind: str
    draw: int
    duration: int

    def __str__(self) -> str:
        return f"#{self.number} {self.kind} at {self.at / S:.3f} s for {self.duration / S:.3f} s"


def draw_faults(
    rng: random.Random, kinds: list[str], begin: int, end: int, gap: int, scale: int
) -> list[Fault]:
    """A schedule: `kinds` to choose from, about `gap` ns between two, durations around `scale` ns."""
    faults: list[Fault] = []
    at = begin
    while True:
        at += rng.randrange(1, 2 * gap)
        if at >= end:
            return faults
        duration = rng.choice((rng.randrange(scale // 20, scale // 2), rng.randrange(scale // 4, 2 * scale)))
        faults.append(Fault(len(faults), at, rng.choice(kinds), rng.getrandbits(32), duration))


class Injector:
    """Carries faults out on a simulation."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.network = simulation.network

    def happen(self, fault: Fault) -> None:
        """Let it happen."""
        if self.world.story is not None:
            self.world.tell("!!", str(fault))
        self.world.stats[f"fault_{fault.kind}"] += 1
        getattr(self, f"_{fault.kind}")(random.Random(fault.draw), fault.duration)

    # ------------------------------------------------------------------ processes

    def _crash(self, process: Process, rng: random.Random, downtime: int) -> None:
        if process.alive:
            self.network.process_crashed(process, power=rng.random() < 0.3)
            process.crash()
            self.world.after(downtime, self._restart, process, process.life)

    def _restart(self, process: Process, life: int) -> None:
        if process.life == life and not process.alive and not self.simulation.has_left(process):
            process.start()

    def _node_crash(self, rng: random.Random, duration: int) -> None:
        self._crash(rng.choice(self.simulation.nodes), rng, duration)

    def _node_quick_restart(self, rng: random.Random, duration: int) -> None:
        del duration
        self._crash(rng.choice(self.simulation.nodes), rng, rng.randrange(MS, 100 * MS))

    def _both_crash(self, rng: random.Random, duration: int) -> None:
        """Primary and backup of a slot that is used, one shortly after the other."""
        state = self.simulation.store.state
        if state is None:
            return
        slot = state.slots[rng.choice(self.simulation.slots)]
        copies = [slot.primary, None if slot.backup is None else slot.backup.replica]
        delay = 0
        for replica in copies:
            for node in self.simulation.nodes:
                if replica is not None and node.name == replica.node:
                    self.world.after(delay, self._crash, node, rng, duration)
                    delay = rng.choice((0, rng.randrange(1, 500 * MS)))

    def _client_crash(self, rng: random.Random, duration: int) -> None:
        self._crash(rng.choice(self.simulation.clients), rng, duration)

    def _coordinator_crash(self, rng: random.Random, duration: int) -> None:
        process = rng.choice(self.simulation.coordinators)
        self._crash(process, rng, duration)

    def _pause(self, process: Process, duration: int) -> None:
        if process.alive:
            if self.world.story is not None:
                self.world.tell(process.name, f"is frozen for {duration / S:.3f} s")
            process.pause(duration)

    def _node_pause(self, rng: random.Random, duration: int) -> None:
        self._pause(rng.choice(self.simulation.nodes), duration)

    def _client_pause(self, rng: random.Random, duration: int) -> None:
        self._pause(rng.choice(self.simulation.clients), duration)

    def _coordinator_pause(self, rng: random.Random, duration: int) -> None:
        self._pause(rng.choice(self.simulation.coordinators), duration)

    # ------------------------------------------------------------------ the coordinator that leads

    def _leader(self, rng: random.Random) -> CoordinatorShell:
        """The coordinator that the store names, or any."""
        leader = self.simulation.store.leader
        for each in self.simulation.coordinators:
            if leader is not None and each.address == leader.address:
                return each
        return rng.choice(self.simulation.coordinators)

    def _lead_ns(self) -> int:
        return self.simulation.coordinators[0].lead_ms * MS

    def _leader_crash(self, rng: random.Random, duration: int) -> None:
        self._crash(self._leader(rng), rng, duration)

    def _leader_pause(self, rng: random.Random, duration: int) -> None:
        """Freeze the leader, often for longer than its lead lasts, so that it goes on beside its successor."""
        self._pause(self._leader(rng), duration + rng.choice((0, 2)) * self._lead_ns())

    def _leader_cut_from_store(self, rng: random.Random, duration: int) -> None:
        self.simulation.store.cut(self._leader(rng), duration + rng.choice((0, 2)) * self._lead_ns())

    def _late_write(self, rng: random.Random, duration: int) -> None:
        """Let each write for a moment arrive late: when its writer has given up on it, or its lead is over."""
        store = self.simulation.store
        delay = rng.randrange(store.timeout // 2, store.timeout + 3 * self._lead_ns())
        store.write_delay = delay
        self.world.after(min(duration, rng.randrange(10 * MS, 500 * MS)), self._writes_arrive_in_time, delay)

    def _writes_arrive_in_time(self, delay: int) -> None:
        if self.simulation.store.write_delay == delay:
            self.simulation.store.write_delay = 0

    def _unknown_outcomes(self, rng: random.Random, duration: int) -> None:
        self.simulation.store.unknown = rng.choice((0.2, 0.5, 0.9))
        self.world.after(duration, self._store_recovers)

    def _campaigns_unanswered(self, rng: random.Random, duration: int) -> None:
        """Let campaigns take effect without an answer: the leader does not learn that it leads."""
        del rng
        self.simulation.store.campaigns_unanswered = True
        self.world.after(duration, self._store_recovers)

    # ------------------------------------------------------------------ network and store

    def _cut_pair(self, one: Process, other: Process, duration: int, *, both: bool) -> None:
        if self.world.story is not None:
            arrow = "<->" if both else "->"
            self.world.tell("!!", f"  cut {one.name} {arrow} {other.name}")
        self.network.cut(one, other, duration)
        if both:
            self.network.cut(other, one, duration)

    def _cut(self, rng: random.Random, duration: int, *, both: bool = True) -> None:
        everyone = self.simulation.processes()
        one = rng.choice([*self.simulation.nodes, *self.simulation.nodes, *everyone])
        others = [each for each in everyone if each is not one]
        count = rng.choice((1, 1, 2, len(others)))
        for other in rng.sample(others, min(count, len(others))):
            if both:
                self._cut_pair(one, other, duration, both=True)
            else:
                pair = (one, other) if rng.random() < 0.5 else (other, one)
                self._cut_pair(*pair, duration, both=False)

    def _cut_one_way(self, rng: random.Random, duration: int) -> None:
        self._cut(rng, duration, both=False)

    def _cut_coordinator(self, rng: random.Random, duration: int) -> None:
        node = rng.choice(self.simulation.nodes)
        for coordinator in self.simulation.coordinators:
            self._cut_pair(node, coordinator, duration, both=rng.random() < 0.8)

    def _split(self, rng: random.Random, duration: int) -> None:
        """Two sides, each at one with itself."""
        sides: tuple[list[Process], list[Process]] = ([], [])
        for process in self.simulation.processes():
            sides[rng.random() < 0.5].append(process)
        if self.world.story is not None:
            text = " | ".join(" ".join(each.name for each in side) for side in sides)
            self.world.tell("!!", f"  split {text}")
        for one in sides[0]:
            for other in sides[1]:
                self.network.cut(one, other, duration)
                self.network.cut(other, one, duration)

    def _resets(self, rng: random.Random, duration: int) -> None:
        """Many connections break at once."""
        del duration
        for process in self.simulation.processes():
            for end in list(process.ends.values()):
                if rng.random() < 0.3:
                    self.network.reset(end)

    def _hush(self, rng: random.Random, duration: int) -> None:
        """Let a device on the path forget many connections, silently, in one direction or both."""
        del duration
        for process in self.simulation.processes():
            for end in list(process.ends.values()):
                if rng.random() < 0.2:
                    self.network.hush(end, both=rng.random() < 0.6)

    def _cut_store(self, rng: random.Random, duration: int) -> None:
        self.simulation.store.cut(rng.choice(self.simulation.coordinators), duration)

    def _slow_store(self, rng: random.Random, duration: int) -> None:
        store = self.simulation.store
        store.slow = 0.5
        store.unknown = rng.choice((0.0, 0.2))
        store.full = rng.random() < 0.25
        self.world.after(duration, self._store_recovers)

    def _store_recovers(self) -> None:
        self.simulation.store.recover()

    def _wipe(self, rng: random.Random, duration: int) -> None:
        """The coordinators die and what they stored is lost; once in a run."""
        if self.world.stats["wiped"]:
            return
        for process in self.simulation.coordinators:
            process.new_cluster = False
            if not process.alive:
                continue
            self._crash(process, rng, duration)
        self.simulation.store.wipe()

    # ------------------------------------------------------------------ disks

    def _all_crash(self, rng: random.Random, duration: int) -> None:
        """All nodes at once, with or without their machines, and perhaps the coordinators."""
        everyone: list[Process] = list(self.simulation.nodes)
        if rng.random() < 0.5:
            everyone += self.simulation.coordinators
        power, downtime = rng.random() < 0.5, rng.choice((duration, rng.randrange(MS, 100 * MS)))
        for process in everyone:
            if process.alive:
                self.network.process_crashed(process, power=power)
                process.crash()
                at = downtime + rng.randrange(1, rng.choice((2 * MS, 200 * MS)))
                self.world.after(at, self._restart, process, process.life)

    def _all_stop(self, rng: random.Random, duration: int) -> None:
        """All nodes are stopped in order, and started again later."""
        for node in self.simulation.nodes:
            if node.alive and not node.draining:
                if self.world.story is not None:
                    self.world.tell(node.name, "is told to stop")
                node.drain()
                self.world.after(duration + rng.randrange(1, 500 * MS), self._back, node, node.life)

    def _disk_of(self, rng: random.Random) -> tuple[NodeShell, SimDisk] | None:
        node = rng.choice(self.simulation.nodes)
        return None if node.disk is None else (node, node.disk)

    def _killed_writing(self, rng: random.Random, duration: int) -> None:
        """A node is killed in the middle of its next write."""
        del duration
        for _, disk in filter(None, [self._disk_of(rng)]):
            disk.tears = True

    def _disk_full(self, rng: random.Random, duration: int) -> None:
        for _, disk in filter(None, [self._disk_of(rng)]):
            disk.is_full = True
            self.world.after(duration, disk.heal)

    def _disk_fails(self, rng: random.Random, duration: int) -> None:
        for _, disk in filter(None, [self._disk_of(rng)]):
            disk.fails = True
            self.world.after(duration, disk.heal)

    def _disk_slow(self, rng: random.Random, duration: int) -> None:
        for _, disk in filter(None, [self._disk_of(rng)]):
            disk.slow_ns = rng.choice((50 * MS, 500 * MS, 3 * S))
            self.world.after(duration, disk.heal)

    def _disk_lost(self, rng: random.Random, duration: int) -> None:
        """A node loses its directory, mostly while it does not run."""
        for node, disk in filter(None, [self._disk_of(rng)]):
            if rng.random() < 0.7:
                self._crash(node, rng, duration)
            disk.lose_directory()

    def _disk_older(self, rng: random.Random, duration: int) -> None:
        """A node's directory is copied, and put back some time later."""
        for node, disk in filter(None, [self._disk_of(rng)]):
            self.world.after(duration, self._put_back, node, disk.picture(), rng)

    def _put_back(self, node: NodeShell, picture: Picture, rng: random.Random) -> None:
        if self.simulation.is_healed:
            return
        assert node.disk is not None
        self._crash(node, rng, rng.randrange(MS, 500 * MS))
        node.disk.put_back(picture, style=rng.choice(STYLES))

    def _disk_owner(self, rng: random.Random, duration: int) -> None:
        """A node's files get another owner, mostly while it does not run."""
        for node, disk in filter(None, [self._disk_of(rng)]):
            if rng.random() < 0.7:
                self._crash(node, rng, duration)
            disk.change_owner()

    def _disk_flip(self, rng: random.Random, duration: int) -> None:
        """A bit in a node's files turns over, and the node perhaps has to read them soon."""
        for node, disk in filter(None, [self._disk_of(rng)]):
            disk.flip_bit(rng)
            if rng.random() < 0.7:
                self._crash(node, rng, duration)

    # ------------------------------------------------------------------ clocks

    def _wall_jump(self, rng: random.Random, duration: int) -> None:
        del duration
        process = rng.choice([*self.simulation.coordinators, *self.simulation.nodes])
        process.wall_offset += rng.choice((-3600 * S, -5 * S, 5 * S, 3600 * S))

    # ------------------------------------------------------------------ membership

    def _drain(self, rng: random.Random, duration: int) -> None:
        """Let a node leave and come back later, or an operator drain one and undrain it later."""
        node = rng.choice(self.simulation.nodes)
        if rng.random() < 0.5:
            operator = self.simulation.operator
            servers = [each.address for each in (*self.simulation.nodes, *self.simulation.coordinators)]
            through = rng.choice((servers, [node.address]))
            operator.drain(node.name, through)
            if rng.random() < 0.8:
                self.world.after(duration, operator.undrain, node.name, servers)
            return
        if node.alive and not node.draining and sum(each.alive for each in self.simulation.nodes) > 1:
            if self.world.story is not None:
                self.world.tell(node.name, "is told to drain")
            node.drain()
            self.world.after(duration, self._back, node, node.life)

    def _back(self, node: Process, life: int) -> None:
        """Whether or not the drain came to its end by itself."""
        if node.life == life:
            if node.alive:
                self.network.process_crashed(node, power=False)
                node.crash()
            node.start()

    def _join(self, rng: random.Random, duration: int) -> None:
        del rng, duration
        self.simulation.add_node()

    def _reweigh(self, rng: random.Random, duration: int) -> None:
        """A node comes back with another weight."""
        node = rng.choice(self.simulation.nodes)
        node.weight = rng.choice((1, 2, 5))
        self._drain_one(node, duration)

    def _drain_one(self, node: Process, duration: int) -> None:
        self.network.process_crashed(node, power=False)
        node.crash()
        self.world.after(duration // 4, self._restart, node, node.life)
