"""Rules about journals: what is written before it is answered for, and which former lives a new one may go on from."""

from __future__ import annotations

from copy import copy
from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from lockring.cluster_state import Copy, Replica
from lockring.core.coordinator import VERSION_MAX
from lockring.core.coordinator import core as coordinator_core
from lockring.core.coordinator.heirs import Heirs
from lockring.core.coordinator.join_checks import not_the_latest
from lockring.core.effects import Effect
from lockring.core.node import held_acks
from lockring.core.node.copies import Copies
from lockring.core.node.core import NodeCore
from lockring.core.node.former_lives import FormerLives
from lockring.core.node.held_acks import HeldAcks
from lockring.core.node.journal import NodeJournal
from lockring.ids import Version
from lockring.journal import codec, journal, records, verdict
from lockring.journal.found import FoundSegment, found_segments
from lockring.journal.journal import Journal
from lockring.journal.reading import JournalContent
from lockring.journal.sync_point import SyncPoint
from lockring.protocol import Position, Replicate
from tests.sim.framework.disk import SimDisk, SimFiles
from tests.sim.framework.journal_shell import Durability
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.world import MS, S
from tests.sim.rules.held import demand_kept, holding
from tests.sim.rules.switches import Change, drill, drill_by_chance, mutant
from tests.sim.scenarios.scenario import TTL_MS, Scenario

# ----------------------------------------------------------------------- situations


def _disk_of(node: NodeShell) -> SimDisk:
    assert node.disk is not None
    return node.disk


def _life(node: NodeShell) -> Replica:
    assert node.core is not None
    return node.core.replica


def _one_more_node(cluster: Scenario, node_id: str = "") -> NodeShell:
    cluster.simulation.plan = cluster.simulation.plan._replace(late_nodes=1)
    cluster.simulation.add_node(node_id)
    return cluster.simulation.nodes[-1]


# ----------------------------------------------------------------------- written before it is answered for


@mutant
def answer_before_write() -> list[Change]:
    """A grant is answered once it is handed to the journal, before that has it."""
    take_batch = NodeJournal.take_batch

    def changed(self: NodeJournal, now_ns: int) -> Any:
        batch = take_batch(self, now_ns)
        if batch is not None:
            for stream, index in self._under_way[-1][1]:
                stream.acked = index
        return batch

    return [(NodeJournal, "take_batch", changed)]


@drill_by_chance(range(1, 4))
def drill_answer_before_write(seed: int) -> None:
    """The machine of a lone node with a slow disk loses its power at the moment in which a client has its grant."""
    cluster, _ = holding(1, "disk", seed=seed)
    (node,) = cluster.simulation.nodes
    _disk_of(node).slow_ns = S
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
        for _, reached in journal._under_way:
            for stream, index in reached:
                stream.acked = index
        return self.take_effects(now_ns=now_ns)

    return [(NodeCore, "take_ahead", changed)]


