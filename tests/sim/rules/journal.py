"""Rules about writing a journal: what is in it before it is answered for, and until when."""

from __future__ import annotations

from copy import copy
from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from lockring.cluster_state import Copy, Replica
from lockring.core.coordinator import VERSION_MAX
from lockring.core.effects import Effect
from lockring.core.node import held_acks
from lockring.core.node.copies import Copies
from lockring.core.node.core import NodeCore
from lockring.core.node.held_acks import HeldAcks
from lockring.core.node.journal import NodeJournal
from lockring.core.node.next_batch import JournalStream
from lockring.ids import Version
from lockring.journal import journal
from lockring.journal.found import FoundSegment, found_segments
from lockring.journal.journal import Journal
from lockring.journal.reading import JournalContent
from lockring.journal.sync_point import SyncPoint
from lockring.protocol import Position, Replicate
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.world import S
from tests.sim.rules.held import demand_kept, disk_of, holding
from tests.sim.rules.switches import Change, drill, drill_by_chance, mutant
from tests.sim.scenarios.scenario import TTL_MS

# ----------------------------------------------------------------------- situations


def _life(node: NodeShell) -> Replica:
    assert node.core is not None
    return node.core.replica


def _believe(journal: NodeJournal) -> None:
    """Count as durable what the slots that are served have recorded so far."""
    for slot in journal._slots.values():
        if slot.reign is not None and slot.reign.journal is not None:
            slot.reign.journal.number = 0


# ----------------------------------------------------------------------- written before it is answered for


@mutant
def answer_before_write() -> list[Change]:
    """A grant is answered once it is handed to the journal, before that has it."""
    take_batch = NodeJournal.take_batch

    def changed(self: NodeJournal, now_ns: int) -> Any:
        batch = take_batch(self, now_ns)
        if batch is not None:
            _believe(self)
        return batch

    return [(NodeJournal, "take_batch", changed)]


@drill_by_chance(range(1, 4))
def drill_answer_before_write(seed: int) -> None:
    """The machine of a lone node with a slow disk loses its power at the moment in which a client has its grant."""
    cluster, _ = holding(1, "disk", seed=seed)
    (node,) = cluster.simulation.nodes
    disk_of(node).slow_ns = S
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=TTL_MS)
    cluster.step(lambda: wanted.outcome == "held", 5)
    cluster.crash(node, power=True)
    cluster.run(0.5)
    node.start()
    cluster.run(5)


@mutant
def answer_ahead() -> list[Change]:
    """An answer leaves ahead of the write, with the news for copies."""

    def changed(self: NodeCore, *, now_ns: int) -> list[Effect]:
        journal = self._context.journal
        assert journal is not None
        _believe(journal)
        return self.take_effects(now_ns=now_ns)

    return [(NodeCore, "take_ahead", changed)]


@drill_by_chance(range(1, 4))
def drill_answer_ahead(seed: int) -> None:
    """A lone node is killed in the middle of the write of a grant."""
    cluster, _ = holding(1, "process", seed=seed)
    (node,) = cluster.simulation.nodes
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)
    disk_of(node).tears = True
    demand_kept(cluster, wanted)


@mutant
def sync_skipped() -> list[Change]:
    """The files are only written, and count as synced."""
    perform = Journal.perform

    def changed(self: Journal, point: SyncPoint) -> None:
        perform(self, point._replace(parts=[], has_new_names=False))

    return [(Journal, "perform", changed)]


@drill_by_chance(range(1, 4))
def drill_sync_skipped(seed: int) -> None:
    """All machines of a cluster lose their power while locks are held."""
    cluster, held = holding(2, "disk", seed=seed)
    nodes = cluster.simulation.nodes
    for node in nodes:
        cluster.crash(node, power=True)
    cluster.run(0.5)
    for node in nodes:
        node.start()
    demand_kept(cluster, held)


@mutant
def failed_sync_tried_again() -> list[Change]:
    """A sync that has failed is tried again, and its success then counts for everything before."""
    return [
        (Journal, "fail", lambda self, error: str(error)),
        (Journal, "begin_rewrite", lambda self: None),
        (NodeCore, "journal_lost", lambda self, reason, now_ns: None),
        (NodeCore, "rewrite", lambda self, now_ns: None),
    ]


