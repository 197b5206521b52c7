"""Random histories of joins, deaths, drains, lost writes and clock jumps against the coordinator as a whole.

Every state that reaches the store is checked from outside: it follows from the one before by rules that a
person would write down (section `check_step`), and after all faults have ended every slot has two copies again.
"""

from __future__ import annotations

import random

import pytest

from lockring.cluster_state import ClusterState, Replica, SlotState
from lockring.core.effects import Effect, StoreWrite
from lockring.core.timing import Timing, up
from lockring.protocol import SlotRequest, SlotRequestKind, SlotRequests, Welcome
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import Node, World

pytestmark = pytest.mark.slow

LEASE_WAIT_NS = up(Timing().coordinator_lease_ns)


class Checked(World):
    """A world that checks every step, and whose store sometimes loses its tongue."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.acknowledged_at_ns: dict[object, int] = {}
        self.leaving: list[Replica] = []
        self.lives: dict[str, list[int]] = {}
        self.vouchers: dict[Replica, set[Replica]] = {}
        self.trouble = 0.0
        super().__init__(replication=self.rng.choice(["sync", "sync", "async"]))

    def carry_out(self, effect: Effect) -> None:
        if isinstance(effect, StoreWrite) and self.rng.random() < self.trouble:
            if self.rng.random() < 0.5:
                self.apply_write(effect)
            self.core.store_result(effect.operation, ok=False, state=None, now_ns=self.read_clocks())
            return
        before = {name: len(node.acknowledged) for name, node in self.nodes.items()}
        super().carry_out(effect)
        for name, node in self.nodes.items():
            if len(node.acknowledged) > before.get(name, 0):
                self.acknowledged_at_ns[node.replica] = self.now_ns

    def apply_write(self, write: StoreWrite) -> bool:
        before = self.stored
        if not super().apply_write(write):
            return False
        if before is not None:
            for old, new in zip(before.slots, write.state.slots, strict=True):
                if old is not new and old != new:
                    self.check_step(before, write.state, old, new)
        return True

    def check_step(self, before: ClusterState, after: ClusterState, old: SlotState, new: SlotState) -> None:
        assert new.generation_below >= old.generation_below
        assert new.generation_from >= old.generation_from
        if new.base != old.base:
            assert new.generation_from >= old.generation_below
            for copy in (old.primary, old.backup.replica if old.backup else None):
                if copy is None:
                    continue
                for life in [
                    Replica(copy.node, n) for n in self.lives.get(copy.node, [1]) if n <= copy.incarnation
                ]:
                    last_ns = self.acknowledged_at_ns.get(life, -LEASE_WAIT_NS)
                    assert self.now_ns - last_ns >= LEASE_WAIT_NS, f"{life} may still serve: {old} -> {new}"
        elif new.primary is None:
            assert old.primary in self.leaving, "only who leaves as the last one lets go of what it has"
        elif new.primary != old.primary:
            has_data = old.copy_of(new.primary) is not None or self.is_heir(new.primary, old.primary)
            assert has_data, "only who has the data may reign over it"
            if new.since != after.version:
                raise AssertionError("a new reign begins with this state")
        elif new.backup is not None and new.backup != old.backup:
            former = None if old.backup is None else old.backup.replica
            is_back = self.is_heir(new.backup.replica, former)
            assert new.backup == old.learner or is_back, "only a learner comes into sync, or an heir is"

    def is_heir(self, life: Replica, former: Replica | None) -> bool:
        return former in self.vouchers.get(life, ())

    def start_node(self, name: str) -> Node:
        """A node starts, perhaps on a journal of some of its lives."""
        incarnation = 1 + self.now_ns // 1_000_000
        lives = self.lives.setdefault(name, [1])
        former = [each for each in lives if each < incarnation and self.rng.random() < 0.7]
        former = former if self.rng.random() < 0.6 else []
        if incarnation not in lives:
            lives.append(incarnation)
        self.vouchers[Replica(name, incarnation)] = {Replica(name, each) for each in former}
        return self.join(name, incarnation, former=tuple(former))

    def act(self) -> None:
        rng = self.rng
        name = rng.choice("abcde")
        node = self.nodes.get(name)
        match rng.choice(
            [
                "join",
                "join",
                "restart",
                "kill",
                "silence",
                "speak",
                "drain",
                "undrain",
                "ask",
                "ask",
                "wall",
                "trouble",
            ]
        ):
            case "join" if node is None:
                self.start_node(name)
            case "restart" if node is not None:
                self.kill(name)
                again = self.start_node(name)
                assert not again.inbox or isinstance(again.inbox[0], Welcome)
            case "kill" if node is not None and len(self.nodes) > 2:
                self.kill(name)
            case "silence" if node is not None:
                node.is_silent = True
            case "speak":
                for each in self.nodes.values():
                    each.is_silent = False
            case "drain" if node is not None and len(self.nodes) > 2:
                by = rng.choice([None, node.connection, rng.choice(list(self.nodes.values())).connection])
                if rng.random() < 0.3:
                    keeps = rng.random() < 0.5
                    if not keeps:
                        self.leaving.append(node.replica)
                    self.leave(name, keeps=keeps)
                else:
                    self.drain(name, by=by)
            case "undrain" if node is not None:
                self.undrain(name, by=rng.choice([None, node.connection]))
            case "ask" if node is not None and node.closed is None:
                self.ask_at_random(name)
            case "wall":
                self.wall_offset_ns += rng.randint(-100, 100) * NS_PER_S
            case "trouble":
                self.trouble = rng.choice([0.0, 0.0, 0.1, 0.5])
            case _:
                pass

    def ask_at_random(self, name: str) -> None:
        node = self.nodes[name]
        items = []
        for number in self.rng.sample(range(4096), 60):
            slot = self.state.slots[number]
            copy = self.rng.choice([slot.backup, slot.learner, slot.backup])
            epoch = slot.epoch - self.rng.choice([0, 0, 0, 1])
            if copy is not None:
                items.append(
                    SlotRequest(
                        number,
                        epoch,
                        copy.replica.node,
                        copy.replica.incarnation,
                        copy.joined,
                        slot.generation_below,
                    )
                )
        self.receive(node.connection, SlotRequests(self.rng.choice(list(SlotRequestKind)), items))
        self.settle()


@pytest.mark.parametrize("seed", range(8))
def test_every_step_of_a_random_history_is_allowed_and_in_the_end_all_is_well(seed: int) -> None:
    world = Checked(seed)
    for name in "abc":
        world.join(name)
    for _ in range(40):
        world.act()
        world.run(world.rng.choice([0.05, 0.3, 1, 3, 8]))
    world.trouble = 0.0
    for node in list(world.nodes.values()):
        node.is_silent = False
        member = world.state.members.get(node.replica.node)
        if node.closed is not None or (member is not None and member.condition == "draining"):
            world.kill(node.replica.node)
    for name in "abc":
        if name not in world.nodes:
            world.join(name, 1 + world.now_ns // 1_000_000)
    world.run(40)
    world.run_until_quiet(60)
    present = set(world.nodes)
    assert set(world.state.members) == present
    assert set(world.primaries()) == set(world.backups()) == present
    assert all(slot.learner is None for slot in world.state.slots)
    assert world.core.note == ""
