"""Names that are like another one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.core.node import similar
from lockring.core.similar_names import CLOSE_LOOK_MAX, EDITS_MAX, NamePattern, edits
from lockring.protocol import FindSimilar, SimilarReply
from lockring.slots import slot_of
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Nodes


@pytest.mark.parametrize(
    ("name", "other", "distance"),
    [
        ("nightly", "nigthly", 1),
        ("nightly", "nightl", 1),
        ("nightly", "Nightly", 0),
        ("jobs/nightly-run", "jobs.nightly_run", 0),
        ("nightly", "nightly", None),
        ("nightly", "weekly", None),
        ("nightly", "nightly/db", EDITS_MAX + 1),
        ("nightly/db", "nightly", EDITS_MAX + 1),
        ("nightly", "nightlybackup", None),
        ("a", "b", 1),
        ("a", "a/b", None),
        ("deploy-production", "deploy-prodction", 1),
        ("deploy-production", "deploy-staging", None),
    ],
)
def test_a_name_is_like_another_that_was_meant(name: str, other: str, distance: int | None) -> None:
    assert NamePattern(name).distance(other) == distance


def distance_by_table(one: str, other: str) -> int:
    """The usual table, whole."""
    rows = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            best = min(
                rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (one[i - 1] != other[j - 1])
            )
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                best = min(best, rows[i - 2][j - 2] + 1)
            rows[i][j] = best
    return rows[-1][-1]


@given(st.text("abc", max_size=9), st.text("abc", max_size=9), st.integers(1, 3))
def test_edits_are_those_of_the_whole_table_up_to_the_limit(one: str, other: str, limit: int) -> None:
    assert edits(one, other, limit) == min(distance_by_table(one, other), limit + 1)


def test_a_node_finds_the_locks_in_use_whose_names_are_like_one_page_by_page() -> None:
    nodes = Nodes("A")
    nodes.assign("A", None)
    nodes.advance(200 * MS)
    client = nodes.client("A", "s")
    for number, name in enumerate(("job/1", "job/2", "other"), start=1):
        client.acquire(name, number)
    (reply,) = client.ask(FindSimilar(9, "jbo/1"))
    assert isinstance(reply, SimilarReply)
    assert (reply.names, reply.next_slot) == (["job/1"], -1)
    (reply,) = nodes.client("A", "r", access=grantee("web-1", "read job/2")).ask(FindSimilar(9, "job/3"))
    assert isinstance(reply, SimilarReply)
    assert reply.names == ["job/2"]


@pytest.mark.interpreted
def test_a_node_looks_at_so_many_names_in_a_turn_and_says_where_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes("A")
    nodes.assign("A", None)
    nodes.advance(200 * MS)
    client = nodes.client("A", "s")
    names = [f"job/{number}" for number in range(1, 10)]
    for number, name in enumerate(names, start=1):
        client.acquire(name, number)
    monkeypatch.setattr(similar, "EFFORT_MAX", 4)
    found: list[str] = []
    slot = pages = 0
    while slot >= 0:
        (reply,) = client.ask(FindSimilar(9 + pages, "job/0", slot))
        assert isinstance(reply, SimilarReply)
        assert not reply.is_partial
        found += reply.names
        slot, pages = reply.next_slot, pages + 1
    assert sorted(found) == sorted(names)
    assert pages > 3


@pytest.mark.interpreted
def test_a_node_leaves_out_the_rest_of_a_slot_that_takes_too_long_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes("A")
    nodes.assign("A", None)
    nodes.advance(200 * MS)
    client = nodes.client("A", "s")
    slot = slot_of("job/1")
    names = [name for name in (f"job/{n}" for n in range(1, 60_000)) if slot_of(name) == slot][:6]
    later = next(name for name in (f"job/{n}" for n in range(1, 99)) if slot_of(name) > slot)
    for number, name in enumerate((*names, later), start=1):
        client.acquire(name, number)
    monkeypatch.setattr(similar, "EFFORT_MAX", 9)
    (reply,) = client.ask(FindSimilar(9, "job/x"))
    assert isinstance(reply, SimilarReply)
    assert reply.is_partial
    assert slot < reply.next_slot <= slot_of(later)
    (reply,) = client.ask(FindSimilar(10, "job/x", reply.next_slot))
    assert isinstance(reply, SimilarReply)
    assert not reply.is_partial
    assert reply.names == [later]


@pytest.mark.interpreted
def test_a_node_compares_no_name_that_the_client_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes("A")
    nodes.assign("A", None)
    nodes.advance(200 * MS)
    client = nodes.client("A", "s")
    names = [f"secret/{number}/{'ab' * 100}" for number in range(30)]
    for number, name in enumerate(names, start=1):
        client.acquire(name, number)
    client.acquire("job/1", 40)
    monkeypatch.setattr(similar, "EFFORT_MAX", 31 * 5)
    reader = nodes.client("A", "r", access=grantee("web-1", "read job/*"))
    (reply,) = reader.ask(FindSimilar(9, "secret/x/" + "ba" * 100))
    assert isinstance(reply, SimilarReply)
    assert (reply.names, reply.next_slot, reply.is_partial) == ([], -1, False)


@given(st.text("ab-", min_size=1, max_size=40), st.data())
def test_a_name_with_few_edits_is_always_found(name: str, data: st.DataObject) -> None:
    """No look ahead passes over a name that the whole table finds."""
    other = list(name)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(other)))
        edit = data.draw(st.sampled_from(["in", "out", "other", "swap"]))
        if edit == "in":
            other.insert(at, "b")
        elif edit == "swap":
            other[at : at + 2] = reversed(other[at : at + 2])
        else:
            other[at : at + 1] = ["a"] if edit == "other" else []
    found = "".join(other)
    limit = min(EDITS_MAX, max(1, len(name) // 4))
    expected = distance_by_table(name, found)
    if found != name and expected <= limit:
        assert NamePattern(name).distance(found) == expected


@given(st.text("ab", min_size=1, max_size=1_000), st.text("ab", min_size=1, max_size=1_000))
def test_the_effort_of_a_comparison_is_bounded(name: str, other: str) -> None:
    assert NamePattern(name).compare(other).effort <= 8 * CLOSE_LOOK_MAX + 1_000 // 4


def test_the_edits_of_very_long_names_are_not_counted() -> None:
    name = "x" * CLOSE_LOOK_MAX
    assert NamePattern(name).distance(name[:-1] + "y") == 1
    assert NamePattern(name + "x").distance(name + "y") is None
    assert NamePattern(name + "x").distance(name + "X") == 0
    assert NamePattern(name + "x").distance(name + "x/1") == EDITS_MAX + 1


def test_a_hundred_thousand_comparisons_look_closely_at_few_names() -> None:
    """Names as programs make them differ early or in length; the work of one comparison is bounded by its own."""
    rng = random.Random(1)
    pattern = NamePattern("tenant-00017/jobs/nightly")
    names = [f"tenant-{rng.randrange(10_000):05}/jobs/{rng.randrange(100)}" for _ in range(20_000)]
    assert all(pattern.distance(name) is None for name in names)