@drill_by_chance(range(1, 4))
def drill_failed_sync_tried_again(seed: int) -> None:
    """A disk fails for a moment while a lock is asked for. Later the machine loses its power."""
    cluster, _ = holding(1, "disk", seed=seed)
    (node,) = cluster.simulation.nodes
    disk_of(node).fails = True
    tasks = [cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)]
    cluster.run(0.2)
    disk_of(node).heal()
    tasks.append(cluster.simulation.clients[1].take(cluster.names(3)[2], ttl_ms=30_000))
    cluster.wait(lambda: all(task.outcome == "held" for task in tasks), 10)
    cluster.crash(node, power=True)
    cluster.run(0.5)
    node.start()
    demand_kept(cluster, tasks[0])


@mutant
def lost_mutation_acknowledged() -> list[Change]:
    """A mutation whose batch is lost counts as durable once a later batch is, whatever that has of its slot."""

    def changed(self: JournalStream) -> None:
        self.is_begun = False

    return [(JournalStream, "lost", changed)]


@drill_by_chance(range(1, 4))
def drill_lost_mutation_acknowledged(seed: int) -> None:
    """A disk is full while locks are asked for. Once there is room, the node is killed as soon as a client has one."""
    cluster, _ = holding(1, "process", seed=seed)
    (node,) = cluster.simulation.nodes
    disk_of(node).is_full = True
    client = cluster.simulation.clients[1]
    wanted = [client.take(name, ttl_ms=30_000) for name in cluster.many_names(20)]
    cluster.step(lambda: bool(cluster.simulation.world.stats["journal_failed"]), 5)
    cluster.run(0.05)
    disk_of(node).heal()
    cluster.step(lambda: any(task.outcome == "held" for task in wanted), 5)
    got = [task for task in wanted if task.outcome == "held"]
    cluster.crash(node)
    cluster.run(0.5)
    node.start()
    for task in got:
        demand_kept(cluster, task)


@mutant
def failed_beginning_closed_in_order() -> list[Change]:
    """A life whose first sync has failed closes its journal as if it had been written."""
    fail = Journal.fail

    def changed(self: Journal, error: Exception) -> str:
        return str(error) if self._number == 1 else fail(self, error)

    return [(Journal, "fail", changed)]


@drill_by_chance(range(1, 9))
def drill_failed_beginning_closed_in_order(seed: int) -> None:
    """The disk of a node fails for a moment while that starts. Then the machine loses its power."""
    cluster, held = holding(1, "disk", seed=seed)
    (node,) = cluster.simulation.nodes
    cluster.crash(node)
    node.start()
    disk_of(node).fails = True
    cluster.step(lambda: bool(disk_of(node).failures), 1)
    disk_of(node).heal()
    cluster.step(lambda: not node.alive, 1)
    disk_of(node).lose_power()
    node.start()
    demand_kept(cluster, held)


@mutant
def bytes_after_failed_sync_believed() -> list[Change]:
    """Bytes that can be read count as durable after a sync, though a former life's sync of them has failed."""
    found = found_segments

    def changed(reading: JournalContent, stored: int) -> list[FoundSegment]:
        return [each._replace(is_doubtful=False) for each in found(reading, stored)]

    return [(journal, "found_segments", changed)]


@drill_by_chance(range(1, 4))
def drill_bytes_after_failed_sync_believed(seed: int) -> None:
    """A disk fails while a lock is asked for, and the node is killed. Soon after its start the power is lost."""
    cluster, _ = holding(1, "disk", seed=seed)
    (node,) = cluster.simulation.nodes
    disk_of(node).fails = True
    cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)
    cluster.step(lambda: bool(cluster.simulation.world.stats["journal_failed"]), 5)
    cluster.crash(node)
    disk_of(node).heal()
    node.start()
    cluster.run(0.1)
    cluster.crash(node, power=True)
    cluster.run(0.5)
    node.start()
    cluster.run(1)


@mutant
def position_before_journaled() -> list[Change]:
    """A copy acknowledges what it has taken in, whether or not its journal has it."""
    return [(NodeJournal, "number_of_positions", lambda self, positions: self.number_of_state)]


