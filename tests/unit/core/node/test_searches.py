"""Searches at a node: the first locks by name that are wanted, a bounded effort at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lockring.cluster_state import Replica
from lockring.core.client.listings import FindProgress, is_wanted
from lockring.core.node import queries, searches
from lockring.core.node.name_index import NameIndex
from lockring.ids import LockName, SlotNumber, Version
from lockring.protocol import GrantReply, List, ListReply, LockSearch, Mode, Refusal
from lockring.slots import SLOTS, slot_of
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, NAMES, Client, Nodes, S, of


@pytest.fixture(params=[1, 32], ids=["kept", "sorted anew"])
def nodes(request: pytest.FixtureRequest) -> Nodes:
    """A lone node with thirty held locks, two readers of "x", and a waiter of "y"."""
    nodes = Nodes("A")
    index_of(nodes)._kept_min = request.param
    nodes.assign("A", None, *NAMES, *(f"job/{number}" for number in range(31, 60)))
    one, two = nodes.client("A", "web-ONE"), nodes.client("A", "two")
    for number in range(1, 31):
        one.acquire(f"job/{number}", number)
    one.acquire("x", 40, mode=Mode.SHARED)
    two.acquire("x", 1, mode=Mode.SHARED)
    one.acquire("y", 41)
    two.acquire("y", 2)
    return nodes


def index_of(nodes: Nodes) -> NameIndex:
    return nodes.cores["A"].service._queries.searches.index


def found(client: Client, prefix: str = "", *, limit: int = 100, **search: Any) -> FindProgress:
    """Search as a client does, question by question."""
    progress = FindProgress(LockSearch(**search), limit)
    progress.begin(Version(1), [Replica("A", 1)], unserved=0)
    while progress.todo:
        (answer,) = of(ListReply, client.ask(progress.message(next(client.requests), prefix)))
        progress.add_page(answer)
    return progress


def names(progress: FindProgress) -> list[str]:
    return [lock.name for lock in progress.result().locks]


JOBS = sorted(f"job/{number}" for number in range(1, 31))
FIRST = min(JOBS[:5], key=slot_of)
"""Of the first names, the one that is found first."""


def test_a_search_finds_the_first_names_in_order_and_counts_all(nodes: Nodes) -> None:
    result = found(nodes.client("A", "s"), limit=5).result()
    assert [lock.name for lock in result.locks] == JOBS[:5]
    assert (result.matched, result.has_more, result.unserved_slots) == (32, True, 0)


def test_the_next_page_begins_behind_the_last_name(nodes: Nodes) -> None:
    client = nodes.client("A", "s")
    seen: list[str] = []
    has_more = True
    while has_more:
        progress = found(client, limit=7, after=seen[-1] if seen else "")
        assert progress.result().matched == 32
        seen += names(progress)
        has_more = progress.result().has_more
    assert seen == [*JOBS, "x", "y"]


@pytest.mark.parametrize(
    ("prefix", "search", "expected"),
    [
        ("job/1", {}, [name for name in JOBS if name.startswith("job/1")]),
        ("", {"text": "b/30"}, ["job/30"]),
        ("", {"owner": "TWO"}, ["x", "y"]),
        ("x", {"owner": "web-one"}, ["x"]),
        ("", {"mode": Mode.SHARED}, ["x"]),
        ("", {"has_waiters": True}, ["y"]),
        ("x", {"has_waiters": True}, []),
        ("", {"is_held": True, "after": "job/9"}, ["x", "y"]),
        ("", {"after": "job/8", "before": "y"}, ["job/9", "x"]),
        ("", {"owner": "three"}, []),
    ],
)
def test_a_search_leaves_out_what_is_not_wanted(
    nodes: Nodes, prefix: str, search: dict[str, Any], expected: list[str]
) -> None:
    client = nodes.client("A", "s")
    for _ in range(3):  # before the names are sorted, and then
        progress = found(client, prefix, **search)
        assert names(progress) == expected
        if {"mode", "is_held"} & set(search):
            assert progress.result().matched == -1
        elif not {"after", "before"} & set(search):
            assert progress.result().matched == len(expected)


def test_a_lock_that_is_only_waited_for_is_not_found_by_the_mode_of_its_last_holders(nodes: Nodes) -> None:
    waiter, client = nodes.client("A", "w"), nodes.client("A", "s")
    nodes.slots(
        lambda state: msgspec.structs.replace(state, generation_below=state.generation_from), slot_of("x")
    )
    waiter.acquire("x", 1)
    one, two = (each for each in nodes.clients.values() if each.session in ("web-ONE", "two"))
    one.release("x", 40)
    assert names(found(client, mode=Mode.SHARED)) == ["x"]
    two.release("x", 1)
    for prefix in ("", "x"):
        progress = found(client, prefix, mode=Mode.SHARED)
        assert names(progress) == []
        assert progress.result().matched == 0
    assert names(found(client, "x")) == ["x"]
    assert not is_wanted(found(client, "x").result().locks[0], LockSearch(mode=Mode.SHARED))


@pytest.mark.parametrize("search", [{"owner": "web"}, {"mode": Mode.EXCLUSIVE}, {"is_held": True}])
def test_a_search_for_what_many_locks_have_finds_the_first_of_them(
    nodes: Nodes, search: dict[str, Any]
) -> None:
    client = nodes.client("A", "s")
    for limit in (1, 4, 29):
        progress = found(client, limit=limit, **search)
        assert names(progress) == JOBS[:limit]
        assert progress.result().has_more
        assert progress.result().matched == (32 if "owner" in search else -1)


@pytest.mark.parametrize("rights", [None, ["read job/*", "deny read job/2*"]], ids=["none", "some"])
def test_a_search_that_does_not_count_finds_the_same_names(nodes: Nodes, rights: list[str] | None) -> None:
    client = nodes.client("A", "s", access=None if rights is None else grantee("web-1", *rights))
    for prefix in ("", "job/1"):
        searched: list[dict[str, Any]] = [
            {},
            {"text": "2"},
            {"text": "b/1"},
            {"text": "b", "after": "job/15", "before": "job/27"},
            {"owner": "web"},
            {"owner": "web", "text": "2", "before": "job/3"},
            {"owner": "two", "before": "zz"},
        ]
        for search in searched:
            counted = found(client, prefix, limit=4, **search)
            uncounted = found(client, prefix, limit=4, is_counted=False, **search)
            assert names(uncounted) == names(counted)
            assert uncounted.result().has_more == counted.result().has_more
            takes_looks = bool(search) or (rights is not None and not prefix)
            assert uncounted.result().matched == (-1 if takes_looks else counted.result().matched)


@pytest.mark.interpreted
def test_names_beyond_a_bound_are_not_looked_at_without_a_count(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    whole = searches._Matches._readable_with_text

    def watched(self: searches._Matches, names: list[LockName]) -> list[LockName]:
        looked_at.append(len(names))
        return whole(self, names)

    monkeypatch.setattr(searches._Matches, "_readable_with_text", watched)
    client = nodes.client("A", "s")
    for is_counted, most in ((True, 30), (False, 2)):
        looked_at.clear()
        found(client, text="job", before="job/11", is_counted=is_counted)
        assert sum(looked_at) == most


def test_a_search_finds_what_was_acquired_and_not_what_was_released_since_the_last_one(
    nodes: Nodes,
) -> None:
    holder, client = nodes.client("A", "holder"), nodes.client("A", "s")
    numbers = random.Random(7)
    held: dict[str, int] = {}
    for turn in range(1, 250):
        name = f"job/{numbers.randrange(1, 60)}"
        if name in held:
            holder.release(name, held.pop(name))
        elif name not in JOBS:
            held[name] = turn
            holder.acquire(name, turn)
        if turn % 7 == 0:
            progress = found(client, "job/", limit=1000)
            assert names(progress) == sorted([*JOBS, *held])
            assert progress.result().matched == len(JOBS) + len(held)
            for limit in (1, 5):  # the last name found is soon a bound
                progress = found(client, limit=limit)
                assert names(progress) == sorted([*JOBS, *held])[:limit]
                assert progress.result().matched == len(JOBS) + len(held) + 2
                assert (
                    names(found(client, limit=limit, text="b/5"))
                    == sorted(name for name in [*JOBS, *held] if "b/5" in name)[:limit]
                )


def test_the_text_of_a_search_for_groups_is_a_part_of_the_name_of_the_group(nodes: Nodes) -> None:
    groups = ["group:shop", "group:upload"]
    nodes.assign("A", None, *groups)
    holder, client = nodes.client("A", "h"), nodes.client("A", "s")
    for number, name in enumerate(groups, 1):
        holder.acquire(name, number)
    for owner in ("", "h"):  # two ways to look
        for text, wanted in (("up", groups[1:]), ("group", []), (":", []), ("o", groups)):
            assert names(found(client, "group:", text=text, owner=owner)) == wanted
        assert names(found(client, "", text="group", owner=owner)) == groups


def test_a_lock_that_changes_hands_between_searches_hides_no_newer_one(nodes: Nodes) -> None:
    """The lock of a queue is granted again and again, and stays where it is among the others."""
    holder, waiter, client = nodes.client("A", "h"), nodes.client("A", "w"), nodes.client("A", "s")
    slot = slot_of("job/1")
    others = [name for name in (f"other/{number}" for number in range(50_000)) if slot_of(name) == slot][:4]
    nodes.assign("A", None, "job/1", *others)
    holder.acquire(others[0], 1)
    waiter.acquire(others[0], 1)
    found(client)
    holder.acquire(others[1], 2)
    holder.release(others[0], 1)
    assert others[0] in names(found(client))
    holder.acquire(others[2], 3)
    waiter.release(others[0], 1)
    assert [name for name in names(found(client)) if name.startswith("other/")] == sorted(others[1:3])
    holder.release(others[1], 2)
    holder.acquire(others[3], 4)
    holder.acquire(others[1], 5)
    assert [name for name in names(found(client)) if name.startswith("other/")] == sorted(others[1:])


def test_names_of_slots_with_many_locks_are_brought_in_order_without_a_search() -> None:
    slot = slot_of("job/1")
    many = [name for name in (f"job/{number}" for number in range(500_000)) if slot_of(name) == slot][:101]
    fresh = many.pop()
    nodes = Nodes("A")
    nodes.assign("A", None, *many, "x")
    holder, client = nodes.client("A", "h"), nodes.client("A", "s")
    for acquisition, name in enumerate([*many, "x"], 1):
        holder.acquire(name, acquisition)
    kept = index_of(nodes)._slots
    nodes.advance(2 * S, S // 10)
    assert set(kept) == {slot}
    assert kept[slot].names == sorted(many)
    holder.release(many[0], 1)
    for _ in range(2):
        assert names(found(client)) == sorted([*many[1:], "x"])
        nodes.advance(2 * S, S // 10)
    holder.acquire(fresh, 200)
    nodes.advance(2 * S, S // 10)
    assert kept[slot].names == sorted([*many, fresh])
    for acquisition, name in enumerate(many[1:61], 2):
        holder.release(name, acquisition)
    nodes.advance(2 * S, S // 10)
    assert kept[slot].names == sorted([*many[61:], fresh])
    for acquisition, name in enumerate(many[61:90], 62):
        holder.release(name, acquisition)
    nodes.advance(2 * S, S // 10)
    assert not kept, "few are sorted by each search"
    assert names(found(client)) == sorted([*many[90:], fresh, "x"])
    nodes.cores["A"].check_invariants()


def test_a_node_of_an_older_version_gives_the_same_locks_without_their_number(nodes: Nodes) -> None:
    groups = ["group:shop", "group:upload"]
    nodes.assign("A", None, *groups)
    holder, client = nodes.client("A", "h"), nodes.client("A", "s")
    for number, name in enumerate(groups, 1):
        holder.acquire(name, number)
    for prefix, search in (
        ("", {"text": "1"}),
        ("", {"text": "group"}),
        ("group:", {"text": "up"}),
        ("group:", {"text": "group"}),
        ("", {"owner": "two"}),
        ("", {"mode": Mode.SHARED}),
        ("", {"has_waiters": True}),
        ("", {"after": "x"}),
    ):
        progress = FindProgress(LockSearch(**search), 4, prefix)
        progress.begin(Version(1), [Replica("A", 1)], unserved=0)
        while progress.todo:
            asked = progress.message(next(client.requests), prefix)
            old = List(asked.request, asked.prefix, asked.from_slot, asked.after_name, asked.limit)
            progress.add_page(*of(ListReply, client.ask(old)))
        new = found(client, prefix, limit=4, **search)
        assert names(progress) == names(new)
        assert progress.result().matched == -1
        assert all(is_wanted(lock, LockSearch(**search), prefix) for lock in new.result().locks)


@pytest.mark.interpreted
def test_a_question_looks_through_some_slots_and_says_where_to_go_on(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "SEARCH_EFFORT_MAX", 10)
    monkeypatch.setattr(searches, "SEARCH_SLICE_EFFORT", 10)
    client = nodes.client("A", "s")
    progress = FindProgress(LockSearch(), 5)
    progress.begin(Version(1), [Replica("A", 1)], unserved=0)
    answers: list[ListReply] = []
    while progress.todo:
        answers += of(ListReply, client.ask(progress.message(next(client.requests), "")))
        progress.add_page(answers[-1])
    assert len(answers) > 10
    assert names(progress) == JOBS[:5]
    assert progress.result().matched == 32
    later = answers[len(answers) // 2 :]
    assert sum(len(each.locks) for each in later) < 10, "the bound keeps what is not needed from being sent"


@pytest.fixture
def asked(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client whose question for the first five locks is worked at in a hundred slices, and has had the first."""
    monkeypatch.setattr(searches, "SEARCH_SLICE_EFFORT", 64)
    client = nodes.client("A", "s")
    nodes.deliver("A", client.connection, List(99, "job/", SlotNumber(0), "", 5, search=LockSearch()))
    return client


