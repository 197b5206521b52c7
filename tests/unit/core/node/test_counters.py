"""The counts of a node: each event is in one of them, and gauges follow the tables through reigns."""

from __future__ import annotations

import pytest

from lockring.core.access import NOTHING, Limits, Quota
from lockring.core.histograms import LONG, NOTED_MAX, SHORT, Durations, Histogram
from lockring.core.node import ENDINGS, EXPIRED, OUTCOMES, NodeCore
from lockring.core.node.counters import PREFIXES_MAX, NodeCounters
from lockring.protocol import Break, Describe, FollowGroup, GrantReply, Mode, Refusal, Watch
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Nodes, S, of

EXCLUSIVE, SHARED = int(Mode.EXCLUSIVE), int(Mode.SHARED)


@pytest.fixture
def alone() -> Nodes:
    nodes = Nodes("A")
    nodes.assign("A")
    nodes.advance(200 * MS)
    return nodes


@pytest.fixture
def pair() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    nodes.advance(200 * MS)
    return nodes


def held(core: NodeCore, now_ns: int = 0) -> tuple[list[int], list[int]]:
    """Return holders and locks by mode."""
    holdings = core.service.reports.holdings(now_ns)
    return list(holdings.holders), list(holdings.locks)


def failed(core: NodeCore, outcome: str, mode: int = EXCLUSIVE) -> int:
    return core.counters.all.failed_waits[mode * len(OUTCOMES) + OUTCOMES.index(outcome)].count


def ended(core: NodeCore, ending: int, mode: int = EXCLUSIVE) -> int:
    return core.counters.all.holds[mode * ENDINGS + ending].count


def test_durations_are_counted_in_the_bucket_below_whose_end_they_are() -> None:
    durations = Durations((17, 19))
    for duration_ns in (0, 2**17 - 1, 2**17, 2**19 - 1, 2**19, 10**18):
        durations.observe(duration_ns)
    assert durations.bounds == (2**17, 2**19)
    assert durations.counts == [2, 2, 2]
    assert durations.count == 6
    assert durations.total == 10**18 + 2**18 + 2**20 - 2


@pytest.mark.parametrize("ends", [SHORT, LONG])
def test_every_duration_is_in_one_bucket(ends: tuple[int, ...]) -> None:
    durations = Durations(ends)
    for power in range(60):
        durations.observe(2**power)
    assert sum(durations.counts) == durations.count == 60
    assert len(durations.counts) == len(durations.bounds) + 1


