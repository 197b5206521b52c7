"""A node's service to clients in the less usual cases: parking, limits, ends of sessions, watches, breaks."""

from __future__ import annotations

import msgspec
import pytest

from lockring.core.digest import mix
from lockring.core.effects import COORDINATOR
from lockring.core.node import acquires, parking
from lockring.core.timing import up
from lockring.ids import LockName
from lockring.net.frames import encode_frame
from lockring.protocol import (
    Break,
    BreakReply,
    CloseSession,
    Describe,
    DescribeReply,
    GrantReply,
    Heartbeat,
    KeepaliveReply,
    List,
    ListReply,
    LossNotice,
    Message,
    Mode,
    Refusal,
    ReleaseReply,
    SlotDigest,
    SlotList,
    SlotRequestKind,
    Unwatch,
    Watch,
    WatchNotice,
)
from lockring.slots import SLOTS, slot_of
from lockring.units import DURATION_MS_MAX
from tests.unit.core.node.world import MS, Nodes, S, of


@pytest.fixture
def alone() -> Nodes:
    nodes = Nodes("A")
    nodes.assign("A")
    return nodes


@pytest.fixture
def pair() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def codes(messages: list[Message]) -> list[str]:
    return [message.code for message in of(Refusal, messages)]


def test_request_is_parked_while_no_node_has_the_slot_and_refused_after_a_while() -> None:
    nodes = Nodes("A")
    nodes.slots(lambda slot: slot)  # it has joined, and no slot has a primary yet
    client = nodes.client("A", "one")
    assert client.acquire("x", 1) == []
    nodes.advance(4_900 * MS)
    assert codes(client.inbox) == []
    nodes.advance(300 * MS)
    assert codes(client.inbox) == ["unavailable"]
    client.acquire("x", 2)
    nodes.assign("A")
    assert len(of(GrantReply, client.inbox)) == 1


def test_parked_requests_that_have_waited_longest_are_answered_first() -> None:
    nodes = Nodes("A")
    nodes.slots(lambda slot: slot)  # it has joined, and no slot has a primary yet
    young, old = nodes.client("A", "young"), nodes.client("A", "old")
    young.acquire("x", 1, waited_ms=10)
    old.acquire("x", 1, waited_ms=500)
    nodes.assign("A")
    assert len(of(GrantReply, old.inbox)) == 1
    assert of(GrantReply, young.inbox) == []


def test_the_time_that_an_acquire_is_parked_is_a_part_of_its_wait() -> None:
    nodes = Nodes("A")
    nodes.slots(lambda slot: slot)  # it has joined, and no slot has a primary yet
    holder, early, late = (nodes.client("A", name) for name in ("holder", "early", "late"))
    holder.acquire("x", 1, waited_ms=900)
    early.acquire("x", 1, waited_ms=500)
    nodes.advance(400 * MS)
    late.acquire("x", 1, waited_ms=600)  # the other one has waited for 900 ms
    nodes.assign("A")
    assert len(of(GrantReply, holder.inbox)) == 1
    holder.release("x", 1)
    assert len(of(GrantReply, early.inbox)) == 1
    assert of(GrantReply, late.inbox) == []


def test_repeat_of_an_acquire_is_answered_under_its_last_number_in_whatever_order_both_are_looked_at() -> (
    None
):
    nodes = Nodes("A")
    nodes.slots(lambda slot: slot)  # it has joined, and no slot has a primary yet
    one = nodes.client("A", "one")
    one.acquire("x", 1, waited_ms=0)
    one.acquire("x", 1, waited_ms=900)
    nodes.assign("A")
    assert [message.request for message in of(GrantReply, one.inbox)] == [2]


def test_parked_requests_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "PARKED_MAX", 2)
    nodes = Nodes("A")
    client = nodes.client("A", "one")
    for number in range(1, 4):
        client.acquire("x", number)
    assert codes(client.inbox) == ["overloaded"]
    nodes.cores["A"].disconnected(client.connection, now_ns=nodes.now)
    nodes.assign("A")
    assert nodes.cores["A"].status().locks == 0


