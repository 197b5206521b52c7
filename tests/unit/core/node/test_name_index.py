"""The names of a slot in order: new ones are added to them, in few steps however many there are."""

from __future__ import annotations

from itertools import count, islice
from typing import cast

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockring.core.node import name_index
from lockring.core.node.name_index import NameIndex, SlotNames
from lockring.core.node.reign import Reign
from lockring.core.node.slot import NodeSlot
from lockring.ids import LockName
from lockring.slots import SLOTS, slot_of
from tests.unit.core.node.world import MS, Nodes

SLOT = slot_of("job/1")
NAMES = list(
    islice((name for name in (f"job/{number}" for number in count(1)) if slot_of(name) == SLOT), 260)
)


def slot_with_client() -> tuple[Nodes, NodeSlot]:
    nodes = Nodes("A")
    nodes.assign("A", None, *NAMES)
    nodes.advance(200 * MS)
    return nodes, nodes.cores["A"].service._context.slots[SLOT]


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(0, 109), max_size=100), min_size=1, max_size=4), st.booleans())
def test_names_are_complete_and_in_order_however_many_come_and_go_at_once(
    turns: list[list[int]], is_merged: bool
) -> None:
    nodes, slot = slot_with_client()
    client = nodes.client("A", "s")
    held: dict[str, int] = {}
    acquisition = 0
    index = NameIndex()
    index._kept_min = 0
    index.bring(slot)
    for turn in turns:
        for number in turn:
            name = NAMES[number]
            if name in held:
                client.release(name, held.pop(name))
            else:
                acquisition += 1
                held[name] = acquisition
                client.acquire(name, acquisition)
        if is_merged:
            fresh = [name for name in NAMES[110:] if name not in held]
            for name in fresh[:140]:
                acquisition += 1
                held[name] = acquisition
                client.acquire(name, acquisition)
        known, _ = index.bring(slot)
        assert known.names == sorted(set(known.names))
        assert [name for name in known.names if name in slot.table.locks] == sorted(slot.table.locks)
        if held:
            assert min(held) in known.with_text(min(held))[0]
            first = index.first_name(slot)
            assert first is not None and first <= min(held)
        index.check_invariants({SLOT: slot})


def test_a_lock_that_is_only_waited_for_is_among_the_others() -> None:
    nodes, slot = slot_with_client()
    client = nodes.client("A", "s")
    client.acquire(NAMES[1], 1)
    index = NameIndex()
    index._kept_min = 0
    index.bring(slot)
    nodes.slots(lambda state: msgspec.structs.replace(state, generation_below=state.generation_from), SLOT)
    client.acquire(NAMES[0], 2)
    assert slot.table.locks[LockName(NAMES[0])].waiters, "there is no token for it"
    assert index.bring(slot)[0].names == sorted(NAMES[:2])


@pytest.mark.interpreted
@example({"a", "b"}, "\n")
@example({"a", "b"}, "\nb")
@example({"a", "b", "b\n"}, "\n")
@given(
    st.sets(st.text("ab\né/", min_size=1, max_size=6), max_size=12), st.text("ab\né", min_size=1, max_size=3)
)
def test_names_with_a_text_in_them_are_found_in_all_names_at_once(names: set[str], text: str) -> None:
    known = SlotNames.__new__(SlotNames)
    known._joined, known.names = "", sorted(map(LockName, names))
    for _ in range(2):
        found, effort = known.with_text(text)
        assert found == [name for name in known.names if text in name]
        assert effort >= len(found)


@pytest.mark.interpreted
def test_the_first_name_is_not_known_where_a_newer_one_was_not_put_among_the_others() -> None:
    nodes, slot = slot_with_client()
    client = nodes.client("A", "s")
    index = NameIndex()
    index._kept_min = 0
    assert index.first_name(slot) is None
    client.acquire(NAMES[1], 1)
    index.bring(slot)
    assert index.first_name(slot) == NAMES[1]
    nodes.slots(lambda state: msgspec.structs.replace(state, generation_below=state.generation_from), SLOT)
    client.acquire(NAMES[0], 2)
    assert slot.table.locks[LockName(NAMES[0])].waiters, "there is no token for it"
    assert index.first_name(slot) is None
    index._slots[SLOT].reign = cast("Reign", object())
    assert index.first_name(slot) is None


def test_new_names_count_as_effort_and_none_is_nearly_free() -> None:
    nodes, slot = slot_with_client()
    client = nodes.client("A", "s")
    index = NameIndex()
    index._kept_min = 0
    client.acquire(NAMES[0], 1)
    assert index.bring(slot)[1] > 0
    assert index.bring(slot)[1] == 0
    efforts = []
    acquisition = 1
    for many in (1, 20, 200):
        for name in NAMES[acquisition : acquisition + many]:
            acquisition += 1
            client.acquire(name, acquisition)
        efforts.append(index.bring(slot)[1])
        assert index.bring(slot)[1] == 0
    assert all(effort > 0 for effort in efforts)
    assert efforts[2] > 200, "all are sorted"


@pytest.mark.interpreted
def test_the_names_of_a_former_reign_are_sorted_again_without_a_search() -> None:
    nodes, slot = slot_with_client()
    nodes.client("A", "s").acquire(NAMES[0], 1)
    index = NameIndex()
    index._kept_min = 1
    index.bring(slot)[0].reign = cast("Reign", object())
    for _ in range(SLOTS // 256):
        index.keep_up({SLOT: slot})
    assert index._slots[SLOT].reign is slot.reign


@pytest.mark.interpreted
def test_names_of_many_new_locks_are_sorted_without_waiting_for_the_next_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(name_index, "_KEPT_UP_EFFORT", 1)  # a slot in each turn
    neighbours = list(
        islice((name for name in (f"n/{number}" for number in count()) if slot_of(name) < 200), 20)
    )
    nodes = Nodes("A")
    nodes.assign("A", None, *neighbours)
    nodes.advance(200 * MS)
    index = nodes.cores["A"].service._queries.searches.index
    index._kept_min = 1
    client = nodes.client("A", "s")
    for acquisition, name in enumerate(neighbours, 1):
        client.acquire(name, acquisition)
    known: dict[int, int] = {}
    slots = set(map(slot_of, neighbours))
    while len(known) < len(slots):
        nodes.advance(10 * MS, 10 * MS)
        known |= dict.fromkeys(index._slots.keys() - known.keys(), nodes.now)
    assert known.keys() == slots
    assert max(known.values()) - min(known.values()) <= 20 * len(slots) * MS


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_text_of_all_names_is_given_up_when_no_search_needs_it(is_busy: bool) -> None:
    nodes, slot = slot_with_client()
    client = nodes.client("A", "s")
    for acquisition, name in enumerate(reversed(NAMES), 1):
        client.acquire(name, acquisition)
    index = NameIndex()
    known, _ = index.bring(slot)
    for rounds in (63, 63, 64):
        assert len(known.with_text("job")[0]) == len(NAMES)
        for _ in range(rounds):
            if is_busy:  # the name is there already, and stays
                client.release(NAMES[0], acquisition)
                acquisition += 1
                client.acquire(NAMES[0], acquisition)
            for _ in range(SLOTS // 256):
                index.keep_up({SLOT: slot})
        assert bool(known._joined) == (rounds == 63)