@drill_by_chance(range(1, 4))
def drill_position_before_journaled(seed: int) -> None:
    """Two machines lose their power just after a grant. The backup's disk is slow, and the primary's is gone."""
    cluster, _ = holding(2, "disk", seed=seed)
    primary, backup = cluster.primary(), cluster.backup()
    disk_of(backup).slow_ns = S // 2
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)
    cluster.step(lambda: wanted.outcome == "held", 5)
    cluster.crash(primary, power=True)
    cluster.crash(backup, power=True)
    cluster.run(0.5)
    backup.start()
    cluster.run(10)


@mutant
def state_before_journaled() -> list[Change]:
    """A copy acknowledges by the newest state that it knows, whether or not its journal has that."""
    late = Copies.acknowledge_late

    def number_of_positions(self: NodeJournal, positions: list[Position]) -> int:
        before, self.number_of_state = self.number_of_state, 0
        try:
            return number_of(self, positions)
        finally:
            self.number_of_state = before

    def acknowledge_late(self: Copies, now_ns: int) -> None:
        journal = self._context.journal
        assert journal is not None
        before, journal.version = journal.version, self._context.state.version
        try:
            late(self, now_ns)
        finally:
            journal.version = before

    number_of = NodeJournal.number_of_positions
    return [
        (NodeJournal, "number_of_positions", number_of_positions),
        (Copies, "acknowledge_late", acknowledge_late),
    ]


@drill_by_chance(range(1, 5))
def drill_state_before_journaled(seed: int) -> None:
    """A primary becomes the backup of its backup and acknowledges that at once, but its disk is slow.

    Then its machine loses its power. The next life hears of the former reign from a coordinator that is late, and then
    of a reign of its own, while the former backup is cut off.
    """
    cluster, _ = holding(2, "disk", seed=seed)
    coordinator, former, successor = cluster.coordinator, cluster.primary(), cluster.backup()
    cluster.crash(coordinator)
    older = cluster.decide(lambda slot, version: slot)
    for node in (former, successor):
        cluster.tell_again(node, older)
    cluster.run(0.1)
    disk_of(former).slow_ns = 20 * S
    swapped = cluster.decide(
        lambda slot, version: replace(
            slot, since=version, primary=_life(successor), backup=Copy(_life(former), version)
        )
    )
    for node in (former, successor):
        cluster.tell_again(node, swapped)
    cluster.run(0.6)  # until a second message has come, so that the first one gets its lease
    cluster.crash(former, power=True)
    for other in (former, coordinator):
        cluster.cut(successor, other, 60)
    disk_of(former).heal()
    former.start()
    cluster.tell_again(former, older)
    heir = _life(former)
    cluster.decide(lambda slot, version: replace(slot, since=version, primary=heir, backup=None), heir)
    coordinator.start()
    cluster.run(3)


@mutant
def late_acknowledgement_by_older_state() -> list[Change]:
    """A copy gives its lease late by the state that its journal has, although it knows a newer one."""
    take_late = HeldAcks.take_late

    def changed(self: HeldAcks, journal_version: Version, backup_lease_ns: int, now_ns: int) -> Any:
        found = []
        for held in take_late(self, VERSION_MAX, backup_lease_ns, now_ns):
            given = copy(held)
            given.version = min(held.version, journal_version)
            found.append(given)
        return found

    return [(HeldAcks, "take_late", changed)]


@drill
def drill_late_acknowledgement_by_older_state() -> None:
    """A backup takes over, cannot write its journal, and hears from the former primary, which has not heard of that."""
    cluster, _ = holding(2, "process")
    former, successor, senders = cluster.primary(), cluster.backup(), [""]

    def heard(sender: str, receiver: str, message: object) -> None:
        del receiver
        if isinstance(message, Replicate):
            senders.append(sender)

    cluster.world.heard = heard
    cluster.crash(cluster.coordinator)
    cluster.step(lambda: senders[-1] == former.name, 5)
    cluster.step(lambda: senders[-1] == successor.name, 5)
    cluster.run(0.01)  # until that is acknowledged; now it says nothing for a while
    disk_of(successor).is_full = True
    cluster.tell_again(
        successor,
        cluster.decide(
            lambda slot, version: replace(slot, since=version, primary=_life(successor), backup=None)
        ),
    )
    for name in cluster.names(6)[1:]:  # each is sent to the copy at once
        cluster.simulation.clients[0].take(name, ttl_ms=TTL_MS)
        cluster.run(0.06)
    cluster.silence(successor, former, 60)  # which would pass the newer state on
    cluster.run(10)