def test_durations_count_at_once_however_many_wait_to_be_counted() -> None:
    durations = Durations((17, 19))
    for many in range(1, 3 * NOTED_MAX):
        durations.observe(many % 3 << 18)
        assert durations.count == many
        assert len(durations.noted) < NOTED_MAX
        third = many // 3
        assert durations.counts == [third, (many + 2) // 3, (many + 1) // 3]
        assert durations.total == ((many + 2) // 3 << 18) + ((many + 1) // 3 << 19)


def test_numbers_are_counted_in_the_bucket_whose_bound_they_reach() -> None:
    histogram = Histogram((10, 20))
    for value in (0, 10, 11, 20, 21, 10**12):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.total == 10**12 + 62
    assert histogram.count == 6


def test_a_grant_is_counted_once_when_it_is_answered(pair: Nodes) -> None:
    client = pair.client("A", "first")
    assert of(GrantReply, client.acquire("x", 1))
    counters = pair.cores["A"].counters
    assert counters.all.answers[EXCLUSIVE].count == 1
    assert counters.all.waits[EXCLUSIVE].count == 0
    client.acquire("x", 1)  # again: its answer may be lost
    assert counters.all.answers[EXCLUSIVE].count == 1
    assert pair.cores["B"].counters.all.answers[EXCLUSIVE].count == 0


def test_the_wait_and_the_hold_are_counted_with_their_time(alone: Nodes) -> None:
    first, second = alone.client("A", "first"), alone.client("A", "second")
    first.acquire("x", 1)
    second.acquire("x", 1, wait_ms=60_000)
    counters = alone.cores["A"].counters
    assert counters.all.waiting[EXCLUSIVE] == 1
    alone.advance(2 * S)
    first.release("x", 1)
    assert counters.all.waiting[EXCLUSIVE] == 0
    assert counters.all.waits[EXCLUSIVE].count == 1
    assert counters.all.waits[EXCLUSIVE].total == pytest.approx(2 * S, rel=0.1)
    holds = counters.all.holds[0]
    assert holds.count == 1
    assert holds.total == pytest.approx(2 * S, rel=0.1)


def test_waits_that_end_without_a_grant_are_counted_by_outcome(alone: Nodes) -> None:
    first, second = alone.client("A", "first"), alone.client("A", "second")
    core = alone.cores["A"]
    first.acquire("x", 1)
    second.acquire("x", 1, wait_ms=0)
    assert failed(core, "timeout") == 1
    second.acquire("x", 2, wait_ms=100)
    alone.advance(300 * MS)
    assert failed(core, "timeout") == 2
    second.acquire("x", 3, wait_ms=60_000)
    second.release("x", 3)
    assert failed(core, "cancelled") == 1
    assert core.counters.all.waiting[EXCLUSIVE] == 0
    assert core.counters.refused["Acquire", "timeout"] == 2


def test_a_lost_session_is_counted_as_a_loss_and_no_release(alone: Nodes) -> None:
    client = alone.client("A", "first")
    client.acquire("x", 1)
    alone.advance(30 * S, 500 * MS)
    core = alone.cores["A"]
    assert ended(core, EXPIRED) == 1
    assert ended(core, 0) == 0


@pytest.mark.parametrize("force", [False, True])
def test_a_break_is_counted_when_it_is_ordered_and_a_loss_when_the_holder_goes(
    alone: Nodes, force: bool
) -> None:
    client = alone.client("A", "first")
    (grant,) = of(GrantReply, client.acquire("x", 1))
    for request in (900, 901):
        client.ask(Break(request, "x", grant.generation, force))
    core = alone.cores["A"]
    assert core.counters.breaks == [not force, force]
    alone.advance(30 * S, 500 * MS)
    assert ended(core, 2) == 1


def test_gauges_count_holders_and_locks_by_mode(alone: Nodes) -> None:
    core = alone.cores["A"]
    clients = [alone.client("A", f"client {number}") for number in range(3)]
    clients[0].acquire("x", 1)
    for client in clients:
        client.acquire("y", 2, mode=Mode.SHARED)
    clients[0].acquire("z", 3, mode=Mode.SEMAPHORE, permits=2)
    assert held(core) == ([1, 3, 1], [1, 1, 1])
    clients[0].release("y", 2)
    assert held(core) == ([1, 2, 1], [1, 1, 1])
    for client in clients[1:]:
        client.release("y", 2)
    clients[0].release("x", 1)
    assert held(core) == ([0, 0, 1], [0, 0, 1])


def test_gauges_are_those_of_the_primary_and_follow_a_promotion(pair: Nodes) -> None:
    clients = [pair.client("A", f"client {number}") for number in range(2)]
    for client in clients:
        client.acquire("y", 1, mode=Mode.SHARED)
    clients[0].acquire("x", 2)
    pair.advance(200 * MS)
    assert held(pair.cores["A"]) == ([1, 2, 0], [1, 1, 0])
    assert held(pair.cores["B"]) == ([0, 0, 0], [0, 0, 0])
    pair.crash("A")
    pair.promote("B")
    pair.advance(5 * S)
    assert held(pair.cores["B"]) == ([1, 2, 0], [1, 1, 0])


def test_requests_are_counted_by_kind_and_refusals_by_code(alone: Nodes) -> None:
    client = alone.client("A", "first")
    client.acquire("x", 1)
    client.ask(Describe(900, "x"))
    client.ask(Break(901, "x", 999))
    counters = alone.cores["A"].counters
    handled = {each.kind: each.count for each in counters.handled}
    assert (handled["Acquire"], handled["Describe"], handled["Break"]) == (1, 1, 1)
    assert counters.refused == {("Break", "not-held"): 1}
    assert counters.refused_inside == {"Break": 1}


def test_a_request_that_lacks_a_right_or_passes_a_limit_is_counted(alone: Nodes) -> None:
    limits = Limits(locks=1)
    access = grantee("web", "acquire *", limits=limits, quota=Quota("web", limits))
    client = alone.client("A", "first", access=access)
    client.acquire("x", 1)
    client.acquire("y", 2)
    client.ask(Describe(900, "x"))
    counters = alone.cores["A"].counters
    assert counters.throttled == {"locks": 1}
    assert counters.refused == {("Acquire", "overloaded"): 1, ("Describe", "denied"): 1}


@pytest.mark.parametrize("code", ["denied", "overloaded"])
def test_a_waiter_that_its_node_refuses_in_its_turn_is_counted_as_refused(alone: Nodes, code: str) -> None:
    limits = Limits(locks=1)
    access = grantee("web", "acquire *", limits=limits, quota=Quota("web", limits))
    holder, waiter = alone.client("A", "first"), alone.client("A", "second", access=access)
    holder.acquire("x", 1)
    waiter.acquire("x", 1, wait_ms=60_000)
    if code == "denied":
        access.permissions = grantee("web", "acquire y").permissions
    else:
        waiter.acquire("y", 2)
    holder.release("x", 1)
    assert [each.code for each in of(Refusal, waiter.inbox)] == [code]
    core = alone.cores["A"]
    assert (failed(core, "refused"), failed(core, "cancelled")) == (1, 0)
    assert core.counters.refused == {("Acquire", code): 1}
    assert core.counters.all.waiting[EXCLUSIVE] == 0


def test_a_stream_that_its_node_ends_is_counted_under_its_own_kind(pair: Nodes) -> None:
    access = grantee("web", "watch *")
    member, watcher, other = (
        pair.client("A", session, access=each)
        for session, each in (("first", None), ("second", None), ("third", access))
    )
    pair.assign("A", "B", "group:g")
    member.acquire("group:g", 1, mode=Mode.SHARED)
    member.ask(FollowGroup(900, "group:g", "first", 1))
    watcher.ask(Watch(900, "x"))
    other.ask(Watch(900, "x"))
    access.permissions = NOTHING
    member.acquire("x", 2)
    counters = pair.cores["A"].counters
    assert counters.refused == {("Watch", "denied"): 1}
    pair.promote("B", "x", "group:g")
    pair.advance(S)
    assert counters.refused == {("Watch", "denied"): 1, ("Watch", "moved"): 1, ("FollowGroup", "moved"): 1}


def test_renewals_are_counted_by_verdict_with_the_part_of_the_lease_that_was_left(alone: Nodes) -> None:
    client = alone.client("A", "first")
    client.acquire("x", 1)
    alone.advance(5 * S, 100 * MS)
    client.keep(count=7, digest=7)
    counters = alone.cores["A"].counters
    assert counters.renewals[:2] == [0, 1]
    assert counters.lease_left.count == 1
    assert 4 <= counters.lease_left.total <= 6  # tenths


def test_the_lag_of_a_copy_is_counted_at_its_primary(pair: Nodes) -> None:
    before = pair.cores["A"].counters.replication.count
    pair.client("A", "first").acquire("x", 1)
    assert pair.cores["A"].counters.replication.count > before
    assert pair.cores["A"].service.reports.holdings(0).backup_lease_left_ns is not None
    assert pair.cores["B"].service.reports.holdings(0).backup_lease_left_ns is None


def test_locks_under_a_prefix_are_counted_apart_under_the_longest_that_fits(alone: Nodes) -> None:
    core = alone.cores["A"]
    core.counters.count_apart(["job/", "job/1", "job/"])
    client = alone.client("A", "first")
    for number, name in enumerate(("job/1", "job/2", "x"), 1):
        client.acquire(name, number)
    client.release("job/1", 1)
    counts = core.counters.by_prefix
    assert counts is not None
    assert {prefix: each.answers[EXCLUSIVE].count for prefix, each in counts.items()} == {
        "job/1": 1,
        "job/": 1,
    }
    assert core.counters.all.answers[EXCLUSIVE].count == 1
    assert counts["job/1"].holds[0].count == 1


def test_no_more_prefixes_are_taken_than_a_label_may_have_values() -> None:
    with pytest.raises(AssertionError):
        NodeCounters().count_apart([f"{number}/" for number in range(PREFIXES_MAX + 1)])
