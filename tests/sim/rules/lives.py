"""Rules about a node's lives: what a new one may vouch for, and what it keeps of the former ones."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lockring.core.coordinator import core as coordinator_core
from lockring.core.coordinator.heirs import Heirs
from lockring.core.coordinator.join_checks import not_the_latest
from lockring.core.node.core import NodeCore
from lockring.core.node.former_lives import FormerLives
from lockring.journal import codec, incarnations, records, verdict
from lockring.journal.journal import Journal
from tests.sim.framework.disk import SimFiles
from tests.sim.framework.journal_shell import Durability
from tests.sim.framework.node_shell import NodeShell
from tests.sim.framework.world import MS
from tests.sim.rules.held import demand_kept, disk_of, holding
from tests.sim.rules.switches import Change, drill, drill_by_chance, mutant
from tests.sim.scenarios.scenario import Scenario


def _one_more_node(cluster: Scenario, node_id: str = "") -> NodeShell:
    cluster.simulation.plan = cluster.simulation.plan._replace(late_nodes=1)
    cluster.simulation.add_node(node_id)
    return cluster.simulation.nodes[-1]


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
    older = disk_of(node).picture()
    cluster.hold(cluster.simulation.clients[0], cluster.names(2)[1], ttl_ms=30_000)
    cluster.run(2)  # until the position file is another one
    cluster.crash(node)
    disk_of(node).put_back(older, style=style)
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
    disk_of(node).slow_ns = 200 * MS
    cluster.run(0.5)
    older = disk_of(node).picture()
    for name in cluster.many_names(60):
        cluster.simulation.clients[1].take(name, ttl_ms=30_000)
        cluster.run(0.08)
    cluster.crash(node)
    disk_of(node).put_back(older, style="into the files")
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
    disk_of(node).spoil_last_record()
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
    disk_of(node).overwrite(held.ticket.session.id.encode(), b"0")
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


@mutant
def next_life_by_count() -> list[Change]:
    """A life whose clock gives it no later incarnation takes the one after the last that is known."""
    next_incarnation = incarnations.next_incarnation

    def changed(by_clock: Any, chance: int, **known: Any) -> Any:
        del chance
        return next_incarnation(by_clock, 0, **known)

    return [(incarnations, "next_incarnation", changed)]


@drill
def drill_next_life_by_count() -> None:
    """The clock of a lone node is set back. Its second life dies, and an older copy of its journal is put back."""
    cluster, _ = holding(1, "process")
    (node,) = cluster.simulation.nodes
    cluster.set_back_the_clock(node)
    older = disk_of(node).picture()
    cluster.crash(node)
    node.start()
    cluster.wait(lambda: not cluster.simulation.unserved(), 60)
    first, second = cluster.simulation.clients[:2]
    name = cluster.names(2)[1]
    cluster.hold(first, name, ttl_ms=30_000)
    cluster.crash(node)
    disk_of(node).put_back(older, style="new times")
    node.start()
    second.take(name, ttl_ms=30_000)
    cluster.run(10)