@drill_by_chance(range(1, 4))
def drill_answer_ahead(seed: int) -> None:
    """A lone node is killed in the middle of the write of a grant."""
    cluster, _ = holding(1, "process", seed=seed)
    (node,) = cluster.simulation.nodes
    wanted = cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)
    _disk_of(node).tears = True
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
    _disk_of(node).fails = True
    tasks = [cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)]
    cluster.run(0.2)
    _disk_of(node).heal()
    tasks.append(cluster.simulation.clients[1].take(cluster.names(3)[2], ttl_ms=30_000))
    cluster.wait(lambda: all(task.outcome == "held" for task in tasks), 10)
    cluster.crash(node, power=True)
    cluster.run(0.5)
    node.start()
    demand_kept(cluster, tasks[0])


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
    _disk_of(node).fails = True
    cluster.step(lambda: bool(_disk_of(node).failures), 1)
    _disk_of(node).heal()
    cluster.step(lambda: not node.alive, 1)
    _disk_of(node).lose_power()
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
    _disk_of(node).fails = True
    cluster.simulation.clients[1].take(cluster.names(2)[1], ttl_ms=30_000)
    cluster.step(lambda: bool(cluster.simulation.world.stats["journal_failed"]), 5)
    cluster.crash(node)
    _disk_of(node).heal()
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
    _disk_of(backup).slow_ns = S // 2
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
    _disk_of(former).slow_ns = 20 * S
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
    _disk_of(former).heal()
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
        for primary, held in take_late(self, VERSION_MAX, backup_lease_ns, now_ns):
            given = copy(held)
            given.version = min(held.version, journal_version)
            found.append((primary, given))
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
    _disk_of(successor).is_full = True
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
    _disk_of(cluster.backup()).is_full = True
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
    _disk_of(backup).is_full = True
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
    _disk_of(backup).heal()
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
    segments = set(_disk_of(node).picture().files)
    node.journal.begin_rewrite()
    node.wake(0)
    cluster.run(0.01)
    new = set(_disk_of(node).picture().files) - segments
    assert len(new) == 1, "the rewrite has begun, and is not over"
    cluster.crash(node)
    cluster.run(0.1)
    node.start()
    demand_kept(cluster, held)


# ----------------------------------------------------------------------- what may be vouched for


@mutant
def testimony_without_lock() -> list[Change]:
    """A process takes a former life for over without having its directory's lock."""
    return [(SimFiles, "_may_lock", lambda self: True)]


@drill
def drill_testimony_without_lock() -> None:
    """A node that is cut off from the coordinator works on while a second process starts on its directory."""
    cluster, _ = holding(1, "process")
    (node,) = cluster.simulation.nodes
    cluster.cut(node, cluster.coordinator, 60)
    second = _one_more_node(cluster, node.name)
    second.crash()
    second.disk = node.disk
    second.start()
    cluster.run(15)


@mutant
def older_copy_served() -> list[Change]:
    """The files of a journal are not compared with those that the node wrote."""
    return [
        (verdict, "_reason_against_files", lambda *what: ""),
        (verdict, "_reason_against_position", lambda *what: ""),
    ]


@drill
def drill_older_copy_served() -> None:
    """The directory of a node that has died is replaced by a copy from before the latest grant."""
    _restore_an_older_copy("new times")


@mutant
def altered_copy_served() -> list[Change]:
    """It does not matter whether the files of a journal were changed since the node wrote them."""
    return [
        (verdict, "_reason_against_changes", lambda *what: ""),
        (verdict, "_reason_against_position", lambda *what: ""),
    ]


@drill_by_chance(range(1, 5))
def drill_altered_copy_served(seed: int) -> None:
    """An older copy of the directory is written into the files of a node that has died."""
    _restore_an_older_copy("into the files", seed=seed)


def _restore_an_older_copy(style: str, *, seed: int = 1) -> None:
    cluster, _ = holding(1, "process", seed=seed)
    (node,) = cluster.simulation.nodes
    older = _disk_of(node).picture()
    cluster.hold(cluster.simulation.clients[0], cluster.names(2)[1], ttl_ms=30_000)
    cluster.run(2)  # until the position file is another one
    cluster.crash(node)
    _disk_of(node).put_back(older, style=style)
    node.start()
    cluster.run(5)


@mutant
def position_not_renewed() -> list[Change]:
    """The position file stays the one that it was when the life began, and is only written and synced."""
    return [(Journal, "renew_position", lambda self: self.sync_position())]


@drill_by_chance(range(1, 5))
def drill_position_not_renewed(seed: int) -> None:
    """An older copy is written into the files of a node whose slow disk has had a sync under way all the time."""
    cluster, _ = holding(1, "disk", seed=seed)
    (node,) = cluster.simulation.nodes
    _disk_of(node).slow_ns = 200 * MS
    cluster.run(0.5)
    older = _disk_of(node).picture()
    for name in cluster.many_names(60):
        cluster.simulation.clients[1].take(name, ttl_ms=30_000)
        cluster.run(0.08)
    cluster.crash(node)
    _disk_of(node).put_back(older, style="into the files")
    node.start()
    cluster.run(5)