def test_waiters_have_a_bound(alone: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquires, "WAITERS_MAX", 1)
    one, two, three = (alone.client("A", name) for name in ("one", "two", "three"))
    one.acquire("x", 1)
    two.acquire("x", 1)
    assert codes(three.acquire("x", 1)) == ["overloaded"]


def test_node_that_may_not_serve_does_not_answer_a_try_with_no(pair: Nodes) -> None:
    one, two = pair.client("A", "one"), pair.client("A", "two")
    one.acquire("x", 1)
    two.acquire("x", 1, wait_ms=2_500)
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(2_200 * MS)
    assert codes(two.acquire("x", 2, wait_ms=0)) == ["unavailable"]
    pair.advance(500 * MS)
    assert codes(two.inbox) == ["unavailable", "unavailable"]


def test_release_without_the_right_to_serve_waits_for_it(pair: Nodes) -> None:
    one = pair.client("A", "one")
    one.acquire("x", 1)
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(2_200 * MS)
    assert one.release("x", 1) == []
    pair.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    pair.advance(200 * MS)
    assert of(ReleaseReply, one.inbox) == [ReleaseReply(2, True)]


def test_node_without_the_coordinators_lease_renews_nothing() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    one = nodes.client("A", "one")
    one.acquire("x", 1)
    nodes.coordinator_up = False
    nodes.advance(31 * S)
    assert codes(one.keep(through=1, count=1, digest=mix(1))) == ["unavailable"]
    assert one.acquire("y", 2) == []
    nodes.coordinator_up = True
    nodes.advance(1_100 * MS)
    assert len(of(GrantReply, one.inbox)) == 2


def test_acquire_of_a_session_that_has_run_out_starts_with_nothing(alone: Nodes) -> None:
    one = alone.client("A", "one")
    one.acquire("x", 1, ttl_ms=1_000)
    alone.advance(S)
    alone.now += 60 * MS
    one.acquire("y", 2, ttl_ms=1_000)
    assert [message.acquisition for message in of(LossNotice, one.inbox)] == [1]
    assert of(KeepaliveReply, one.keep(ttl_ms=1_000, through=2, count=1, digest=mix(2)))[0].agreed


def test_node_that_may_not_serve_reports_no_loss_to_holders(pair: Nodes) -> None:
    one = pair.client("A", "one")
    one.acquire("x", 1, ttl_ms=3_000)
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(5 * S)
    assert pair.cores["A"].slots[slot_of("x")].table.find("one", 1) is None
    assert of(LossNotice, one.inbox) == []


