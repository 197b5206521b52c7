"""A node's part in groups: how views are formed, numbered, sent and settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lockring.core.node import groups as node_groups
from lockring.ids import LockName
from lockring.protocol import (
    CloseSession,
    Describe,
    DescribeGroup,
    DescribeReply,
    FollowGroup,
    GrantReply,
    MemberRecord,
    Message,
    Mode,
    Refusal,
    ReleaseReply,
    SettlementNotice,
    Unwatch,
    View,
    ViewAck,
    payload_of,
)
from lockring.slots import slot_of
from tests.unit.core.node import world as world
from tests.unit.core.node.world import MS, Client, Nodes, S, of

LOCK = LockName("group:g")


@pytest.fixture(autouse=True)
def _slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "NAMES", (LOCK, "x"))


@pytest.fixture
def pair() -> Nodes:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def join(client: Client, name: str = "", *, weight: int = 1, ttl_ms: int = 10_000) -> GrantReply:
    record = MemberRecord(name or client.session, weight, b"of " + client.session.encode())
    [granted] = of(
        GrantReply, client.acquire(LOCK, 1, mode=Mode.SHARED, payload=payload_of(record), ttl_ms=ttl_ms)
    )
    return granted


def follow(client: Client, *, view: int = 0, name: str = LOCK) -> list[Message]:
    return client.ask(FollowGroup(next(client.requests), name, client.session, 1, view))


def enter(nodes: Nodes, session: str, node: str = "A") -> Client:
    """A member that follows."""
    client = nodes.client(node, session)
    join(client)
    follow(client)
    return client


def see(client: Client, view: int) -> list[Message]:
    return client.ask(ViewAck(next(client.requests), LOCK, client.session, 1, view))


def views(client: Client) -> list[View]:
    return of(View, client.inbox)


def ids(view: View) -> list[str]:
    return [member.id for member in view.members]


def look(client: Client) -> View:
    [view] = of(View, client.ask(DescribeGroup(next(client.requests), LOCK)))
    return view


def test_first_member_gets_a_view_at_once_with_a_number_above_its_token(pair: Nodes) -> None:
    one = pair.client("A", "one")
    granted = join(one, weight=7)
    [view] = of(View, follow(one))
    assert view.view > granted.generation
    assert not view.settled
    [member] = view.members
    assert (member.id, member.weight, member.payload, member.owner, member.fencing_token) == (
        "one",
        7,
        b"of one",
        "one",
        granted.generation,
    )
    [settled] = of(SettlementNotice, see(one, view.view))
    assert settled == SettlementNotice(view.request, view.view)


def test_changes_are_batched_into_one_view_a_second_after_the_last(pair: Nodes) -> None:
    one = enter(pair, "one")
    for number in range(3):
        enter(pair, f"more-{number}")
        pair.advance(600 * MS)
    assert len(views(one)) == 1
    pair.advance(500 * MS)
    assert [ids(view) for view in views(one)] == [["one"], ["one", "more-0", "more-1", "more-2"]]


def test_changes_without_end_make_a_view_after_five_seconds(pair: Nodes) -> None:
    one = enter(pair, "one")
    for number in range(12):
        enter(pair, f"more-{number}")
        pair.advance(500 * MS)
    assert len(views(one)) == 2


def test_member_that_comes_and_goes_within_the_window_makes_no_view(pair: Nodes) -> None:
    one = enter(pair, "one")
    two = enter(pair, "two")
    pair.advance(500 * MS)
    two.release(LOCK, 1)
    pair.advance(6 * S)
    assert len(views(one)) == 1


def test_view_is_settled_once_all_its_members_have_seen_it_and_not_before(pair: Nodes) -> None:
    one, two = enter(pair, "one"), enter(pair, "two")
    pair.advance(1100 * MS)
    number = views(one)[-1].view
    assert look(one).awaited == ["one", "two"]
    assert of(SettlementNotice, see(one, number)) == []
    assert see(two, number - 1) == []  # of an older one
    assert look(one).awaited == ["two"]
    assert of(SettlementNotice, see(two, number)) == [SettlementNotice(2, number)]
    assert one.inbox[-1] == SettlementNotice(2, number) or of(SettlementNotice, one.inbox)[-1].view == number
    assert look(one).settled


def test_member_that_joins_after_a_view_was_formed_is_not_waited_for(pair: Nodes) -> None:
    one = enter(pair, "one")
    late = pair.client("A", "late")
    join(late)
    assert of(SettlementNotice, see(one, views(one)[0].view)) != []
    [view] = of(View, follow(late))
    assert ids(view) == ["one"]
    assert view.settled


@pytest.mark.parametrize("how", ["release", "expiry", "close"])
def test_member_that_is_gone_is_not_waited_for(pair: Nodes, how: str) -> None:
    one = enter(pair, "one")
    two = pair.client("A", "two")
    join(two, ttl_ms=3_000)
    follow(two)
    pair.advance(1100 * MS)
    number = views(one)[-1].view
    see(one, number)
    assert of(SettlementNotice, one.inbox) == []
    if how == "release":
        two.release(LOCK, 1)
    elif how == "close":
        two.ask(CloseSession(next(two.requests), "two"))
    else:
        pair.advance(3 * S)
    assert [settled.view for settled in of(SettlementNotice, one.inbox)] == [number]
    pair.advance(1100 * MS)
    assert ids(views(one)[-1]) == ["one"]


def test_plain_holders_are_not_members_and_are_not_waited_for(pair: Nodes) -> None:
    plain = pair.client("A", "plain")
    for number, payload in enumerate((b"", b"what is this", msgspec.msgpack.encode(["member", "", 1]))):
        assert of(GrantReply, plain.acquire(LOCK, 10 + number, mode=Mode.SHARED, payload=payload))
    one = enter(pair, "one")
    assert ids(views(one)[0]) == ["one"]
    assert of(SettlementNotice, see(one, views(one)[0].view))


def test_view_goes_out_only_once_the_copy_knows_its_number(pair: Nodes) -> None:
    one = pair.client("A", "one")
    join(one)
    pair.cut |= {("A", "B")}
    assert follow(one) == []
    pair.cut.clear()
    pair.cores["A"].disconnected(pair.replicas["B"], now_ns=pair.now)
    pair.cores["A"].connected(pair.replicas["B"], now_ns=pair.now)
    pair.settle()
    [view] = views(one)
    assert pair.cores["B"].slots[slot_of(LOCK)].table.highest >= view.view


def test_no_view_leaves_without_the_right_to_serve(pair: Nodes) -> None:
    one, two = enter(pair, "one"), enter(pair, "two")
    pair.advance(1100 * MS)
    number = views(one)[-1].view
    see(one, number)
    pair.cut |= {("A", "B"), ("B", "A")}
    pair.advance(2500 * MS)
    assert of(SettlementNotice, see(two, number)) == []


def test_numbers_grow_over_a_failover_and_the_new_primary_forms_a_view_at_once(pair: Nodes) -> None:
    enter(pair, "one")
    last = views(enter(pair, "two"))[-1].view
    pair.crash("A")
    pair.advance(3 * S)
    pair.promote("B")
    pair.advance(3 * S)
    one = pair.client("B", "one")
    [view] = of(View, follow(one, view=last))
    assert view.view > last
    assert ids(view) == ["one", "two"]
    assert look(one).awaited == ["one", "two"]


def test_member_that_follows_again_names_the_view_that_it_has_seen(pair: Nodes) -> None:
    one, two = enter(pair, "one"), enter(pair, "two")
    pair.advance(1100 * MS)
    number = views(one)[-1].view
    see(one, number)
    pair.cores["A"].disconnected(one.connection, now_ns=pair.now)
    pair.settle()
    assert look(two).awaited == ["two"]  # it is not there, but its lease is
    again = pair.client("A", "one")
    see(two, number)
    [view] = of(View, follow(again, view=number))
    assert (view.view, view.settled) == (number, True)


def test_last_follower_takes_the_group_along_and_the_next_one_gets_a_new_view(pair: Nodes) -> None:
    one = enter(pair, "one")
    number = views(one)[-1].view
    assert of(ReleaseReply, one.ask(Unwatch(next(one.requests), 2))) == [ReleaseReply(3, True)]
    assert of(ReleaseReply, one.ask(Unwatch(next(one.requests), 2))) == [ReleaseReply(4, False)]
    assert look(one).view == 0
    assert look(one).awaited == ["one"]
    [view] = of(View, follow(one, view=number))
    assert view.view > number


def test_followers_are_sent_on_when_the_slot_moves(pair: Nodes) -> None:
    one = enter(pair, "one")
    pair.promote("B", swap=True)
    assert [refused.code for refused in of(Refusal, one.inbox)] == ["moved"]
    assert pair.cores["A"].service.groups.view_of(LOCK) == 0


def test_follower_must_be_a_member_and_the_name_that_of_a_group(pair: Nodes) -> None:
    one = pair.client("A", "one")
    assert [refused.code for refused in of(Refusal, follow(one))] == ["not-held"]
    join(one)
    assert [refused.code for refused in of(Refusal, follow(one, name="x"))] == ["invalid"]
    [refused] = of(Refusal, one.ask(DescribeGroup(next(one.requests), "group:")))
    assert refused.code == "invalid"
    assert see(one, 1) == []


def test_one_request_follows_one_group_and_a_connection_a_bounded_number(
    pair: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = enter(pair, "one")
    follow(one)
    monkeypatch.setattr(node_groups, "FOLLOWS_MAX", 2)
    assert [refused.code for refused in of(Refusal, follow(one))] == ["overloaded"]


def test_members_beyond_the_bound_wait_until_there_is_room(
    pair: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_groups, "MEMBERS_MAX", 2)
    one, two, three = (enter(pair, name) for name in ("one", "two", "three"))
    pair.advance(1100 * MS)
    assert ids(views(three)[-1]) == ["one", "two"]
    two.release(LOCK, 1)
    pair.advance(1100 * MS)
    assert ids(views(three)[-1]) == ["one", "three"]
    assert ids(views(one)[-1]) == ["one", "three"]


def test_group_without_members_looks_empty_and_settled(pair: Nodes) -> None:
    view = look(pair.client("A", "one"))
    assert (view.view, view.settled, view.members, view.awaited) == (0, True, [], [])


def test_description_of_a_lock_has_the_number_of_the_view(pair: Nodes) -> None:
    one = enter(pair, "one")
    [described] = of(DescribeReply, one.ask(Describe(next(one.requests), LOCK)))
    assert described.lock.view == views(one)[-1].view


def test_view_waits_until_the_slot_has_a_generation_left(pair: Nodes) -> None:
    one = pair.client("A", "one")
    granted = join(one)

    def limit(below: int) -> Callable[[Any], Any]:
        return lambda slot: msgspec.structs.replace(slot, generation_below=below)

    pair.slots(limit(granted.generation + 1))
    assert follow(one) == []
    pair.advance(200 * MS)
    assert views(one) == []
    pair.slots(limit(granted.generation + 1_000_000))
    pair.advance(200 * MS)
    assert len(views(one)) == 1


def test_a_large_view_is_sent_to_few_members_in_a_turn_and_to_all_in_the_end(
    pair: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [enter(pair, f"m-{number}") for number in range(6)]
    pair.advance(3 * S)
    monkeypatch.setattr(node_groups, "VIEW_BYTES_PER_TURN", 1)
    told = [len(views(each)) for each in members]
    one_more = pair.client("A", "one more")
    join(one_more)
    core = pair.cores["A"]
    turns = 0
    while any(len(views(each)) == before for each, before in zip(members, told, strict=True)):
        before_turn = sum(len(views(each)) for each in members)
        pair.advance(max(MS, core.next_deadline_ns() - pair.now), step_ns=10 * S)
        turns += 1
        assert sum(len(views(each)) for each in members) - before_turn <= 1
        assert turns < 1_000
    assert len({views(each)[-1].view for each in members}) == 1
    assert not core.service.groups.has_more


def test_a_newer_view_replaces_one_that_was_not_sent_to_every_member(
    pair: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [enter(pair, f"m-{number}") for number in range(4)]
    pair.advance(3 * S)
    monkeypatch.setattr(node_groups, "VIEW_BYTES_PER_TURN", 0)
    join(pair.client("A", "late"))
    pair.advance(1100 * MS)
    assert pair.cores["A"].service.groups.has_more is True
    monkeypatch.undo()
    monkeypatch.setattr(world, "NAMES", (LOCK, "x"))
    join(pair.client("A", "later"))
    pair.advance(3 * S)
    assert {tuple(ids(views(each)[-1])) for each in members} == {
        ("m-0", "m-1", "m-2", "m-3", "late", "later")
    }
