"""Random lives of nodes with journals: whatever was cut off, what is left of a journal is what the node had then.

The nodes serve, copy, swap, lose copies and get them back, and begin empty; journals are lost, rewritten and cut. After
each batch the test notes what the node holds. Replayed up to there, from the beginning or from where the last complete
rewrite began, the journal gives the same.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import msgspec
import pytest

from lockring.cluster_state import Copy
from lockring.core.journal import JournalFound
from lockring.core.node import NodeCore, journal, peer_link, reign
from lockring.core.node.locks import LockHolder
from lockring.core.node.recovery import recover
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.ids import SlotNumber
from lockring.protocol import GrantReply, Mode, SlotRequest, SlotRequestKind
from lockring.slots import slot_of
from tests.unit.core.node.world import MS, Client, Nodes, S, of

NAMES = ("x", "y", "z")
NUMBERS = [slot_of(name) for name in NAMES]
MEASURED = 8
"""The lives that coverage sees. More lives show it little more, and each takes five times as long under its trace."""
SEEDS = [*range(MEASURED), *(pytest.param(seed, marks=pytest.mark.no_cover) for seed in range(MEASURED, 40))]
STEPS = 60


def held_in(slot: NodeSlot) -> object:
    """The content of a slot, in a form that can be compared."""
    holders = sorted(
        (
            lock.name,
            lock.mode,
            lock.permits,
            holder.session.id,
            holder.acquisition,
            holder.generation,
            holder.broken,
        )
        for lock in slot.table.locks.values()
        for holder in lock.holders
    )
    name = slot.content if slot.reign is None else (slot.reign.since, slot.reign.index)
    return slot.base, name, holders, len(slot.parts)


def held_by(slots: dict[SlotNumber, NodeSlot]) -> dict[SlotNumber, object]:
    return {number: held_in(slot) for number, slot in slots.items() if not slot.is_empty}


def highest_in(slots: dict[SlotNumber, NodeSlot]) -> dict[SlotNumber, int]:
    return {number: slot.table.highest for number, slot in slots.items() if not slot.is_empty}


@dataclass
class Paper:
    """The notes of a test on one journal: what the node held when it made each batch, None where much was missing."""

    held: list[dict[SlotNumber, object] | None] = field(default_factory=list)
    highest: dict[SlotNumber, int] = field(default_factory=dict)
    rewriting_from: int = 0
    rewrites: list[tuple[int, int]] = field(default_factory=list)

    def cut(self, left: int) -> None:
        """Forget all batches but the first."""
        del self.held[left:]
        self.rewrites = [(begin, end) for begin, end in self.rewrites if end <= left]


class Journaled(Nodes):
    """Nodes whose journals are noted down as they are written."""

    def __init__(self, seed: int, *names: str) -> None:
        self.random = random.Random(seed)
        self.papers = {name: Paper() for name in names}
        self.asked: dict[tuple[str, int], tuple[Client, int, str]] = {}
        """By session and acquisition, the acquires that nothing has ended since: client, request and lock."""
        super().__init__(*names, journals=True)
        self.on_ask = self.in_sync
        for disk in self.disks.values():
            disk.at_once = False

    def _write(self, name: str, core: NodeCore) -> None:
        disk, paper = self.disks[name], self.papers[name]
        count = len(disk.batches)
        super()._write(name, core)
        if len(disk.batches) == count:
            return
        kept = core._context.journal
        assert kept is not None
        paper.held.append(None if kept.trouble else held_by(core.slots))
        paper.highest = highest_in(core.slots)
        if disk.batches[-1].ends_rewrite:
            paper.rewrites.append((paper.rewriting_from, len(disk.batches)))
        self.check(name)

    def drop_copies(self) -> None:
        self.slots(lambda slot: msgspec.structs.replace(slot, backup=None, learner=None), *NUMBERS)

    def learn(self, copy: Copy) -> None:
        """Let a node learn, and make it the backup of each slot once that is in sync."""
        self.slots(lambda slot: msgspec.structs.replace(slot, learner=copy), *NUMBERS)

    def in_sync(self, kind: SlotRequestKind, item: SlotRequest) -> None:
        slot = self.state.slots[item.slot]
        if kind == SlotRequestKind.IN_SYNC and slot.epoch == item.epoch and slot.learner is not None:
            self.slots(
                lambda slot: msgspec.structs.replace(slot, backup=slot.learner, learner=None), item.slot
            )

    def crash_all(self, lost: str = "") -> None:
        """Kill every node; of the batches that are not durable some stay, and then start them again.

        Args:
            lost: the node whose directory is lost; "" for none.
        """
        for name in list(self.cores):
            self.crash(name)
        for name, disk in self.disks.items():
            disk.at_once = True
            self.begin_again(name, is_lost=name == lost)

    def begin_again(self, name: str, *, is_lost: bool = False) -> None:
        """Start a node that has crashed on what is left of its journal."""
        disk, paper = self.disks[name], self.papers[name]
        left = 0 if is_lost else self.random.randint(disk.durable, len(disk.batches))
        disk.durable = left
        paper.cut(left)
        paper.rewriting_from = left
        self.restart(name)
        disk.sync(self.cores[name], self.now)  # a life joins once its beginning is durable
        self.settle()

    def restart_one(self, name: str) -> None:
        """Kill a node, which may be replaced, and put its next life in its place, if it still has one."""
        self.crash(name)
        slot = self.state.slots[NUMBERS[0]]
        if slot.primary == self.replicas[name] and slot.backup is not None and self.random.random() < 0.3:
            self.promote(slot.backup.replica.node, *NAMES)
        self.begin_again(name)
        if self.random.random() < 0.7:
            self.tell()
        if self.cores[name].join_facts().former:
            self.inherit(name, *NUMBERS)
        self.advance(self.random.choice([5, 3_000]) * MS)

    def check(self, name: str) -> None:
        """Replay what is there, from where old segments may end."""
        disk, paper = self.disks[name], self.papers[name]
        durable = [begin for begin, end in paper.rewrites if end <= disk.durable]
        for first in {0, *durable[-1:]}:
            entries = [entry for batch in disk.batches[first:] for entry in batch.entries]
            recovery = recover(JournalFound(entries, True), Sessions(), self.now)
            assert recovery.damage == ""
            if paper.held[-1] is not None:
                assert held_by(recovery.slots) == paper.held[-1]
                # A token that the node has forgotten, with a copy that it dropped, may be remembered here.
                highest = highest_in(recovery.slots)
                assert all(highest[number] >= least for number, least in paper.highest.items())

    def rewrite(self, name: str) -> None:
        self.papers[name].rewriting_from = len(self.disks[name].batches)
        self.cores[name].rewrite(now_ns=self.now)

    def lose(self, name: str) -> None:
        """Lose what is not durable, all of it or from some batch on."""
        disk, paper = self.disks[name], self.papers[name]
        left = self.random.randint(disk.durable, len(disk.batches))
        del disk.batches[left:]
        paper.cut(left)
        self.cores[name].journal_lost("disk full", now_ns=self.now)
        self.settle()
        if self.random.random() < 0.5:
            self.advance(self.random.randint(1, 50) * MS, step_ns=5 * MS)
        self.rewrite(name)
        disk.durable = len(disk.batches)


def acquire(nodes: Journaled, client: Client, name: str, acquisition: int) -> None:
    client.acquire(name, acquisition, mode=Mode.SHARED, payload=b"p" * nodes.random.randrange(2))
    request = next(client.requests)
    client.requests = itertools.count(request)
    nodes.asked[client.session, acquisition] = client, request - 1, name


def live(nodes: Journaled) -> None:
    """Let nodes A and B live for a while."""
    draw = nodes.random
    clients: dict[str, Client] = {}
    nodes.assign("A", "B", *NAMES)
    for acquisition in range(1, STEPS):
        slot = nodes.state.slots[slot_of(NAMES[0])]
        primary = "A" if slot.primary == nodes.replicas["A"] else "B"
        other = "B" if primary == "A" else "A"
        if primary not in clients:
            clients[primary] = nodes.client(primary, f"s{primary}")
        client, name = clients[primary], draw.choice(NAMES)
        match draw.randrange(14):
            case 0 | 1 | 2:
                acquire(nodes, client, name, acquisition)
            case 3 | 4:
                released = draw.randint(1, acquisition)
                client.release(name, released)
                nodes.asked.pop((client.session, released), None)
            case 5:
                nodes.advance(draw.randint(1, 60) * MS, step_ns=5 * MS)
            case 6 | 7:
                for each in draw.sample(["A", "B"], draw.randint(1, 2)):
                    nodes.disks[each].sync(nodes.cores[each], nodes.now)
                nodes.settle()
            case 8:
                nodes.rewrite(draw.choice(["A", "B"]))
                nodes.settle()
            case 9:
                nodes.lose(draw.choice(["A", "B"]))
            case 10 if slot.backup is not None:
                nodes.promote(other, *NAMES, swap=True)
                clients.pop(primary)
            case 12:
                name = draw.choice(["A", "B"])
                nodes.restart_one(name)
                clients.pop(name, None)
            case 11:
                version = nodes.state.version + 1
                match draw.randrange(3):
                    case 0:
                        nodes.drop_copies()
                    case 1 if slot.backup is None:
                        nodes.learn(Copy(nodes.replicas[other], version))
                    case 2:
                        nodes.assign(primary, other, *NAMES)
                        nodes.asked.clear()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_journal_that_is_cut_anywhere_has_what_the_node_had_there(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "REWRITE_COST_MAX", 2)
    monkeypatch.setattr(reign, "SNAPSHOT_PART_HOLDERS", 2)
    monkeypatch.setattr(peer_link, "LINK_COST_MAX", 3)
    live(Journaled(seed, "A", "B"))


@pytest.mark.parametrize("seed", SEEDS)
def test_all_that_was_answered_is_held_after_a_crash_of_all_nodes(seed: int) -> None:
    nodes = Journaled(seed, "A", "B")
    live(nodes)
    slot = nodes.state.slots[NUMBERS[0]]
    assert slot.primary is not None
    acquire(nodes, nodes.client(slot.primary.node, "last"), "x", STEPS)
    for name in ("A", "B"):
        if nodes.random.random() < 0.5:
            nodes.disks[name].sync(nodes.cores[name], nodes.now)
    nodes.settle()
    answered = {
        grant: (name, reply.generation)
        for grant, (client, request, name) in nodes.asked.items()
        for reply in of(GrantReply, client.inbox)
        if reply.request == request
    }
    loses_primary = slot.backup is not None and nodes.random.random() < 0.5
    nodes.crash_all(slot.primary.node if loses_primary else "")
    nodes.tell()
    for name in nodes.random.sample(["A", "B"], 2):
        if nodes.cores[name].join_facts().former:
            nodes.inherit(name)
    if loses_primary and slot.backup is not None:
        nodes.promote(slot.backup.replica.node, *NAMES)
    nodes.advance(3 * S)
    for (session, acquisition), (name, generation) in answered.items():
        number = slot_of(name)
        primary = nodes.state.slots[number].primary
        assert primary is not None
        core = nodes.cores[primary.node]
        assert core.may_serve(number, now_ns=nodes.now)
        holder = core.slots[number].table.find(session, acquisition)
        assert isinstance(holder, LockHolder)
        assert holder.generation == generation
