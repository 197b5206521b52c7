"""Nodes among each other in less usual cases: overtaking news, copies that lag or are deaf, moves back and forth."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import Copy, Replica, encode_state
from lockring.core.effects import COORDINATOR
from lockring.core.node.departure import is_drained
from lockring.core.node.peer_news import REMOVALS_NS
from lockring.core.timing import up
from lockring.ids import MutationIndex
from lockring.protocol import (
    GetState,
    GrantReply,
    HandOver,
    HandOverSlot,
    HeartbeatAck,
    Message,
    Position,
    Replicate,
    ReplicateAck,
    Routes,
    SlotRequestKind,
    State,
    StateReply,
    Tail,
)
from lockring.slots import slot_of
from tests.unit.core.node.world import MS, NAMES, Nodes, S, of


@pytest.fixture
def pair() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def asked(nodes: Nodes, kind: SlotRequestKind) -> set[str]:
    return {item.node for each, item in nodes.asks if each is kind}


def test_version_0_bootstraps_and_stale_or_reordered_versions_are_refused() -> None:
    nodes = Nodes("A")
    core = nodes.cores["A"]
    assert core.state.version == 0
    nodes.assign("A")
    first = nodes.state
    nodes.assign("A")
    second = nodes.state
    assert core.state == second
    assert not core.adopt(first, now_ns=nodes.now)
    assert not core.adopt(second, now_ns=nodes.now)
    foreign = msgspec.structs.replace(second, cluster="other", version=second.version + 1)
    assert not core.adopt(foreign, now_ns=nodes.now)
    assert core.state == second


def test_state_that_cannot_be_read_changes_nothing(pair: Nodes) -> None:
    before = pair.cores["B"].state
    pair.deliver("B", pair.replicas["A"], State(b"\xff garbage"))
    assert pair.cores["B"].state == before


def test_strangers_that_call_themselves_nodes_are_not_remembered_forever(pair: Nodes) -> None:
    core, sender = pair.cores["B"], pair.replicas["A"]
    promises = core._copies._promises
    for number in range(1, 20_001):
        pair.now += MS
        core.receive(Replica("stranger", number), Replicate(1, 1, False, []), now_ns=pair.now)
    assert len(promises.heard_at_ns) < 10_000
    assert len(core._copies._not_serving) < 10_000
    assert len(core._copies._behind) < 10_000
    pair.now += 10 * S
    for number in range(20_001, 30_001):
        core.receive(Replica("stranger", number), Replicate(1, 1, False, []), now_ns=pair.now)
    assert Replica("stranger", 30_000) in promises.heard_at_ns, "to this one a promise still holds"
    assert Replica("stranger", 20_000) not in promises.heard_at_ns
    assert sender in promises.heard_at_ns, "of this one it has a copy"


def test_state_is_passed_on_to_a_copy_that_lags_behind() -> None:
    nodes = Nodes("A", "B")
    nodes.lag.add("B")
    nodes.assign("A", "B")
    assert nodes.cores["B"].state == nodes.state
    assert len(of(GrantReply, nodes.client("A", "one").acquire("x", 1))) == 1
    assert nodes.cores["B"].slots[slot_of("x")].table.find("one", 1) is not None


def test_primary_cut_off_from_the_coordinator_hears_from_its_copy_that_its_reign_is_over(pair: Nodes) -> None:
    client = pair.client("A", "one")
    client.acquire("x", 1)
    pair.lag.add("A")
    pair.promote("B", swap=True)
    assert pair.cores["A"].state.version < pair.state.version
    pair.advance(S)
    assert pair.cores["A"].state == pair.state
    assert of(Routes, client.inbox)[-1].version == pair.state.version
    assert pair.cores["B"].may_serve(slot_of("x"), now_ns=pair.now)


def test_hand_over_that_overtakes_the_state_is_kept_for_it(pair: Nodes) -> None:
    pair.client("A", "one").acquire("x", 1)
    pair.lag.add("B")
    pair.promote("B", swap=True)
    slot = slot_of("x")
    assert not pair.cores["B"].may_serve(slot, now_ns=pair.now)
    pair.lag.clear()
    pair.tell()
    assert pair.cores["B"].may_serve(slot, now_ns=pair.now)


def test_successor_without_a_hand_over_waits_its_promise_out(pair: Nodes) -> None:
    pair.client("A", "one").acquire("x", 1)
    pair.cut.add(("A", "B"))
    pair.promote("B", swap=True)
    slot = slot_of("x")
    pair.advance(up(2 * S) - 100 * MS)
    assert pair.cores["B"].slots[slot].reign is None
    pair.advance(200 * MS)
    assert pair.cores["B"].slots[slot].reign is not None


def test_hand_over_is_sent_again_on_a_new_connection(pair: Nodes) -> None:
    pair.cut.add(("A", "B"))
    pair.promote("B", swap=True)
    pair.cores["A"].disconnected(pair.replicas["B"], now_ns=pair.now)
    pair.cut.clear()
    assert not pair.cores["B"].may_serve(slot_of("x"), now_ns=pair.now)
    pair.cores["A"].connected(pair.replicas["B"], now_ns=pair.now)
    pair.settle()
    assert pair.cores["B"].may_serve(slot_of("x"), now_ns=pair.now)


def test_hand_over_that_fits_no_table_is_ignored(pair: Nodes) -> None:
    wrong = HandOverSlot(slot_of("x"), 1, 99, 0, 5, 5, [])
    outside = HandOverSlot(9_999, 1, 1, 0, 5, 5, [])
    pair.cut.add(("A", "B"))
    pair.promote("B")
    pair.deliver("B", pair.replicas["A"], HandOver(pair.state.version, [wrong, outside]))
    assert pair.cores["B"].slots[slot_of("x")].reign is None


def test_slots_move_forth_and_back_without_losing_a_lock(pair: Nodes) -> None:
    pair.client("A", "one").acquire("x", 1)
    for primary in ("B", "A", "B", "A"):
        pair.promote(primary, swap=True)
        assert pair.cores[primary].may_serve(slot_of("x"), now_ns=pair.now)
    assert pair.cores["A"].slots[slot_of("x")].table.find("one", 1) is not None
    assert pair.cores["B"].slots[slot_of("x")].table.find("one", 1) is not None


def test_late_or_duplicate_replication_of_a_former_reign_is_refused(pair: Nodes) -> None:
    pair.client("A", "one").acquire("x", 1)
    state = pair.state.slots[slot_of("x")]
    assert state.backup is not None
    late = Tail(slot_of("x"), state.since, state.backup.joined, 0, 1, [])
    pair.promote("B", swap=True)
    before = pair.cores["B"].slots[slot_of("x")].table.snapshot(pair.now)
    pair.deliver(
        "B", pair.replicas["A"], Replicate(9_999, 1, True, [late, msgspec.structs.replace(late, slot=9_999)])
    )
    assert pair.cores["B"].slots[slot_of("x")].table.snapshot(pair.now) == before


def test_acknowledgement_of_nothing_that_was_sent_gives_no_lease(pair: Nodes) -> None:
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(2_200 * MS)
    assert not pair.cores["A"].may_serve(slot_of("x"), now_ns=pair.now)
    pair.deliver("A", pair.replicas["B"], ReplicateAck(77_777, pair.state.version, []))
    pair.deliver("A", COORDINATOR, HeartbeatAck(77_777, pair.state.version))
    assert not pair.cores["A"].may_serve(slot_of("x"), now_ns=pair.now)


def test_acknowledgement_of_a_message_whose_time_is_forgotten_gives_no_lease_yet_says_what_was_not_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lockring.core.node.leases._SENT_KEPT_MAX", 4)
    nodes = Nodes("A", "B")
    nodes.assign("A", None, "x", "y")
    nodes.advance(200 * MS)
    nodes.lag = {"B"}
    acks: list[Message] = []
    later = nodes._later

    def hold(node: str, sender: object, message: Message) -> None:
        if node == "A" and isinstance(message, ReplicateAck):
            acks.append(message)
        else:
            later(node, sender, message)

    monkeypatch.setattr(nodes, "_later", hold)
    nodes.slots(lambda slot: msgspec.structs.replace(slot, backup=nodes.copy_of("B")), slot_of("x"))
    nodes.lag = set()
    nodes.tell()
    primary, backup = nodes.cores["A"], nodes.replicas["B"]
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    nodes.advance(3 * S)  # six heartbeats
    link = primary._replicator.links[backup]
    monkeypatch.undo()
    primary.receive(backup, acks[0], now_ns=nodes.now)
    assert link.lease.until_ns < nodes.now
    nodes.settle()
    for ack in acks[1:]:
        primary.receive(backup, ack, now_ns=nodes.now)
    nodes.settle()
    assert len(of(GrantReply, client.inbox)) == 1


def test_acknowledgement_for_the_lease_alone_leaves_all_else_to_the_one_that_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B", "x")
    nodes.advance(S)
    primary, backup = nodes.cores["A"], nodes.replicas["B"]
    link = primary._replicator.links[backup]
    nodes.lag = {"B"}
    nodes.slots(
        lambda slot: slot, slot_of("y")
    )  # another state, which the backup's journal does not have yet
    nodes.cut = {("A", "B")}
    stream = link.streams[slot_of("x")]
    stream.acked = None  # as after a start that waits for the backup's journal
    nodes.advance(500 * MS)
    sequence, before_ns = link.sent.sequence, link.lease.until_ns
    for _ in range(2):
        ack = ReplicateAck(sequence, nodes.state.version - 1, [], is_lease_only=True)
        primary.receive(backup, ack, now_ns=nodes.now)
        assert link.lease.until_ns > before_ns
        assert not stream.must_start(), "the backup may have it"
        assert link.state_sent.version == 0, "the backup may know the state"
    state = nodes.state.slots[slot_of("x")]
    assert state.backup is not None
    position = Position(slot_of("x"), state.since, state.backup.joined, MutationIndex(0))
    full = ReplicateAck(sequence, nodes.state.version, [position])
    primary.receive(backup, full, now_ns=nodes.now)
    assert stream.acked == 0


def test_copy_that_cannot_resume_gets_a_snapshot(pair: Nodes) -> None:
    pair.client("A", "one").acquire("x", 1)
    data = pair.cores["B"].slots[slot_of("x")]
    data.clear()
    pair.client("A", "two").acquire("x", 1)
    pair.client("A", "one").release("x", 1)
    assert data.table.find("two", 1) is not None
    assert data.table.find("one", 1) is None


def test_copy_that_is_connected_but_silent_is_asked_to_be_dropped(pair: Nodes) -> None:
    pair.cut.add(("B", "A"))
    pair.advance(1_000 * MS)
    assert asked(pair, SlotRequestKind.DROP) == set()
    pair.advance(1_000 * MS)
    assert asked(pair, SlotRequestKind.DROP) == {"B"}


def test_copy_that_never_learns_of_the_reign_is_asked_to_be_dropped() -> None:
    nodes = Nodes("A", "B", "C")
    nodes.assign("A", "C")
    nodes.lag.add("B")
    version = nodes.state.version + 1
    nodes.slots(
        lambda slot: msgspec.structs.replace(slot, since=version, backup=Copy(nodes.replicas["B"], version))
    )
    nodes.cut.add(("A", "B"))
    nodes.advance(2_500 * MS)
    assert "B" in asked(nodes, SlotRequestKind.DROP)


def test_learner_that_cannot_be_reached_is_asked_to_be_dropped(pair: Nodes) -> None:
    pair.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.cores["A"].disconnected(pair.replicas["B"], now_ns=pair.now)
    version = pair.state.version + 1
    pair.slots(lambda slot: msgspec.structs.replace(slot, learner=Copy(pair.replicas["B"], version)))
    pair.asks.clear()
    pair.advance(S)
    assert asked(pair, SlotRequestKind.DROP) == {"B"}
    assert asked(pair, SlotRequestKind.IN_SYNC) == set()


def test_backup_whose_primary_cannot_be_reached_asks_before_the_lease_is_over(pair: Nodes) -> None:
    pair.crash("A")
    pair.advance(800 * MS)
    assert asked(pair, SlotRequestKind.TAKEOVER) == {"B"}
    count = len(pair.asks)
    pair.advance(100 * MS)
    assert len(pair.asks) == count, "it asks again only after a while"


def test_node_that_no_slot_names_is_drained(pair: Nodes) -> None:
    a, b = pair.replicas["A"], pair.replicas["B"]
    assert not is_drained(pair.cores["A"].state, a)
    pair.promote("B")
    assert is_drained(pair.cores["A"].state, a)
    assert not is_drained(pair.cores["B"].state, b)
    status = pair.cores["B"].status()
    assert status.primary_slots == len({slot_of(name) for name in NAMES})


def test_asks_without_a_coordinator_are_dropped_and_asked_again(pair: Nodes) -> None:
    pair.cores["B"].disconnected(COORDINATOR, now_ns=pair.now)
    pair.crash("A")
    pair.advance(S)
    assert asked(pair, SlotRequestKind.TAKEOVER) == set()
    pair.cores["B"].connected(COORDINATOR, now_ns=pair.now)
    pair.advance(S)
    assert asked(pair, SlotRequestKind.TAKEOVER) == {"B"}


def test_links_to_lives_that_are_over_are_forgotten(pair: Nodes) -> None:
    pair.crash("B")
    pair.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    del pair.replicas["B"]
    pair.tell()
    pair.slots(lambda slot: slot)
    assert list(pair.cores["A"]._replicator.links) == []


def test_a_node_that_is_asked_for_the_state_sends_its_newest_one(pair: Nodes) -> None:
    client = pair.client("A", "s")
    for request in (7, 8):
        (reply,) = client.ask(GetState(request))
        assert isinstance(reply, StateReply)
        assert (reply.request, reply.state) == (request, encode_state(pair.state))
        pair.slots(lambda slot: msgspec.structs.replace(slot, backup=None))


def test_news_that_need_not_be_sent_any_more_plans_no_wakeup(pair: Nodes) -> None:
    one = pair.client("A", "one")
    one.acquire("x", 1)
    one.release("x", 1)
    core = pair.cores["A"]
    assert core.next_deadline_ns() <= pair.now + REMOVALS_NS
    pair.assign("A", None, "x")  # the copy is dropped before it has heard of the release
    pair.advance(REMOVALS_NS, step_ns=REMOVALS_NS)
    assert core.next_deadline_ns() > pair.now
