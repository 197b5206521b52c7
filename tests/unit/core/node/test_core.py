"""Whole nodes, wired by hand: the right to serve, the knowledge of copies, and the answers to clients."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import Copy
from lockring.core.digest import mix
from lockring.core.node.peer_news import REMOVALS_NS
from lockring.core.timing import up
from lockring.protocol import (
    Acquire,
    AcquisitionVerdict,
    Break,
    BreakReply,
    Describe,
    DescribeReply,
    GrantReply,
    KeepaliveReply,
    List,
    ListedAcquisition,
    ListReply,
    LossNotice,
    Message,
    Refusal,
    ReleaseReply,
    Routes,
    SlotDigest,
    SlotList,
    SlotRequestKind,
    SlotVerdict,
    Verdict,
    Watch,
    WatchNotice,
)
from lockring.slots import slot_of
from tests.unit.core.node.world import MS, NAMES, Nodes, S, of


def granted(messages: list[Message]) -> GrantReply:
    answers = of(GrantReply, messages)
    assert len(answers) == 1, messages
    return answers[0]


@pytest.fixture
def pair() -> Nodes:
    """A serves every slot, B is its backup."""
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def test_node_alone_grants_at_once_and_queues_the_next_in_order() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    one, two, three = (nodes.client("A", name) for name in ("one", "two", "three"))
    first = granted(one.acquire("x", 1))
    assert first.promise_ms == 10_000
    assert two.acquire("x", 1) == []
    assert three.acquire("x", 1) == []
    assert of(ReleaseReply, one.release("x", 1)) == [ReleaseReply(2, True)]
    assert granted(two.inbox).generation > first.generation
    assert of(GrantReply, three.inbox) == []
    two.release("x", 1)
    assert granted(three.inbox).generation > granted(two.inbox).generation


def test_client_gets_the_routes_when_it_connects_and_when_they_change(pair: Nodes) -> None:
    client = pair.client("A", "one")
    assert [message.version for message in of(Routes, client.inbox)] == [1]
    pair.promote("B", swap=True)
    assert [message.version for message in of(Routes, client.inbox)] == [1, 2]


def test_grant_is_answered_only_when_the_backup_has_it(pair: Nodes) -> None:
    client = pair.client("A", "one")
    pair.cut.add(("A", "B"))
    assert client.acquire("x", 1) == []
    pair.cut.clear()
    pair.cores["A"].disconnected(pair.replicas["B"], now_ns=pair.now)
    pair.cores["A"].connected(pair.replicas["B"], now_ns=pair.now)
    pair.settle()
    granted(client.inbox)
    assert pair.cores["B"].slots[slot_of("x")].table.find("one", 1) is not None


def test_backup_promoted_after_a_crash_has_the_lock_and_waits_its_promise_out(pair: Nodes) -> None:
    before = granted(pair.client("A", "one").acquire("x", 1)).generation
    pair.crash("A")
    pair.promote("B")
    two = pair.client("B", "two")
    two.acquire("x", 1)
    two.acquire("y", 2)
    assert not pair.cores["B"].may_serve(slot_of("x"), now_ns=pair.now)
    pair.advance(up(2 * S) - 100 * MS)
    assert of(GrantReply, two.inbox) == []
    pair.advance(200 * MS)
    assert [message.request for message in of(GrantReply, two.inbox)] == [2]
    held = two.ask(Describe(9, "x"))[0]
    assert isinstance(held, DescribeReply)
    assert [(h.owner, h.generation) for h in held.lock.holders] == [("one", before)]
    pair.advance(5 * S)
    two.keep()
    pair.advance(6 * S)
    after = [message for message in of(GrantReply, two.inbox) if message.request == 1]
    assert after[0].generation > before


def test_planned_move_serves_at_once_and_keeps_the_old_primary_in_sync(pair: Nodes) -> None:
    one = pair.client("A", "one")
    first = granted(one.acquire("x", 1)).generation
    waiting = pair.client("A", "two")
    waiting.acquire("x", 1)
    pair.promote("B", swap=True)
    assert pair.cores["B"].may_serve(slot_of("x"), now_ns=pair.now)
    assert not pair.cores["A"].may_serve(slot_of("x"), now_ns=pair.now)
    moved = of(Refusal, waiting.inbox)
    assert [(message.code, message.hint) for message in moved] == [("moved", pair.state.version)]
    two = pair.client("B", "two")
    two.acquire("x", 1, waited_ms=10)
    one_at_b = pair.client("B", "one")
    assert of(ReleaseReply, one_at_b.release("x", 1)) == [ReleaseReply(1, True)]
    assert granted(two.inbox).generation > first
    assert pair.cores["A"].slots[slot_of("x")].table.find("two", 1) is not None
    pair.crash("B")
    pair.promote("A")
    pair.advance(3 * S)
    table = pair.cores["A"].slots[slot_of("x")].table
    assert table.find("two", 1) is not None
    assert table.find("one", 1) is None


def test_renewal_during_a_move_keeps_the_generation_and_succeeds(pair: Nodes) -> None:
    one = pair.client("A", "one")
    generation = granted(one.acquire("x", 1)).generation
    pair.promote("B", swap=True)
    at_b = pair.client("B", "one")
    kept = of(KeepaliveReply, at_b.keep(through=1, count=1, digest=mix(1)))[0]
    assert kept.agreed
    listed = of(
        KeepaliveReply, at_b.keep(through=1, listed=[SlotList(slot_of("x"), [ListedAcquisition(1, "x")])])
    )[0]
    assert listed.acquisitions == [AcquisitionVerdict(1, Verdict.HELD, generation)]


def test_a_takeover_keeps_what_a_session_has_just_acquired_in_other_slots_in_its_digest() -> None:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B", "x")
    nodes.assign("B", None, "y")
    nodes.settle()
    nodes.client("A", "s", client="c").acquire("x", 1)
    at_b = nodes.client("B", "s", client="c")
    at_b.acquire("y", 2)
    nodes.promote("B", "x")
    nodes.advance(2_500 * MS)
    assert of(KeepaliveReply, at_b.keep(through=2, count=2, digest=mix(1) ^ mix(2)))[0].agreed


def test_a_crash_of_the_backup_disturbs_no_client_once_it_is_dropped(pair: Nodes) -> None:
    client = pair.client("A", "one")
    granted(client.acquire("x", 1))
    pair.crash("B")
    assert client.acquire("y", 2) == []
    pair.advance(S)
    assert {item.node for kind, item in pair.asks if kind is SlotRequestKind.DROP} == {"B"}
    pair.slots(lambda slot: msgspec.structs.replace(slot, backup=None))
    assert [message.request for message in of(GrantReply, client.inbox)] == [1, 2]


def test_backup_asks_for_the_slots_of_a_silent_primary(pair: Nodes) -> None:
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(up(2 * S) + 200 * MS)
    assert {item.node for kind, item in pair.asks if kind is SlotRequestKind.TAKEOVER} == {"B"}


def test_primary_that_lost_the_coordinator_says_so_and_its_backup_asks(pair: Nodes) -> None:
    pair.coordinator_up = False
    pair.advance(31 * S)
    assert not pair.cores["A"].may_serve(0, now_ns=pair.now)
    assert {item.node for kind, item in pair.asks if kind is SlotRequestKind.TAKEOVER} == {"B"}


def test_promise_never_outlives_the_coordinator_lease() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    nodes.coordinator_up = False
    nodes.advance(25 * S)
    left = nodes.cores["A"].status(now_ns=nodes.now).coordinator_lease_left_ms * MS
    answer = granted(nodes.client("A", "one").acquire("x", 1))
    assert answer.promise_ms == left // MS < 10_000


def test_session_that_is_not_kept_alive_loses_its_locks_after_its_ttl() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    one, two = nodes.client("A", "one"), nodes.client("A", "two")
    one.acquire("x", 1, ttl_ms=1_000)
    two.acquire("x", 1)
    nodes.advance(up(S) - 60 * MS)
    assert of(GrantReply, two.inbox) == []
    nodes.advance(120 * MS)
    granted(two.inbox)
    assert [(message.acquisition, message.reason) for message in of(LossNotice, one.inbox)] == [
        (1, "expired")
    ]


def test_messages_that_arrived_during_a_stall_are_read_before_anything_expires() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    one, two = nodes.client("A", "one"), nodes.client("A", "two")
    one.acquire("x", 1, ttl_ms=1_000)
    two.acquire("x", 1)
    nodes.now += 5 * S
    nodes.cores["A"].on_timer(now_ns=nodes.now)
    assert of(KeepaliveReply, one.keep(ttl_ms=1_000, through=1, count=1, digest=mix(1)))[0].agreed
    nodes.advance(500 * MS)
    assert of(GrantReply, two.inbox) == []


def test_acquire_repeated_under_the_same_id_makes_no_second_holder_or_waiter(pair: Nodes) -> None:
    one, two = pair.client("A", "one"), pair.client("A", "two")
    first = granted(one.acquire("x", 1))
    again = granted(one.acquire("x", 1))
    assert again.generation == first.generation
    two.acquire("x", 7)
    two.acquire("x", 7)
    one.release("x", 1)
    assert len(of(GrantReply, two.inbox)) == 1
    assert pair.cores["A"].service.grants.waiters == 0


def test_late_release_of_an_old_acquisition_frees_nothing(pair: Nodes) -> None:
    one = pair.client("A", "one")
    one.acquire("x", 1)
    one.release("x", 1)
    one.acquire("x", 2)
    assert of(ReleaseReply, one.release("x", 1)) == [ReleaseReply(4, False)]
    assert pair.cores["A"].slots[slot_of("x")].table.find("one", 2) is not None


def test_release_replicates_and_a_stale_one_is_refused(pair: Nodes) -> None:
    one = pair.client("A", "one")
    one.acquire("x", 1)
    one.release("x", 1)
    copy = pair.cores["B"].slots[slot_of("x")].table
    one.acquire("x", 2)
    assert copy.find("one", 1) is None
    assert of(ReleaseReply, one.release("x", 1))[0].dropped is False
    assert copy.find("one", 2) is not None


def test_release_reaches_the_copy_within_a_moment_even_if_nothing_else_happens(pair: Nodes) -> None:
    one = pair.client("A", "one")
    one.acquire("x", 1)
    one.release("x", 1)
    copy = pair.cores["B"].slots[slot_of("x")].table
    assert copy.find("one", 1) is not None
    due_ns = pair.cores["A"].next_deadline_ns()
    assert due_ns <= pair.now + REMOVALS_NS
    pair.advance(REMOVALS_NS, step_ns=REMOVALS_NS)
    assert copy.find("one", 1) is None


def test_release_that_races_a_renewal_leaves_no_ghost(pair: Nodes) -> None:
    one, two = pair.client("A", "one"), pair.client("A", "two")
    one.acquire("x", 1)
    renewal_sent_before_the_release = {"through": 1, "count": 1, "digest": mix(1)}
    one.release("x", 1)
    assert not of(KeepaliveReply, one.keep(**renewal_sent_before_the_release))[0].agreed
    listed = of(
        KeepaliveReply, one.keep(through=1, listed=[SlotList(slot_of("x"), [ListedAcquisition(1, "x")])])
    )[0]
    assert listed.acquisitions == [AcquisitionVerdict(1, Verdict.LOST, 0)]
    granted(two.acquire("x", 1, wait_ms=0))
    assert pair.cores["B"].slots[slot_of("x")].table.find("one", 1) is None


def test_generation_grows_on_each_acquisition_and_stays_on_renewal(pair: Nodes) -> None:
    one = pair.client("A", "one")
    seen = []
    for number in range(1, 6):
        generation = granted(one.acquire("x", number)).generation
        for _ in range(3):
            pair.advance(3 * S)
            kept = of(
                KeepaliveReply,
                one.keep(through=number, listed=[SlotList(slot_of("x"), [ListedAcquisition(number, "x")])]),
            )[0]
            assert kept.acquisitions == [AcquisitionVerdict(number, Verdict.HELD, generation)]
        one.release("x", number)
        seen.append(generation)
    assert seen == sorted(set(seen))


def test_dropped_connection_drops_its_waiters_not_its_locks(pair: Nodes) -> None:
    one, two, three = (pair.client("A", name) for name in ("one", "two", "three"))
    one.acquire("x", 1)
    two.acquire("x", 1)
    three.acquire("x", 1)
    pair.cores["A"].disconnected(two.connection, now_ns=pair.now)
    pair.cores["A"].disconnected(one.connection, now_ns=pair.now)
    pair.settle()
    assert of(GrantReply, three.inbox) == []
    pair.client("A", "one").release("x", 1)
    granted(three.inbox)


def test_newer_connection_of_a_client_ends_the_older_one(pair: Nodes) -> None:
    old = pair.client("A", "one", client="me", number=1)
    old.acquire("y", 1)
    new = pair.client("A", "one", client="me", number=2)
    assert old.closed
    assert old.acquire("x", 2) == []
    late = pair.client("A", "one", client="me", number=1)
    assert late.closed
    granted(new.acquire("x", 2))


def test_wait_that_times_out_ends_with_the_name_of_the_holder(pair: Nodes) -> None:
    one, two = pair.client("A", "one"), pair.client("A", "two")
    one.acquire("x", 1)
    tried = of(Refusal, two.acquire("x", 1, wait_ms=0))[0]
    assert tried.code == "timeout"
    assert "'one'" in tried.text
    two.acquire("x", 2, wait_ms=500)
    pair.advance(600 * MS)
    assert [message.code for message in of(Refusal, two.inbox)] == ["timeout", "timeout"]
    one.release("x", 1)
    assert of(GrantReply, two.inbox) == []


def test_expired_holder_does_not_count_even_before_the_timer_finds_it() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    one, two = nodes.client("A", "one"), nodes.client("A", "two")
    one.acquire("x", 1, ttl_ms=1_000)
    nodes.advance(1_030 * MS)
    nodes.now += up(S) - 1_030 * MS
    described = of(DescribeReply, two.ask(Describe(1, "x")))[0]
    assert described.lock.holders == []
    granted(two.acquire("x", 1))


def test_keepalive_finds_differences_and_drops_acquisitions_that_the_client_gave_up(pair: Nodes) -> None:
    one = pair.client("A", "one")
    generation = granted(one.acquire("x", 1)).generation
    one.acquire("y", 2)
    assert not of(KeepaliveReply, one.keep(through=3, count=1, digest=mix(1)))[0].agreed
    slots = of(
        KeepaliveReply,
        one.keep(through=3, slots=[SlotDigest(slot_of("x"), 1, mix(1)), SlotDigest(slot_of("z"), 1, mix(3))]),
    )[0].slots
    assert {each.slot: each.verdict for each in slots} == {
        slot_of("x"): Verdict.HELD,
        slot_of("y"): Verdict.DIFFERS,
        slot_of("z"): Verdict.DIFFERS,
    }
    listed = of(
        KeepaliveReply,
        one.keep(
            through=3,
            listed=[SlotList(slot_of("y"), []), SlotList(slot_of("z"), [ListedAcquisition(3, "z")])],
        ),
    )[0]
    assert listed.acquisitions == [AcquisitionVerdict(3, Verdict.LOST, 0)]
    assert of(KeepaliveReply, one.keep(through=3, count=1, digest=mix(1)))[0].agreed
    kept = of(
        KeepaliveReply, one.keep(through=3, listed=[SlotList(slot_of("x"), [ListedAcquisition(1, "x")])])
    )[0]
    assert kept.acquisitions == [AcquisitionVerdict(1, Verdict.HELD, generation)]


def test_keepalive_vouches_only_for_slots_that_the_node_may_serve_now(pair: Nodes) -> None:
    one = pair.client("A", "one")
    granted(one.acquire("x", 1))
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(2_100 * MS)
    assert not of(KeepaliveReply, one.keep(through=1, count=1, digest=mix(1)))[0].agreed
    kept = of(KeepaliveReply, one.keep(through=1, slots=[SlotDigest(slot_of("x"), 1, mix(1))]))[0]
    assert kept.slots == [SlotVerdict(slot_of("x"), Verdict.RETRY)]


def test_node_that_lags_behind_parks_a_request_until_it_knows_the_state() -> None:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    nodes.lag.add("B")
    nodes.promote("B", swap=True)
    client = nodes.client("B", "one")
    assert of(Refusal, client.acquire("x", 1, version=nodes.state.version)) == []
    assert of(Refusal, client.acquire("y", 2))[0].code == "moved"
    nodes.lag.clear()
    nodes.tell()
    assert [message.request for message in of(GrantReply, client.inbox)] == [1]


def test_after_the_loss_of_both_copies_the_next_grant_is_above_all_earlier_ones() -> None:
    nodes = Nodes("A", "B", "C")
    nodes.assign("A", "B")
    before = granted(nodes.client("A", "one").acquire("x", 1)).generation
    nodes.crash("A")
    nodes.crash("B")
    nodes.assign("C")
    after = granted(nodes.client("C", "two").acquire("x", 1)).generation
    assert after > before


def test_learner_catches_up_and_is_reported_in_sync() -> None:
    nodes = Nodes("A", "B")
    nodes.assign("A")
    client = nodes.client("A", "one")
    for number in range(1, 31):
        client.acquire(f"job/{number}", number)
    version = nodes.state.version + 1
    nodes.slots(lambda slot: msgspec.structs.replace(slot, learner=Copy(nodes.replicas["B"], version)))
    in_sync = {item.slot for kind, item in nodes.asks if kind is SlotRequestKind.IN_SYNC}
    assert in_sync == {slot_of(name) for name in NAMES}
    for number in range(1, 31):
        table = nodes.cores["B"].slots[slot_of(f"job/{number}")].table
        assert table.find("one", number) is not None


def test_watcher_sees_every_change_and_is_sent_on_when_the_lock_moves(pair: Nodes) -> None:
    watcher, one = pair.client("A", "w"), pair.client("A", "one")
    watcher.ask(Watch(1, "x"))
    one.acquire("x", 1)
    one.release("x", 1)
    seen = of(WatchNotice, watcher.inbox)
    assert [len(change.lock.holders) for change in seen] == [0, 1, 0]
    pair.promote("B", swap=True)
    assert of(Refusal, watcher.inbox)[0].code == "moved"


def test_broken_lease_is_reported_not_renewed_and_freed_when_it_runs_out(pair: Nodes) -> None:
    one, two = pair.client("A", "one"), pair.client("A", "two")
    generation = granted(one.acquire("x", 1)).generation
    two.acquire("x", 1)
    wrong = of(Refusal, two.ask(Break(50, "x", generation + 1)))[0]
    assert wrong.code == "not-held"
    assert str(generation) in wrong.text
    answer = of(BreakReply, two.ask(Break(51, "x", generation)))[0]
    assert not answer.freed
    assert [(notice.reason, notice.generation) for notice in of(LossNotice, one.inbox)] == [
        ("broken", generation)
    ]
    assert not of(KeepaliveReply, one.keep(through=1, count=1, digest=mix(1)))[0].agreed
    kept = of(
        KeepaliveReply, one.keep(through=1, listed=[SlotList(slot_of("x"), [ListedAcquisition(1, "x")])])
    )[0]
    assert kept.acquisitions == [AcquisitionVerdict(1, Verdict.LOST, 0)]
    assert of(GrantReply, two.inbox) == []
    one.release("x", 1)
    granted(two.inbox)


@pytest.mark.parametrize("how", ["crash", "move", "move and back", "copied later"])
def test_a_broken_lease_is_not_renewed_by_the_next_primary_either(pair: Nodes, how: str) -> None:
    """The holder has not heard of it; the next primary tells it, and frees the lock when the lease has run out."""
    one, two = pair.client("A", "one"), pair.client("A", "two")
    if how == "copied later":
        pair.assign("A")
    generation = granted(one.acquire("x", 1)).generation
    two.ask(Break(51, "x", generation))
    if how == "copied later":
        copy = pair.copy_of("B")
        pair.slots(lambda slot: msgspec.structs.replace(slot, backup=copy))
    node = "B"
    if how in ("move", "move and back"):
        pair.promote("B", swap=True)
    else:
        pair.crash("A")
        pair.promote("B")
    if how == "move and back":
        pair.promote("A", swap=True)
        node = "A"
    pair.advance(4 * S)
    again, waiter = pair.client(node, "one", number=2), pair.client(node, "two", number=2)
    kept = of(KeepaliveReply, again.keep(through=1, count=1, digest=mix(1)))[0]
    assert not kept.agreed
    waiter.acquire("x", 2)
    assert of(GrantReply, waiter.inbox) == []
    kept = of(
        KeepaliveReply, again.keep(through=1, listed=[SlotList(slot_of("x"), [ListedAcquisition(1, "x")])])
    )[0]
    assert kept.acquisitions == [AcquisitionVerdict(1, Verdict.LOST, 0)]
    for _ in range(12):
        pair.advance(S)
        again.keep(through=1, count=1, digest=mix(1))
        waiter.keep(through=2, count=1, digest=mix(2))
    granted(waiter.inbox)
    pair.advance(12 * S)  # what an earlier reign had to do at some time is of no account


def test_list_comes_in_pages_that_miss_nothing(pair: Nodes) -> None:
    client = pair.client("A", "one")
    for number in range(1, 31):
        client.acquire(f"job/{number}", number)
    client.acquire("other", 31)
    names: list[str] = []
    slot, after = 0, ""
    while slot >= 0:
        page = of(ListReply, client.ask(List(100, "job/", slot, after, 7)))[0]
        assert len(page.locks) <= 7
        names += [lock.name for lock in page.locks]
        slot, after = page.next_slot, page.next_name
    assert sorted(names) == sorted(f"job/{number}" for number in range(1, 31))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"name": ""}, "empty"),
        ({"name": "x" * 1025}, "the limit is 1024"),
        ({"ttl_ms": 0}, "choose a longer one"),
        ({"ttl_ms": 30_001}, "coordinator lease: choose a shorter one with ttl=… or --ttl"),
        ({"session": ""}, "session id"),
        ({"acquisition": 0}, "start at 1"),
        ({"mode": 9}, "mode"),
        ({"waited_ms": -1}, "wait so far"),
    ],
)
def test_bad_acquire_is_refused_with_a_sentence_and_changes_nothing(
    pair: Nodes, change: dict[str, object], part: str
) -> None:
    client = pair.client("A", "one")
    values = {
        "request": 1,
        "session": "s",
        "ttl_ms": 1_000,
        "owner": "o",
        "acquisition": 1,
        "name": "x",
    } | change
    refused = of(Refusal, client.ask(Acquire(**values)))[0]  # type: ignore[arg-type]
    assert refused.code == "invalid"
    assert part in refused.text
    assert pair.cores["A"].status().locks == 0


def test_generations_run_out_only_until_more_are_reserved() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    nodes.slots(lambda slot: msgspec.structs.replace(slot, generation_below=slot.generation_from + 1))
    client = nodes.client("A", "one")
    first = granted(client.acquire("x", 1)).generation
    client.release("x", 1)
    assert of(GrantReply, client.acquire("x", 2)) == []
    assert {kind for kind, _ in nodes.asks} == {SlotRequestKind.EXTEND}
    version = nodes.state.version + 1
    slots = tuple(
        msgspec.structs.replace(slot, generation_below=slot.generation_below + 10)
        for slot in nodes.state.slots
    )
    nodes.state = msgspec.structs.replace(nodes.state, version=version, slots=slots)
    nodes.tell()
    assert of(GrantReply, client.inbox)[-1].generation == first + 1
