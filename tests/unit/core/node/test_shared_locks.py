"""Shared mode at a node, and what a holder leaves for others to see."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.core.node import locks
from lockring.core.node import queries as node_queries
from lockring.protocol import (
    PAYLOAD_BYTES_MAX,
    Describe,
    DescribeReply,
    GrantReply,
    List,
    ListReply,
    LockRecord,
    Mode,
    Refusal,
)
from lockring.slots import slot_of
from tests.unit.core.node.world import MS, Client, Nodes, S, of


@pytest.fixture
def pair() -> Nodes:
    """A serves every slot, B is its backup."""
    nodes = Nodes("A", "B")
    nodes.assign("A", "B")
    return nodes


def described(client: Client, name: str) -> LockRecord:
    answers = of(DescribeReply, client.ask(Describe(900, name)))
    assert len(answers) == 1
    return answers[0].lock


def share(client: Client, name: str, acquisition: int = 1, **more: Any) -> bool:
    return bool(of(GrantReply, client.acquire(name, acquisition, mode=Mode.SHARED, **more)))


def test_readers_that_come_after_a_writer_wait_for_it_and_are_then_granted_together(pair: Nodes) -> None:
    readers = [pair.client("A", f"reader{number}") for number in range(4)]
    writer = pair.client("A", "writer")
    assert share(readers[0], "x")
    assert share(readers[1], "x")
    assert of(GrantReply, writer.acquire("x", 1)) == []
    assert not share(readers[2], "x")
    assert not share(readers[3], "x")
    lock = described(writer, "x")
    assert (Mode(lock.mode), len(lock.holders)) == (Mode.SHARED, 2)
    assert [Mode(waiter.mode) for waiter in lock.waiters] == [Mode.EXCLUSIVE, Mode.SHARED, Mode.SHARED]
    for reader in readers[:2]:
        reader.release("x", 1)
    assert of(GrantReply, writer.inbox)
    assert Mode(described(writer, "x").mode) is Mode.EXCLUSIVE
    writer.release("x", 1)
    tokens = [of(GrantReply, reader.inbox)[0].generation for reader in readers]
    assert tokens == sorted(set(tokens))
    assert len(described(writer, "x").holders) == 2


def test_writer_that_gives_up_lets_the_readers_behind_it_in(pair: Nodes) -> None:
    first, writer, second = (pair.client("A", name) for name in ("first", "writer", "second"))
    assert share(first, "x")
    writer.acquire("x", 1, wait_ms=500)
    assert not share(second, "x")
    pair.advance(600 * MS)
    assert [refused.code for refused in of(Refusal, writer.inbox)] == ["timeout"]
    assert of(GrantReply, second.inbox)


def test_reader_that_a_waiting_writer_blocks_gets_that_reason(pair: Nodes) -> None:
    first, writer, second = (pair.client("A", name) for name in ("first", "writer", "second"))
    assert share(first, "x")
    writer.acquire("x", 1)
    tried = of(Refusal, second.acquire("x", 1, mode=Mode.SHARED, wait_ms=0))
    second.acquire("x", 2, mode=Mode.SHARED, wait_ms=200)
    pair.advance(300 * MS)
    waited = of(Refusal, second.inbox)[1:]
    told = "lock 'x' is shared by 'first', and 'writer' waits before you to hold it alone"
    assert [refused.text for refused in (*tried, *waited)] == [told, told]
    other = of(Refusal, second.acquire("x", 3, wait_ms=0))
    assert [refused.text for refused in other] == ["lock 'x' is held by 'first'"]


@pytest.mark.parametrize("replicated_by", ["snapshot", "tail"])
def test_readers_and_their_payloads_survive_the_death_of_the_primary(replicated_by: str) -> None:
    nodes = Nodes("A", "B")
    nodes.assign("A", "B" if replicated_by == "tail" else None)
    one, two = nodes.client("A", "one"), nodes.client("A", "two")
    assert share(one, "x", payload=b"10.0.0.1:80")
    assert share(two, "x")
    if replicated_by == "snapshot":
        nodes.slots(
            lambda slot: type(slot)(
                **{
                    **{name: getattr(slot, name) for name in slot.__struct_fields__},
                    "backup": nodes.copy_of("B"),
                }
            )
        )
        nodes.advance(1 * S)
    nodes.crash("A")
    nodes.promote("B")
    nodes.advance(3 * S)
    three = nodes.client("B", "three")
    lock = described(three, "x")
    assert Mode(lock.mode) is Mode.SHARED
    assert [(holder.owner, holder.payload) for holder in lock.holders] == [
        ("one", b"10.0.0.1:80"),
        ("two", b""),
    ]
    assert share(three, "x")
    assert of(GrantReply, nodes.client("B", "four").acquire("x", 1)) == []


def test_waiter_brings_the_payload_of_its_grant(pair: Nodes) -> None:
    one, two = pair.client("A", "one"), pair.client("A", "two")
    one.acquire("x", 1)
    two.acquire("x", 1, payload=b"later")
    one.release("x", 1)
    assert [holder.payload for holder in described(two, "x").holders] == [b"later"]
    copy = pair.cores["B"].slots[slot_of("x")].table
    assert [copy.payload_of(holder) for holder in copy.holders()] == [b"later"]


def test_payload_that_is_too_long_is_refused_and_changes_nothing(pair: Nodes) -> None:
    one = pair.client("A", "one")
    refused = of(Refusal, one.acquire("x", 1, payload=bytes(PAYLOAD_BYTES_MAX + 1)))
    assert [message.code for message in refused] == ["invalid"]
    assert described(one, "x").holders == []
    assert share(one, "x", payload=bytes(PAYLOAD_BYTES_MAX))


def test_shared_holders_of_one_lock_have_a_bound_and_the_next_one_waits(
    pair: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "HOLDERS_MAX", 2)
    one = pair.client("A", "one")
    assert share(one, "x", 1)
    assert share(one, "x", 2)
    assert not share(one, "x", 3)
    one.release("x", 1)
    assert len(of(GrantReply, one.inbox)) == 3


def test_page_of_a_list_ends_before_its_holders_are_too_many_for_a_message(
    pair: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_queries, "LIST_HOLDERS_MAX", 3)
    one = pair.client("A", "one")
    for number, name in enumerate(("x", "y", "z", "x", "y", "z", "x", "y", "z"), start=1):
        assert share(one, name, number)
    names: list[str] = []
    slot, after, pages = 0, "", 0
    while slot >= 0:
        page = of(ListReply, one.ask(List(800 + pages, "", slot, after)))[0]
        names += [lock.name for lock in page.locks]
        assert sum(len(lock.holders) for lock in page.locks) <= 3
        slot, after, pages = page.next_slot, page.next_name, pages + 1
    assert sorted(names) == ["x", "y", "z"]