@mutant
def answers_not_marked() -> list[Change]:
    """The position file says nothing of the last answers: each record vouches for those before it, and that is all."""
    return [(Journal, "mark", lambda self: None)]


@drill
def drill_answers_not_marked() -> None:
    """The last record of a node that has died is damaged."""
    _spoil_the_last_record("process", power=False)


@mutant
def mark_not_synced() -> list[Change]:
    """The position file's word on the last answers is written, and not synced."""
    replace_position = Journal._replace_position

    def changed(self: Journal, *, is_synced: bool) -> None:
        del is_synced
        replace_position(self, is_synced=False)

    return [(Journal, "sync_position", lambda self: None), (Journal, "_replace_position", changed)]


@drill_by_chance(range(1, 9))
def drill_mark_not_synced(seed: int) -> None:
    """The machine of a lone node loses its power, and with that the last record is damaged."""
    _spoil_the_last_record("disk", power=True, seed=seed)


def _spoil_the_last_record(durability: Durability, *, power: bool, seed: int = 1) -> None:
    cluster, _ = holding(1, durability, seed=seed)
    (node,) = cluster.simulation.nodes
    cluster.hold(cluster.simulation.clients[0], cluster.names(2)[1], ttl_ms=30_000)
    cluster.run(2)
    cluster.crash(node, power=power)
    _disk_of(node).spoil_last_record()
    cluster.run(0.5)
    node.start()
    cluster.run(5)


@mutant
def durability_overrated() -> list[Change]:
    """A journal whose answers waited for writes only is vouched for after a loss of power, too."""
    return [(verdict, "_reason_against_host", lambda *what: "")]


@drill_by_chance(range(1, 17))
def drill_durability_overrated(seed: int) -> None:
    """The machine of a lone node loses its power, and answers have waited for writes only."""
    cluster, _ = holding(1, "process", seed=seed)
    (node,) = cluster.simulation.nodes
    cluster.crash(node, power=True)
    cluster.run(0.5)
    node.start()
    cluster.run(5)


@mutant
def torn_record_applied() -> list[Change]:
    """Checksums are not looked at: what stands in a file is taken as it is."""
    places = ((codec, "crc32"), (records, "crc32"), (records, "_crc32"))
    return [(module, name, lambda *what: 0) for module, name in places]


@drill
def drill_torn_record_applied() -> None:
    """A sector of a record is lost while its node is down: of one session's name, zeros are left."""
    cluster, held = holding(1, "process")
    (node,) = cluster.simulation.nodes
    assert held.ticket is not None
    cluster.run(0.1)
    cluster.crash(node)
    _disk_of(node).overwrite(held.ticket.session.id.encode(), b"0")
    node.start()
    cluster.run(5)


# ----------------------------------------------------------------------- what a former life leaves


@mutant
def heir_without_word() -> list[Change]:
    """Each later life of a node counts as the heir of its former ones, whether or not it vouches for them."""
    add = Heirs.add

    def added(self: Heirs, heir: Any, former: Any) -> None:
        add(self, heir, [*former, heir.incarnation])

    def heir_of(self: Heirs, former: Any) -> Any:
        later = (each for each in self.lives() if each.node == former.node)
        return next((each for each in later if each.incarnation > former.incarnation), None)

    return [(Heirs, "add", added), (Heirs, "heir_of", heir_of)]


@drill
def drill_heir_without_word() -> None:
    """A lone node without a journal restarts while a client holds a lock."""
    cluster, _ = holding(1, "none")
    (node,) = cluster.simulation.nodes
    cluster.crash(node)
    node.start()
    cluster.run(5)