def test_session_with_many_locks_runs_out_in_slices(alone: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockring.core.node.session_leases.EXPIRED_PER_TURN_MAX", 7)
    one, two = alone.client("A", "one"), alone.client("A", "two")
    for number in range(1, 31):
        one.acquire(f"job/{number}", number, ttl_ms=1_000)
    two.acquire("job/30", 1, wait_ms=0)
    alone.advance(up(S) - 100 * MS)
    alone.now += 110 * MS
    core = alone.cores["A"]
    left = []
    while core.status().locks:
        core.on_timer(now_ns=alone.now)
        left.append(core.status().locks)
    assert left == [23, 16, 9, 2, 0]
    alone.settle()
    assert [message.reason for message in of(LossNotice, one.inbox)] == ["expired"] * 30
    assert "one" not in core.sessions.by_id


def test_expired_holder_whose_session_is_not_cleared_yet_blocks_no_acquire(
    alone: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockring.core.node.session_leases.EXPIRED_PER_TURN_MAX", 1)
    one, two = alone.client("A", "one"), alone.client("A", "two")
    for number in range(1, 31):
        one.acquire(f"job/{number}", number, ttl_ms=1_000)
    alone.advance(up(S) - 100 * MS)
    alone.now += 110 * MS
    alone.cores["A"].on_timer(now_ns=alone.now)
    assert len(of(GrantReply, two.acquire("job/30", 1, wait_ms=0))) == 1


def test_session_has_one_ttl(alone: Nodes) -> None:
    one = alone.client("A", "one")
    one.acquire("x", 1, ttl_ms=1_000)
    assert codes(one.acquire("y", 2, ttl_ms=2_000)) == ["invalid"]


def test_sessions_and_watches_have_a_bound(alone: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockring.core.node.session_leases.SESSIONS_MAX", 1)
    monkeypatch.setattr("lockring.core.node.watches.WATCHES_MAX", 1)
    one, two = alone.client("A", "one"), alone.client("A", "two")
    assert len(of(GrantReply, one.acquire("x", 1))) == 1
    assert codes(two.acquire("y", 1)) == ["overloaded"]
    assert len(of(GrantReply, one.acquire("y", 2))) == 1
    two.ask(Watch(5, "x"))
    assert codes(two.ask(Watch(6, "y")))[-1] == "overloaded"


def test_waiter_of_a_session_that_runs_out_is_notified(alone: Nodes) -> None:
    one, two = alone.client("A", "one"), alone.client("A", "two")
    one.acquire("x", 1)
    two.acquire("x", 1, ttl_ms=1_000)
    alone.advance(up(S) + 200 * MS)
    assert codes(two.inbox) == ["unavailable"]
    one.release("x", 1)
    assert of(GrantReply, two.inbox) == []


def test_session_that_waits_behind_itself_ends_whole(alone: Nodes) -> None:
    one = alone.client("A", "one")
    for number in range(1, 4):
        one.acquire("x", number)
    one.ask(CloseSession(90, "one"))
    assert of(ReleaseReply, one.inbox) == [ReleaseReply(90, True)]
    assert alone.cores["A"].status().locks == 0
    assert of(ReleaseReply, one.ask(CloseSession(91, "one"))) == [ReleaseReply(91, False)]


def test_grant_after_a_long_wait_counts_from_the_last_keepalive(alone: Nodes) -> None:
    one, two = alone.client("A", "one"), alone.client("A", "two")
    one.acquire("x", 1)
    two.acquire("x", 1)
    for _ in range(3):
        alone.advance(4 * S)
        one.keep(through=1, count=1, digest=mix(1))
        assert of(KeepaliveReply, two.keep(through=1, count=1, digest=mix(1)))[0].agreed
    kept = of(KeepaliveReply, two.inbox)[-1]
    one.release("x", 1)
    granted = of(GrantReply, two.inbox)[0]
    assert (granted.request, granted.basis, granted.promise_ms) == (1, kept.request, 10_000)


def test_repeated_wait_is_answered_where_it_was_last_asked(alone: Nodes) -> None:
    one = alone.client("A", "one")
    one.acquire("x", 1)
    first = alone.client("A", "two", client="two", number=1)
    first.acquire("x", 1, wait_ms=60_000)
    first.acquire("x", 1, wait_ms=500)
    second = alone.client("A", "two", client="two", number=2)
    second.acquire("x", 1, wait_ms=30_000)
    one.release("x", 1)
    assert of(GrantReply, first.inbox) == []
    assert len(of(GrantReply, second.inbox)) == 1


def test_readers_share_the_lock_that_a_writer_waits_for(alone: Nodes) -> None:
    clients = [alone.client("A", name) for name in ("r1", "r2", "w", "r3")]
    for client, mode in zip(clients, (Mode.SHARED, Mode.SHARED, Mode.EXCLUSIVE, Mode.SHARED), strict=True):
        client.acquire("x", 1, mode=mode)
    assert [len(of(GrantReply, client.inbox)) for client in clients] == [1, 1, 0, 0]
    clients[0].release("x", 1)
    clients[1].release("x", 1)
    assert [len(of(GrantReply, client.inbox)) for client in clients] == [1, 1, 1, 0]
    clients[2].release("x", 1)
    assert [len(of(GrantReply, client.inbox)) for client in clients] == [1, 1, 1, 1]


def test_async_reign_answers_a_grant_that_no_copy_has_yet() -> None:
    nodes = Nodes("A", "B")
    nodes.state = msgspec.structs.replace(nodes.state, replication="async")
    nodes.assign("A", "B")
    nodes.cut.add(("B", "A"))
    assert len(of(GrantReply, nodes.client("A", "one").acquire("x", 1))) == 1


def test_acquisition_id_belongs_to_one_lock_only(alone: Nodes) -> None:
    other = next(name for name in (f"n{i}" for i in range(100_000)) if slot_of(name) == slot_of("x"))
    one = alone.client("A", "one")
    one.acquire("x", 1)
    assert codes(one.acquire(other, 1)) == ["invalid"]
    assert codes(one.release(other, 1)) == ["invalid"]


def test_message_that_no_client_sends_is_refused(alone: Nodes) -> None:
    assert codes(alone.client("A", "one").ask(Heartbeat(1, 1))) == ["protocol"]


def test_forced_break_frees_at_once_and_a_broken_acquire_is_not_repeated(alone: Nodes) -> None:
    one, two = alone.client("A", "one"), alone.client("A", "two")
    generation = of(GrantReply, one.acquire("x", 1))[0].generation
    two.acquire("x", 1)
    alone.deliver("A", two.connection, Break(50, "x", generation))
    assert codes(one.acquire("x", 1)) == ["not-held"]
    assert of(BreakReply, two.ask(Break(51, "x", generation, True))) == [BreakReply(51, True, 0)]
    assert len(of(GrantReply, two.inbox)) == 1
    assert codes(two.ask(Break(52, "y", 1))) == ["not-held"]


def test_broken_lease_of_a_holder_that_does_not_let_go_is_freed_when_it_has_run_out(alone: Nodes) -> None:
    one, two = alone.client("A", "one"), alone.client("A", "two")
    generation = of(GrantReply, one.acquire("x", 1, ttl_ms=2_000))[0].generation
    one.acquire("y", 2, ttl_ms=2_000)
    two.acquire("x", 1)
    within_ms = of(BreakReply, two.ask(Break(50, "x", generation)))[0].within_ms
    for _ in range(3):
        alone.advance(500 * MS)
        one.acquire("y", 2, ttl_ms=2_000)
    assert of(GrantReply, two.inbox) == []
    alone.advance(within_ms * MS - 1_500 * MS + 100 * MS)
    assert len(of(GrantReply, two.inbox)) == 1
    assert alone.cores["A"].slots[slot_of("y")].table.find("one", 2) is not None


def test_a_broken_lease_is_logged_once_with_owner_lock_and_token(
    alone: Nodes,
) -> None:
    one, two = alone.client("A", "one"), alone.client("A", "two")
    generation = of(GrantReply, one.acquire("x", 1))[0].generation
    two.ask(Break(50, "x", generation))
    two.ask(Break(51, "x", generation))
    (polite,) = alone.notes
    assert polite.startswith(
        f"lock 'x' was taken from 'one' (token {generation}): it is free once that lets go, in "
    )
    two.ask(Break(52, "x", generation, True))
    assert alone.notes[1:] == [
        f"lock 'x' was taken from 'one' (token {generation}) by force: it is free at once"
    ]
    two.ask(Break(53, "x", generation))
    assert len(alone.notes) == 2, "there was nothing to end"


def test_an_expired_lease_is_one_line_in_the_log_however_many_locks_it_held(alone: Nodes) -> None:
    one = alone.client("A", "one")
    for number, name in enumerate(("x", "y"), start=1):
        one.acquire(name, number, ttl_ms=1_000)
    alone.advance(900 * MS)
    assert alone.notes == []
    alone.advance(500 * MS)
    assert alone.notes == [
        "the lease of 'one' (session one) has run out after 1 s of silence: it held or waited for 2 locks"
    ]


def test_leases_that_expire_in_a_crowd_have_a_bounded_number_of_log_lines(alone: Nodes) -> None:
    for number in range(30):
        alone.client("A", f"s{number}").acquire("x", 1, ttl_ms=1_000)
    alone.advance(1_500 * MS)
    assert len(alone.notes) < 10
    assert "more leases have run out at the same moment" in alone.notes[-1]


def test_watch_ends_on_request_or_with_its_connection(alone: Nodes) -> None:
    one, two = alone.client("A", "one"), alone.client("A", "two")
    one.ask(Watch(1, "x"))
    two.ask(Watch(1, "x"))
    assert of(ReleaseReply, one.ask(Unwatch(2, 1))) == [ReleaseReply(2, True)]
    assert of(ReleaseReply, one.ask(Unwatch(3, 1))) == [ReleaseReply(3, False)]
    seen = len(of(WatchNotice, one.inbox))
    alone.client("A", "three").acquire("x", 1)
    assert len(of(WatchNotice, one.inbox)) == seen
    assert len(of(WatchNotice, two.inbox)) == 2
    alone.cores["A"].disconnected(two.connection, now_ns=alone.now)
    alone.settle()
    alone.client("A", "three").release("x", 1)
    assert len(of(WatchNotice, two.inbox)) == 2


def test_watcher_is_notified_of_a_change_once_the_node_may_serve_again(pair: Nodes) -> None:
    watcher, one = pair.client("A", "w"), pair.client("A", "one")
    watcher.ask(Watch(1, "x"))
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(2_200 * MS)
    one.acquire("x", 1)
    assert len(of(WatchNotice, watcher.inbox)) == 1
    pair.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    assert len(of(WatchNotice, watcher.inbox)) == 2


def test_queries_about_a_lock_at_another_node_are_sent_there(pair: Nodes) -> None:
    client = pair.client("B", "one")
    for message in (Describe(1, "x"), Watch(2, "x"), Break(3, "x", 1)):
        assert codes(client.ask(message)) == ["moved"]
    assert of(ListReply, client.ask(List(4, "")))[0].locks == []


def test_free_lock_is_described_as_free(alone: Nodes) -> None:
    lock = of(DescribeReply, alone.client("A", "one").ask(Describe(1, "x")))[0].lock
    assert (lock.holders, lock.waiters, lock.primary) == ([], [], "A")


@pytest.mark.parametrize("message", [List(1, "", 0, "", 0), List(1, "", 4096), List(1, "", 0, "", 10_001)])
def test_page_outside_the_bounds_is_refused(alone: Nodes, message: List) -> None:
    assert codes(alone.client("A", "one").ask(message)) == ["invalid"]


def test_long_list_without_a_match_is_cut_into_pages(alone: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockring.core.node.queries.LIST_SCAN_MAX", 5)
    client = alone.client("A", "one")
    for number in range(1, 31):
        client.acquire(f"job/{number}", number)
    pages, slot = 0, 0
    while slot >= 0:
        page = of(ListReply, client.ask(List(100 + pages, "none", slot)))[0]
        assert page.locks == []
        slot, pages = page.next_slot, pages + 1
    assert pages >= 4


def test_slot_that_does_not_exist_is_refused_in_a_keepalive(alone: Nodes) -> None:
    assert codes(alone.client("A", "one").keep(slots=[SlotDigest(5_000, 1, 1)])) == ["invalid"]


def test_a_second_watch_under_the_same_number_is_refused(
    alone: Nodes,
) -> None:
    watcher = alone.client("A", "w")
    watcher.ask(Watch(5, "x"))
    assert codes(watcher.ask(Watch(5, "y"))) == ["invalid"]
    assert len(of(WatchNotice, watcher.ask(Watch(5, "x")))) == 1
    alone.cores["A"].disconnected(watcher.connection, now_ns=alone.now)
    alone.slots(lambda slot: msgspec.structs.replace(slot, since=alone.state.version + 1, primary=None))
    assert alone.cores["A"].slots[slot_of("x")].reign is None


def test_every_watch_in_a_slot_that_moves_is_sent_on_and_forgotten(pair: Nodes) -> None:
    watcher = pair.client("A", "w")
    watcher.ask(Watch(1, "x"))
    watcher.ask(Watch(2, "x"))
    watcher.ask(Watch(3, "y"))
    pair.promote("B")
    assert sorted(message.request for message in of(Refusal, watcher.inbox)) == [1, 2, 3]
    pair.promote("A")
    pair.advance(3 * S)
    pair.client("A", "one").acquire("x", 1)
    assert len(of(WatchNotice, watcher.inbox)) == 3


@pytest.mark.parametrize("field", ["wait_ms", "waited_ms"])
def test_wait_longer_than_an_answer_can_express_is_refused(alone: Nodes, field: str) -> None:
    one, two = alone.client("A", "one"), alone.client("A", "two")
    one.acquire("x", 1)
    assert codes(two.acquire("x", 1, **{field: 2**64 - 1})) == ["invalid"]
    two.acquire("x", 2, **{field: DURATION_MS_MAX})
    alone.advance(5 * MS)
    encode_frame(of(DescribeReply, one.ask(Describe(50, "x")))[0])


def test_client_that_goes_leaves_no_waiter_of_its_own_granted(alone: Nodes) -> None:
    reader, both = alone.client("A", "reader"), alone.client("A", "both")
    reader.acquire("x", 1, mode=Mode.SHARED)
    both.acquire("x", 1)
    both.acquire("x", 2, mode=Mode.SHARED)
    last = alone.client("A", "last")
    last.acquire("x", 1, mode=Mode.SHARED)
    alone.cores["A"].disconnected(both.connection, now_ns=alone.now)
    alone.settle()
    assert len(of(GrantReply, last.inbox)) == 1
    assert len(alone.cores["A"].slots[slot_of("x")].table.locks[LockName("x")].holders) == 2


def test_grant_that_was_broken_before_its_answer_is_not_answered_with_a_promise(pair: Nodes) -> None:
    one, two = pair.client("A", "one"), pair.client("A", "two")
    pair.cut |= {("A", "B")}
    one.acquire("x", 1, ttl_ms=10_000)
    generation = of(DescribeReply, two.ask(Describe(50, "x")))[0].lock.holders[0].generation
    two.ask(Break(51, "x", generation))
    pair.cut.clear()
    pair.cores["A"].disconnected(pair.replicas["B"], now_ns=pair.now)
    pair.cores["A"].connected(pair.replicas["B"], now_ns=pair.now)
    pair.advance(S)
    assert of(GrantReply, one.inbox) == []
    assert codes(one.inbox) == ["not-held"]


def test_keepalive_that_lists_a_slot_twice_is_refused(alone: Nodes) -> None:
    slot = slot_of("x")
    assert codes(alone.client("A", "one").keep(listed=[SlotList(slot, []), SlotList(slot, [])])) == [
        "invalid"
    ]


def test_generations_that_a_waiter_needs_are_asked_for_until_they_come(alone: Nodes) -> None:
    core = alone.cores["A"]
    alone.slots(lambda slot: msgspec.structs.replace(slot, generation_below=slot.generation_from))
    core.disconnected(COORDINATOR, now_ns=alone.now)
    one = alone.client("A", "one")
    one.acquire("x", 1)
    assert alone.asks == []
    core.connected(COORDINATOR, now_ns=alone.now)
    alone.advance(200 * MS)
    assert {(kind, item.slot) for kind, item in alone.asks} == {(SlotRequestKind.EXTEND, slot_of("x"))}
    alone.slots(
        lambda slot: msgspec.structs.replace(slot, generation_below=slot.generation_from + 1_000_000),
        slot_of("x"),
    )
    assert len(of(GrantReply, one.inbox)) == 1, "though the slot has a new epoch too"
    alone.asks.clear()
    alone.advance(200 * MS)
    assert alone.asks == []


def test_keepalive_that_compares_more_slots_than_there_are_is_refused(alone: Nodes) -> None:
    """One of a megabyte took a node most of a second."""
    client = alone.client("A", "s")
    every = [SlotDigest(slot, 0, 0) for slot in range(SLOTS)]
    assert isinstance(client.keep(slots=every)[0], KeepaliveReply)
    (refused,) = client.keep(slots=[*every, SlotDigest(0, 0, 0)])
    assert refused.code == "invalid"