def work_at(nodes: Nodes, client: Client, *, beyond: int) -> list[str]:
    """Let the node look through the slots up to this one, in some turns, and return the names of its answer."""
    core, seen = nodes.cores["A"], len(client.inbox)
    under_way = core.service._queries.searches.under_way
    while under_way and under_way[0].next_slot <= beyond:
        core.on_timer(now_ns=nodes.now)
        nodes.settle(check=False)
    answers = of(ListReply, client.inbox[seen:])
    assert len(answers) <= 1
    return [lock.name for answer in answers for lock in answer.locks]


@pytest.mark.interpreted
def test_others_are_served_while_a_question_is_worked_at(nodes: Nodes, asked: Client) -> None:
    other = nodes.client("A", "t")
    assert work_at(nodes, asked, beyond=SLOTS // 2) == []
    nodes.deliver("A", other.connection, List(7, "job/", SlotNumber(0), "", 3, search=LockSearch()))
    kinds = [type(message) for message in other.acquire("z", 1)]
    assert kinds == [GrantReply, ListReply], "an acquire waits for a slice at most"
    for client, most in ((asked, 5), (other, 3)):
        (answer,) = of(ListReply, client.inbox)
        assert [lock.name for lock in answer.locks] == JOBS[:most]


def release_first(nodes: Nodes) -> None:
    holder = next(client for client in nodes.clients.values() if client.session == "web-ONE")
    holder.release(FIRST, int(FIRST.removeprefix("job/")))


def move_first(nodes: Nodes) -> None:
    nodes.slots(lambda slot: msgspec.structs.replace(slot, primary=Replica("B", 1)), slot_of(FIRST))


@pytest.mark.interpreted
@pytest.mark.parametrize("change", [release_first, move_first])
def test_a_lock_is_shown_as_it_was_when_its_slot_was_looked_through(
    nodes: Nodes, asked: Client, change: Callable[[Nodes], None]
) -> None:
    assert work_at(nodes, asked, beyond=slot_of(FIRST)) == []
    change(nodes)
    work_at(nodes, asked, beyond=SLOTS)
    (answer,) = of(ListReply, asked.inbox)
    assert [lock.name for lock in answer.locks] == JOBS[:5]
    assert [len(lock.holders) for lock in answer.locks] == [1] * 5
    assert (answer.counts, answer.unserved) == ([(1, 0)] * 5, 0)


@pytest.mark.interpreted
@pytest.mark.parametrize("change", [release_first, move_first])
def test_a_question_begins_again_after_the_process_stood_still(
    nodes: Nodes, asked: Client, change: Callable[[Nodes], None]
) -> None:
    assert work_at(nodes, asked, beyond=slot_of(FIRST)) == []
    under_way = nodes.cores["A"].service._queries.searches.under_way
    under_way[0].looked_ns -= 3 * S
    change(nodes)
    work_at(nodes, asked, beyond=SLOTS)
    (answer,) = of(ListReply, asked.inbox)
    assert [lock.name for lock in answer.locks] == [name for name in JOBS if name != FIRST][:5]
    assert answer.matched == 29


@pytest.mark.interpreted
def test_a_question_that_waits_for_its_turn_is_no_sign_that_the_process_stood_still(
    nodes: Nodes, asked: Client
) -> None:
    core = nodes.cores["A"]
    for request in range(20):  # each of them waits for longer than a process may stand still
        nodes.deliver("A", asked.connection, List(request, "", SlotNumber(0), "", 5, search=LockSearch()))
    for _ in range(40):
        core.on_timer(now_ns=nodes.now)
        nodes.settle(check=False)
        nodes.now += 10 * MS
    assert core.service._queries.searches.under_way
    assert core._context.catching_up_until_ns < nodes.now - S


@pytest.mark.interpreted
def test_a_question_ends_with_its_connection(nodes: Nodes, asked: Client) -> None:
    core = nodes.cores["A"]
    core.disconnected(asked.connection, now_ns=nodes.now)
    nodes.settle(check=False)
    core.on_timer(now_ns=nodes.now)
    assert not core.service._queries.searches.under_way, "it is not worked at any more"
    assert of(ListReply, asked.inbox) == []


@pytest.mark.interpreted
def test_a_new_question_waits_behind_those_under_way(nodes: Nodes, asked: Client) -> None:
    nodes.deliver("A", asked.connection, List(100, "job/", SlotNumber(0), "", 5, search=LockSearch()))
    under_way = nodes.cores["A"].service._queries.searches.under_way
    assert [question.next_slot > 0 for question in under_way] == [True, False]
    nodes.finish("A")
    assert [answer.request for answer in of(ListReply, asked.inbox)] == [99, 100]


@pytest.mark.interpreted
def test_with_many_questions_under_way_another_one_is_answered_after_its_first_slice(
    nodes: Nodes, asked: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "SEARCHES_UNDER_WAY_MAX", 1)
    nodes.deliver("A", asked.connection, List(100, "job/", SlotNumber(0), "", 5, search=LockSearch()))
    (answer,) = of(ListReply, asked.inbox)
    assert answer.request == 100
    assert 0 < answer.next_slot < SLOTS


@pytest.mark.interpreted
@pytest.mark.parametrize("search", [{"text": "b/"}, {"owner": "web"}])
def test_one_question_counts_up_to_a_bound_where_that_takes_a_look_at_each(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, search: dict[str, Any]
) -> None:
    monkeypatch.setattr(searches, "COUNTED_MAX", 12)
    client = nodes.client("A", "s")
    (answer,) = of(ListReply, client.ask(List(1, "job/", SlotNumber(0), "", 4, search=LockSearch(**search))))
    assert [lock.name for lock in answer.locks] == JOBS[:4]
    assert answer.matched == -1
    monkeypatch.setattr(searches, "COUNTED_MAX", 30)
    (answer,) = of(ListReply, client.ask(List(2, "job/", SlotNumber(0), "", 4, search=LockSearch(**search))))
    assert answer.matched == 30


def test_of_a_lock_with_many_holders_the_first_are_shown_and_all_are_counted() -> None:
    nodes = Nodes("A")
    nodes.assign("A")
    for number in range(20):
        nodes.client("A", f"s{number}").acquire("x", 1, mode=Mode.SHARED)
    writer = nodes.client("A", "w")
    for number in range(1, 13):
        writer.acquire("x", number)
    result = found(nodes.client("A", "s")).result()
    (lock,) = result.locks
    assert (len(lock.holders), len(lock.waiters)) == (8, 8)
    assert result.counts == [(20, 12)]


def test_a_search_finds_and_counts_what_may_be_read_alone(nodes: Nodes) -> None:
    client = nodes.client("A", "t", access=grantee("web-1", "read job/2*", "deny read job/21"))
    progress = found(client, limit=3)
    assert names(progress) == ["job/2", "job/20", "job/22"]
    assert progress.result().matched == 10
    assert all(len(holder.session) == 16 for lock in progress.result().locks for holder in lock.holders)
    (refused,) = of(Refusal, client.ask(List(900, "x", search=LockSearch())))
    assert refused.code == "denied"


def pages(client: Client, prefix: str, limit: int) -> list[str]:
    """List all locks, page by page."""
    seen: list[str] = []
    slot, after = 0, ""
    while slot >= 0:
        (page,) = of(
            ListReply, client.ask(List(next(client.requests), prefix, SlotNumber(slot), after, limit))
        )
        assert len(page.locks) <= limit
        seen += [lock.name for lock in page.locks]
        slot, after = page.next_slot, page.next_name
    return seen


@pytest.mark.interpreted
@pytest.mark.parametrize("unsorted_max", [0, 1_000])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_the_pages_of_a_list_have_each_lock_once_whether_or_not_its_slot_stays_sorted(
    nodes: Nodes, unsorted_max: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LIST_UNSORTED_MAX", unsorted_max)
    slot = slot_of("job/1")
    others = [name for name in (f"job/1{number}" for number in range(60_000)) if slot_of(name) == slot][:9]
    holder, client = nodes.client("A", "holder"), nodes.client("A", "s")
    wanted = sorted({*JOBS, *others})
    for number, name in enumerate(others, start=1):
        holder.acquire(name, number)
    assert sorted(pages(client, "job/", limit)) == wanted
    holder.release(others[3], 4)
    assert sorted(pages(client, "job/", limit)) == [name for name in wanted if name != others[3]]
    assert pages(client, others[1], limit) == [others[1]]
    reader = nodes.client("A", "t", access=grantee("web-1", "read job/*", f"deny read {others[2]}"))
    readable = [name for name in wanted if name not in others[2:4]]
    assert sorted(pages(reader, "job/", limit)) == readable


@pytest.mark.parametrize(
    "message",
    [
        List(1, "", limit=1_002, search=LockSearch()),
        List(1, "", limit=0, search=LockSearch()),
        List(1, "", from_slot=SlotNumber(SLOTS), search=LockSearch()),
        List(1, "", search=LockSearch(mode=7)),
    ],
)
def test_a_search_outside_the_bounds_is_refused(nodes: Nodes, message: List) -> None:
    (refused,) = of(Refusal, nodes.client("A", "s").ask(message))
    assert refused.code == "invalid"


def test_slots_that_may_not_be_served_are_counted(nodes: Nodes) -> None:
    client = nodes.client("A", "s")
    nodes.coordinator_up = False
    nodes.advance(40 * S)
    result = found(client).result()
    assert result.locks == []
    assert result.unserved_slots == len(
        {slot_of(name) for name in (*NAMES, *(f"job/{number}" for number in range(31, 60)))}
    )