@mutant
def former_life_is_running() -> list[Change]:
    """A former life counts as running while its connection stands, whatever its successor says."""

    def changed(join: Any, *rest: Any) -> Any:
        return not_the_latest(replace(join, former=[]), *rest)

    return [(coordinator_core, "not_the_latest", changed)]


@drill
def drill_former_life_is_running() -> None:
    """The machine of a lone node is off for a moment, and its connection to the coordinator has not ended."""
    cluster, _ = holding(1, "disk")
    (node,) = cluster.simulation.nodes
    cluster.crash(node, power=True)
    node.start()
    cluster.run(1)
    cluster.demand(
        not cluster.simulation.unserved(), "P7", "a node that is back waits for its former life's silence"
    )


@mutant
def former_promise_forgotten() -> list[Change]:
    """A new life does not keep the promises that its former lives have given as copies."""
    return [(FormerLives, "bound_until_ns", lambda self, number, backup_lease_ms: -(1 << 62))]


@drill
def drill_former_promise_forgotten() -> None:
    """A backup restarts just after it has acknowledged its primary, which is then cut off from all but its clients."""
    cluster, _ = holding(2, "process")
    primary, backup = cluster.primary(), cluster.backup()
    for other in (backup, cluster.coordinator):
        cluster.cut(primary, other, 60)
    cluster.crash(backup)
    cluster.run(0.02)
    backup.start()
    cluster.run(10)


@mutant
def journal_of_another_reign() -> list[Change]:
    """A life that a state names as primary counts as having served, whichever reign its journal's content is of."""
    look = FormerLives.look

    def changed(self: FormerLives, slot: Any, after: Any) -> None:
        look(self, slot, after)
        primary = after.primary
        self.restored[slot.number] = primary is not None and self._is_former(primary)

    return [(FormerLives, "look", changed)]


@drill
def drill_journal_of_another_reign() -> None:
    """A backup takes over from a primary that is cut off, and restarts before its promise to that one is over."""
    cluster, _ = holding(2, "process")
    primary, backup = cluster.primary(), cluster.backup()
    for other in (backup, cluster.coordinator):
        cluster.cut(primary, other, 60)
    cluster.notice_the_end(backup, primary)
    cluster.step(lambda: cluster.primary() is backup, 5)
    cluster.run(0.05)
    assert not cluster.reigns(backup)
    cluster.crash(backup)
    cluster.run(0.02)
    backup.start()
    cluster.run(10)


@mutant
def journal_of_another_cluster() -> list[Change]:
    """A node joins whichever cluster its coordinator has, and drops what its journal has of another one."""
    join_facts, refuses = NodeCore.join_facts, FormerLives.refuses

    def changed(self: NodeCore) -> Any:
        facts = join_facts(self)
        return facts if self.state.cluster else facts._replace(cluster="", version=0, former=())

    def changed_refuses(self: FormerLives, state: Any) -> bool:
        return self.seen is not None and state.cluster == self.seen.cluster and refuses(self, state)

    return [(NodeCore, "join_facts", changed), (FormerLives, "refuses", changed_refuses)]


@drill
def drill_journal_of_another_cluster() -> None:
    """A lone node is started with the coordinator of another cluster by mistake, and then with its own again."""
    cluster, held = holding(1, "process")
    (node,) = cluster.simulation.nodes
    coordinator, store = cluster.coordinator, cluster.simulation.store
    node.has_patient_operator = True
    for client in cluster.simulation.clients:
        for process in (node, coordinator):
            cluster.cut(client, process, 6)
    for process in (node, coordinator):
        cluster.crash(process)
    own = store.state
    assert own is not None
    store.state = replace(
        own,
        cluster="another",
        members={},
        slots=tuple(replace(slot, primary=None, backup=None, learner=None) for slot in own.slots),
    )
    coordinator.start()
    node.start()
    cluster.run(2)
    for process in (node, coordinator):
        cluster.crash(process)
    store.state = own
    coordinator.start()
    node.start()
    demand_kept(cluster, held)
