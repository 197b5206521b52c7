"""A node's journal: nothing is answered before it is in there, and a new life goes on from it."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import pytest

from lockring.core.effects import Effect, Send
from lockring.core.journal import EmptySlot, JournalFound, LifeBegan
from lockring.core.node import JoinFacts, NodeCore
from lockring.core.node.journal import START_PAUSE_NS
from lockring.core.timing import up
from lockring.errors import WrongCluster
from lockring.ids import SessionId
from lockring.names import GROUP_PREFIX
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    FollowGroup,
    GrantReply,
    KeepaliveReply,
    ListedAcquisition,
    MemberRecord,
    Mode,
    Put,
    ReleaseReply,
    Replicate,
    SlotList,
    SlotRequestKind,
    Snapshot,
    Tail,
    TroubleNotice,
    Verdict,
    View,
    Welcome,
    payload_of,
)
from lockring.slots import slot_of
from tests.unit.core.node.world import MS, NAMES, Nodes, S, of

E = TypeVar("E")
GROUP = GROUP_PREFIX + "g"


def alone(*, at_once: bool = True) -> Nodes:
    nodes = Nodes("A", journals=True)
    nodes.assign("A")
    nodes.advance(200 * MS)
    nodes.disks["A"].at_once = at_once
    return nodes


def restart(nodes: Nodes, name: str = "A") -> None:
    """Kill a node and start it again: it learns the state that names its former life, and then its own."""
    nodes.crash(name)
    nodes.restart(name)
    nodes.tell()
    nodes.inherit(name)
    nodes.advance(100 * MS)


# ---------------------------------------------------------------------- writing


def test_the_first_batch_of_a_life_says_that_it_has_begun() -> None:
    nodes = Nodes("A", journals=True)
    first = nodes.disks["A"].batches[0]
    assert first.entries == [LifeBegan("A", 1)]
    assert first.is_urgent
    assert first.ends_rewrite


def test_a_grant_is_answered_once_the_journal_has_it() -> None:
    nodes = alone(at_once=False)
    client = nodes.client("A", "s")
    assert client.acquire("x", 1) == []
    nodes.disks["A"].sync(nodes.cores["A"], nodes.now)
    nodes.settle()
    (grant,) = of(GrantReply, client.inbox)
    (tail,) = of_entries(nodes, Tail)
    assert tail.mutations[0].generation == grant.generation


def of_entries(nodes: Nodes, kind: type[E], name: str = "A") -> list[E]:
    return [entry for each in nodes.disks[name].batches for entry in each.entries if isinstance(entry, kind)]


def test_a_release_waits_for_more_to_write_but_not_for_long() -> None:
    nodes = alone()
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    before = len(nodes.disks["A"].batches)
    client.release("x", 1)
    assert len(nodes.disks["A"].batches) == before
    nodes.advance(20 * MS, step_ns=5 * MS)
    assert len(nodes.disks["A"].batches) == before + 1
    assert not nodes.disks["A"].batches[-1].is_urgent


def test_a_restarted_node_goes_on_with_its_locks_at_once_and_under_the_same_tokens() -> None:
    nodes = alone()
    client = nodes.client("A", "s")
    (grant,) = of(GrantReply, client.acquire("x", 1))
    restart(nodes)
    assert nodes.client("A", "t").acquire("x", 1) == []
    again = nodes.client("A", "s")
    (same,) = of(GrantReply, again.acquire("x", 1))
    assert same.generation == grant.generation
    assert of(GrantReply, again.acquire("y", 2))
    nodes.cores["A"].check_invariants()


def test_a_life_vouches_for_all_lives_before_it_as_long_as_the_state_names_them() -> None:
    nodes = alone()
    nodes.crash("A")
    core = nodes.restart("A")
    facts = core.join_facts()
    assert (facts.cluster, facts.former) == ("c", (1,))
    assert facts.version == nodes.state.version
    nodes.crash("A")
    assert nodes.restart("A").join_facts().former == (1, 2)
    nodes.tell()
    assert nodes.cores["A"].join_facts().former == (1,)
    nodes.inherit("A")
    assert nodes.cores["A"].join_facts().former == ()


# ---------------------------------------------------------------------- a disk that fails


def test_grants_wait_for_a_disk_that_fails_while_renewals_and_releases_go_on() -> None:
    nodes = alone()
    core, disk = nodes.cores["A"], nodes.disks["A"]
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    core.journal_lost("No space left on device", now_ns=nodes.now)
    nodes.advance(200 * MS)
    trouble = of(TroubleNotice, client.inbox)[-1]
    assert (trouble.reason, trouble.all) == ("journal", True)
    assert "No space left on device" in trouble.text
    assert client.acquire("y", 2) == []
    (reply,) = of(KeepaliveReply, client.keep(count=2, digest=digest_of(core, "s")))
    assert reply.agreed
    assert [each.dropped for each in of(ReleaseReply, client.release("x", 1))] == [True]
    written = len(disk.batches)
    core.journal_lost("No space left on device", now_ns=nodes.now)
    nodes.advance(2 * S)
    assert len(disk.batches) == written
    assert of(GrantReply, client.inbox)[1:] == []
    core.rewrite(now_ns=nodes.now)
    nodes.settle()
    assert [grant.request for grant in of(GrantReply, client.inbox)[1:]] == [2]
    nodes.advance(200 * MS)
    assert of(TroubleNotice, client.inbox)[-1].reason != "journal"


def digest_of(core: NodeCore, session: str) -> int:
    return core.sessions.by_id[SessionId(session)].totals.digest


def test_memory_for_mutations_is_bounded_while_the_disk_is_away() -> None:
    nodes = alone()
    core = nodes.cores["A"]
    core.journal_lost("disk full", now_ns=nodes.now)
    client = nodes.client("A", "s")
    for acquisition in range(1, 100):
        client.acquire("x", acquisition)
        client.release("x", acquisition)
    reign = core.slots[slot_of("x")].reign
    assert reign is not None
    assert reign._log == []
    core.check_invariants()


def test_what_a_disk_has_lost_is_not_relied_on() -> None:
    nodes = alone(at_once=False)
    disk = nodes.disks["A"]
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    lost = disk.batches[-1].number
    nodes.cores["A"].journal_lost("disk full", now_ns=nodes.now)
    nodes.cores["A"].journaled(lost, now_ns=nodes.now)
    nodes.settle()
    assert of(GrantReply, client.inbox) == []


def test_a_rewrite_says_again_that_former_lives_were() -> None:
    nodes = alone()
    nodes.crash("A")
    nodes.restart("A")
    nodes.crash("A")
    core = nodes.restart("A")
    nodes.tell()
    before = len(nodes.disks["A"].batches)
    core.rewrite(now_ns=nodes.now)
    nodes.settle()
    again = [entry for batch in nodes.disks["A"].batches[before:] for entry in batch.entries]
    assert [entry for entry in again if isinstance(entry, LifeBegan)] == [
        LifeBegan("A", 1),
        LifeBegan("A", 3),
    ]
    assert nodes.disks["A"].batches[-1].ends_rewrite


def test_a_new_life_serves_before_it_writes_again_what_the_former_one_has_written() -> None:
    nodes = alone()
    nodes.client("A", "s").acquire("x", 1)
    before = len(nodes.disks["A"].batches)
    restart(nodes)
    assert of(GrantReply, nodes.client("A", "t").acquire("y", 1))
    assert not any(each.ends_rewrite for each in nodes.disks["A"].batches[before:])
    nodes.advance(START_PAUSE_NS)
    assert any(each.ends_rewrite for each in nodes.disks["A"].batches[before:])


def test_the_end_of_a_life_takes_what_is_not_due_yet_with_the_ages_of_that_moment() -> None:
    nodes = alone()
    nodes.client("A", "s").acquire("x", 1)
    nodes.advance(300 * MS)
    core = nodes.cores["A"]
    core.rewrite(now_ns=nodes.now)
    batches = []
    while (batch := core.take_rest(now_ns=nodes.now)) is not None:
        batches.append(batch)
    assert [each.ends_rewrite for each in batches] == [False] * (len(batches) - 1) + [True]
    snapshots = [entry for each in batches for entry in each.entries if isinstance(entry, Snapshot)]
    assert [put.age_ms for each in snapshots for put in each.holders] == [300]


# ---------------------------------------------------------------------- a copy


def pair() -> Nodes:
    """A primary A and its backup B, both with journals that the test makes durable."""
    nodes = Nodes("A", "B", journals=True)
    nodes.assign("A", "B")
    nodes.advance(200 * MS)
    return nodes


def test_a_grant_waits_until_the_journal_of_its_copy_has_it() -> None:
    nodes = pair()
    nodes.disks["B"].at_once = False
    client = nodes.client("A", "s")
    assert client.acquire("x", 1) == []
    nodes.disks["B"].sync(nodes.cores["B"], nodes.now)
    nodes.settle()
    assert len(of(GrantReply, client.inbox)) == 1


def unwritten_grant(nodes: Nodes) -> list[Effect]:
    """Ask A for a lock, and return what leaves ahead of the batch that has the grant: A does not write it yet."""
    core, client = nodes.cores["A"], nodes.client("A", "s")
    core.receive(client.connection, Acquire(1, "s", 10_000, "s", 1, "x"), now_ns=nodes.now)
    batch = core.take_journal(now_ns=nodes.now)
    assert batch is not None
    assert [type(entry) for entry in batch.entries] == [Tail]
    return core.take_ahead(now_ns=nodes.now)


def test_a_copy_hears_of_a_grant_before_its_primary_has_written_it_and_once() -> None:
    nodes = pair()
    (ahead,) = unwritten_grant(nodes)
    assert isinstance(ahead, Send)
    assert isinstance(ahead.message, Replicate)
    (tail,) = ahead.message.streams
    assert isinstance(tail, Tail)
    assert [type(mutation) for mutation in tail.mutations] == [Put]
    assert nodes.cores["A"].take_effects(now_ns=nodes.now) == []


def test_nothing_leaves_a_lone_node_ahead_of_its_journal() -> None:
    assert unwritten_grant(alone()) == []


def test_a_primary_that_has_not_written_what_its_copy_has_goes_on_from_its_own_journal() -> None:
    nodes = pair()
    (ahead,) = unwritten_grant(nodes)
    assert isinstance(ahead, Send)
    nodes.cores["A"].check_invariants()
    nodes.deliver("B", nodes.replicas["A"], ahead.message)
    assert nodes.cores["B"].slots[slot_of("x")].table.find(SessionId("s"), 1) is not None
    restart(nodes)
    (grant,) = of(GrantReply, nodes.client("A", "t").acquire("x", 1))
    for core in nodes.cores.values():
        table = core.slots[slot_of("x")].table
        assert [holder.session.id for holder in table.holders()] == ["t"]
        assert table.highest == grant.generation


def test_a_lease_goes_on_while_the_journal_of_a_copy_is_slow() -> None:
    nodes = pair()
    nodes.disks["B"].at_once = False
    client = nodes.client("A", "s")
    for acquisition in range(1, 13):
        client.acquire(NAMES[acquisition], acquisition)
        nodes.advance(50 * MS)
    left_ns = nodes.cores["A"]._replicator.links[nodes.replicas["B"]].lease.until_ns - nodes.now
    assert left_ns > 1_700 * MS
    assert of(GrantReply, client.inbox) == []
    nodes.disks["B"].sync(nodes.cores["B"], nodes.now)
    nodes.settle()
    assert len(of(GrantReply, client.inbox)) == 12
    assert nodes.asks == []


def test_a_copy_whose_journal_fails_is_dropped_as_a_dead_one_is() -> None:
    nodes = pair()
    nodes.cores["B"].journal_lost("disk full", now_ns=nodes.now)
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    nodes.advance(2200 * MS)
    assert (SlotRequestKind.DROP, slot_of("x")) in [(kind, item.slot) for kind, item in nodes.asks]
    nodes.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    assert len(of(GrantReply, client.inbox)) == 1


def test_an_acknowledgement_waits_until_the_journal_has_the_state_by_which_it_is_given() -> None:
    nodes = pair()
    nodes.disks["B"].at_once = False
    lease = nodes.cores["A"]._replicator.links[nodes.replicas["B"]].lease
    nodes.slots(lambda slot: slot, 7)
    nodes.advance(500 * MS)
    assert lease.until_ns > nodes.now
    assert lease.version < nodes.state.version
    nodes.disks["B"].sync(nodes.cores["B"], nodes.now)
    nodes.advance(500 * MS)
    assert lease.version == nodes.state.version


def test_with_async_replication_a_grant_waits_for_the_journal_alone() -> None:
    nodes = Nodes("A", "B", journals=True)
    nodes.state = msgspec.structs.replace(nodes.state, replication="async")
    nodes.assign("A", "B")
    nodes.advance(200 * MS)
    for disk in nodes.disks.values():
        disk.at_once = False
    client = nodes.client("A", "s")
    assert client.acquire("x", 1) == []
    nodes.disks["A"].sync(nodes.cores["A"], nodes.now)
    nodes.settle()
    assert len(of(GrantReply, client.inbox)) == 1


@pytest.mark.parametrize("backup", [None, "B"])
def test_a_view_of_a_group_waits_for_the_journal(backup: str | None) -> None:
    nodes = pair()
    nodes.state = msgspec.structs.replace(nodes.state, replication="async")
    payload = payload_of(MemberRecord("m", 1))
    nodes.assign("A", backup, GROUP)
    nodes.advance(200 * MS)
    client = nodes.client("A", "s")
    client.acquire(GROUP, 1, mode=Mode.SHARED, payload=payload)
    nodes.disks["A"].at_once = False
    client.ask(FollowGroup(77, GROUP, "s", 1, 0))
    assert of(View, client.inbox) == []
    nodes.disks["A"].sync(nodes.cores["A"], nodes.now)
    nodes.settle()
    assert len(of(View, client.inbox)) == 1


# ---------------------------------------------------------------------- a new life


def serves(nodes: Nodes, name: str = "A", lock: str = "x") -> bool:
    return nodes.cores[name].may_serve(slot_of(lock), now_ns=nodes.now)


def test_a_life_that_knows_that_its_former_one_served_to_the_last_serves_at_once() -> None:
    nodes = alone()
    restart(nodes)
    assert serves(nodes)


def test_a_life_that_does_not_know_that_waits_for_the_promises_of_its_former_one() -> None:
    nodes = alone()
    nodes.crash("A")
    nodes.restart("A")
    nodes.inherit("A")
    nodes.advance(up(2 * S) - 50 * MS)
    assert not serves(nodes)
    nodes.advance(100 * MS)
    assert serves(nodes)


def test_a_former_backup_that_takes_over_keeps_the_promises_of_its_former_life() -> None:
    nodes = pair()
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    nodes.crash("A")
    nodes.crash("B")
    nodes.restart("B")
    nodes.tell()
    nodes.inherit("B")
    nodes.promote("B")
    nodes.advance(up(2 * S) - 50 * MS)
    assert not serves(nodes, "B")
    nodes.advance(100 * MS)
    assert serves(nodes, "B")
    assert of(GrantReply, nodes.client("B", "t").acquire("x", 1)) == []
    assert len(of(GrantReply, nodes.client("B", "s").acquire("x", 1))) == 1


def test_the_heir_of_a_backup_keeps_its_content_in_whichever_tenure() -> None:
    nodes = pair()
    (grant,) = of(GrantReply, nodes.client("A", "s").acquire("x", 1))
    nodes.crash("A")
    nodes.crash("B")
    nodes.restart("B")
    nodes.tell()
    copy = nodes.copy_of("B")
    nodes.slots(lambda slot: msgspec.structs.replace(slot, backup=copy))
    nodes.promote("B")
    nodes.advance(3 * S)
    assert of(GrantReply, nodes.client("B", "t").acquire("x", 1)) == []
    (same,) = of(GrantReply, nodes.client("B", "s").acquire("x", 1))
    assert same.generation == grant.generation


def test_a_new_reign_says_of_no_lock_that_it_is_held_before_its_beginning_is_written() -> None:
    nodes = pair()
    nodes.client("A", "s").acquire("x", 1)
    nodes.crash("A")
    nodes.promote("B")
    nodes.disks["B"].at_once = False
    nodes.advance(3 * S)
    assert serves(nodes, "B")
    client, slot = nodes.client("B", "s"), slot_of("x")
    listed = [SlotList(slot, [ListedAcquisition(1, "x")])]
    (reply,) = of(KeepaliveReply, client.keep(listed=listed, through=1))
    assert [each.verdict for each in reply.acquisitions] == [Verdict.RETRY]
    nodes.disks["B"].sync(nodes.cores["B"], nodes.now)
    (reply,) = of(KeepaliveReply, client.keep(listed=listed, through=1))
    assert [each.verdict for each in reply.acquisitions] == [Verdict.HELD]


def test_what_another_copy_has_taken_over_is_dropped() -> None:
    nodes = pair()
    nodes.client("A", "s").acquire("x", 1)
    nodes.crash("A")
    nodes.promote("B")
    core = nodes.restart("A")
    assert core.slots[slot_of("x")].content is not None
    nodes.tell()
    assert all(slot.is_empty for slot in core.slots.values())
    assert len(core.sessions) == 0
    assert of_entries(nodes, EmptySlot)


def test_a_slot_that_begins_empty_has_nothing_of_a_former_life() -> None:
    nodes = alone()
    nodes.client("A", "s").acquire("x", 1)
    nodes.crash("A")
    nodes.restart("A")
    nodes.assign("A")
    nodes.advance(100 * MS)
    assert serves(nodes)
    assert len(of(GrantReply, nodes.client("A", "t").acquire("x", 1))) == 1


@pytest.mark.parametrize(
    "change", [{"cluster": "another"}, {"version": 1}], ids=["of another cluster", "older"]
)
def test_a_state_that_contradicts_the_journal_is_not_taken(change: dict[str, object]) -> None:
    nodes = alone()
    nodes.client("A", "s").acquire("x", 1)
    nodes.promote("A")
    nodes.crash("A")
    core = nodes.restart("A")
    state = msgspec.structs.replace(nodes.state, **change)
    assert not core.adopt(state, now_ns=nodes.now)
    assert core.adopt(nodes.state, now_ns=nodes.now)


def test_a_coordinator_of_another_cluster_than_the_journal_s_is_not_joined() -> None:
    nodes = alone()
    nodes.crash("A")
    core = nodes.restart("A")
    welcome = Welcome(PROTOCOL, "another", "coordinator", "", 0, 1)
    with pytest.raises(WrongCluster, match="another"):
        core.greet_coordinator(welcome, address="h:1")


def test_a_journal_that_is_not_complete_vouches_for_nothing_but_names_its_cluster() -> None:
    nodes = alone()
    nodes.client("A", "s").acquire("x", 1)
    nodes.crash("A")
    core = nodes.restart("A", is_complete=False)
    assert core.join_facts() == JoinFacts("c", nodes.state.version, (), has=0)
    assert core.slots == {}
    assert len(core.sessions) == 0


@pytest.mark.parametrize("kind", [Tail, Snapshot])
def test_a_journal_with_a_gap_is_damaged(kind: type[object]) -> None:
    nodes = pair()
    client = nodes.client("A", "s")
    for acquisition in range(1, 4):
        client.acquire("x", acquisition, mode=Mode.SHARED)
    nodes.crash("B")
    entries = nodes.disks["B"].found().entries
    gap = next(entry for entry in entries if isinstance(entry, kind) and entry.slot == slot_of("x"))
    entries.remove(gap)
    core = nodes.start("B", 2, found=JournalFound(entries, True))
    assert core.join_facts().former == ()
    assert core.slots == {}
    assert len(core.sessions) == 0
    assert any("contradicts itself" in note for note in nodes.notes)


def test_a_life_that_restarts_twice_goes_on_from_the_first_one() -> None:
    nodes = alone()
    (grant,) = of(GrantReply, nodes.client("A", "s").acquire("x", 1))
    nodes.crash("A")
    nodes.restart("A")
    nodes.tell()
    restart(nodes)
    assert serves(nodes)
    assert of(GrantReply, nodes.client("A", "t").acquire("x", 1)) == []
    (same,) = of(GrantReply, nodes.client("A", "s").acquire("x", 1))
    assert same.generation == grant.generation


def test_sessions_begin_afresh_in_a_new_life() -> None:
    nodes = alone()
    nodes.client("A", "s").acquire("x", 1, ttl_ms=1_000)
    nodes.crash("A")
    nodes.advance(5 * S)
    nodes.restart("A")
    nodes.tell()
    nodes.inherit("A")
    nodes.advance(900 * MS)
    other = nodes.client("A", "t")
    assert other.acquire("x", 1) == []
    nodes.advance(300 * MS)
    assert len(of(GrantReply, other.inbox)) == 1