@mutant
def acknowledges_without_journal() -> list[Change]:
    """A copy whose disk fails goes on to give leases, however long it has not had a position to go with them."""
    take_late = HeldAcks.take_late

    def changed(self: HeldAcks, journal_version: Version, backup_lease_ns: int, now_ns: int) -> Any:
        del backup_lease_ns
        return take_late(self, journal_version, 1_000 * S, now_ns)

    return [(HeldAcks, "take_late", changed)]


@drill
def drill_acknowledges_without_journal() -> None:
    """The disk of a backup is full, and a client asks for a lock."""
    cluster, _ = holding(2, "process")
    disk_of(cluster.backup()).is_full = True
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)
    cluster.run(4)
    cluster.demand(wanted.outcome == "held", "P7", "a copy whose disk is full holds up grants")


@mutant
def acknowledgements_of_two_states_folded() -> list[Change]:
    """Acknowledgements that wait for the journal leave as one, whichever states they were given by."""

    def changed(waiting: list[held_acks.HeldAck]) -> list[held_acks.HeldAck]:
        for earlier, later in pairwise(waiting):
            later.take_positions(earlier)
        return waiting[-1:]

    return [(held_acks, "_one_per_version", changed)]


@drill
def drill_acknowledgements_of_two_states_folded() -> None:
    """A primary returns while its backup's disk is full, and the backup learns late that it is one once more."""
    cluster, _ = holding(2, "process")
    coordinator, primary, backup = cluster.coordinator, cluster.primary(), cluster.backup()
    cluster.be_patient()
    cluster.crash(primary)
    cluster.silence(coordinator, backup, 60)
    disk_of(backup).is_full = True
    cluster.simulation.clients[0].take(cluster.name_at(backup), ttl_ms=30_000)
    cluster.wait(lambda: cluster.world.stats["journal_failed"], 5)
    primary.start()
    cluster.wait(lambda: cluster.reigns(primary), 5)
    cluster.run(0.1)  # the news of its reign is there, and the backup understands nothing of it
    cluster.silence(primary, backup, 60)
    cluster.unsilence(coordinator, backup)
    cluster.wait(lambda: cluster.knows(backup), 5)
    cluster.run(0.6)  # from a third of its lease on, a backup that waits for its journal says nothing
    cluster.unsilence(primary, backup)
    cluster.run(0.05)
    disk_of(backup).heal()
    cluster.run(10)
    cluster.demand(cluster.is_copied(primary), "P7", "a copy never hears again of what it did not understand")


# ----------------------------------------------------------------------- kept until it is written again


@mutant
def deleted_before_rewritten() -> list[Change]:
    """Segments are deleted as soon as everything begins to be written again."""
    begin_rewrite = Journal.begin_rewrite

    def changed(self: Journal) -> None:
        begin_rewrite(self)
        self._obsolete = tuple(self._names[:-1])

    return [(Journal, "begin_rewrite", changed)]


@drill
def drill_deleted_before_rewritten() -> None:
    """A node dies while it writes everything again."""
    cluster, held = holding(1, "disk")
    cluster.hold(cluster.simulation.clients[0], *cluster.many_names(30), ttl_ms=30_000)
    (node,) = cluster.simulation.nodes
    assert node.journal is not None
    segments = set(disk_of(node).picture().files)
    node.journal.begin_rewrite()
    node.wake(0)
    cluster.run(0.01)
    new = set(disk_of(node).picture().files) - segments
    assert len(new) == 1, "the rewrite has begun, and is not over"
    cluster.crash(node)
    cluster.run(0.1)
    node.start()
    demand_kept(cluster, held)
