"""The picture of the ring: cells, legend, remarks, text and colour."""

from __future__ import annotations

import re

import pytest

from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState
from lockring.ring.hash_ring import HashRing
from lockring.ring_picture import LETTERS, ROWS, WIDTH_MAX, WIDTH_MIN, draw, picture
from lockring.slots import SLOTS
from tests.unit.ring.rings import equal


def state_of(ring: HashRing) -> ClusterState:
    """A cluster in which everything is where the ring wants it."""
    return ClusterState(
        members={
            node: Member(Replica(node, 1), f"10.0.0.{place}:9501", weight, "active")
            for place, (node, weight) in enumerate(ring.members.items(), start=1)
        },
        slots=tuple(
            SlotState(
                primary=None if primary is None else Replica(primary, 1),
                backup=None if backup is None else Copy(Replica(backup, 1), 1),
            )
            for primary, backup in zip(ring.primaries, ring.backups, strict=True)
        ),
    )


def halves(
    first: Replica | None, second: Replica | None, backup: Copy | None = None
) -> tuple[SlotState, ...]:
    return tuple(SlotState(primary=first if slot < 2048 else second, backup=backup) for slot in range(SLOTS))


A, B = Replica("a", 1), Replica("b", 1)
TWO = {"a": Member(A, "10.0.0.1:9501", 1, "active"), "b": Member(B, "10.0.0.2:9501", 3, "draining")}


def test_a_picture_as_text():
    state = ClusterState(members=TWO, slots=halves(A, B, backup=Copy(B, 1)))
    assert str(picture(state, 10)).splitlines() == [
        "    0  AAAAAAAAAA",
        " 1024  AAAAAAAAAA",
        " 2048  BBBBBBBBBB",
        " 3072  BBBBBBBBBB",
        "",
        "   node  slots  share  backups  weight  condition  address",
        "A  a      2048  50.0%        0       1  active     10.0.0.1:9501",
        "B  b      2048  50.0%     4096       3  draining   10.0.0.2:9501",
    ]


@pytest.mark.parametrize("members", [1, 2, 5, 20, 70])
@pytest.mark.parametrize("width", [WIDTH_MIN, 61, 120, WIDTH_MAX])
def test_every_member_has_cells_and_a_line_in_the_legend(members, width):
    ring = HashRing(equal(members))
    drawn = picture(state_of(ring), width)
    assert [len(row) for row in drawn.rows] == [width] * ROWS
    assert len(drawn.legend) == members
    for row in drawn.legend:
        assert (row.primary, row.backup) == ring.counts()[row.node]
        assert row.share == row.primary / SLOTS and row.weight == 1
    if members <= 20 and width >= 61:
        shown = {cell for row in drawn.rows for cell in row}
        assert shown == set(range(members))


def test_each_cell_shows_the_member_with_most_of_its_slots():
    ring = HashRing(equal(3))
    drawn = picture(state_of(ring), WIDTH_MAX)
    assert [drawn.legend[cell].node for row in drawn.rows for cell in row if cell is not None] == list(
        ring.primaries
    )
    coarse = picture(state_of(ring), 32)
    for place, cell in enumerate(cell for row in coarse.rows for cell in row):
        assert cell is not None
        part = ring.primaries[place * 32 : (place + 1) * 32]
        assert part.count(coarse.legend[cell].node) == max(part.count(member) for member in ring.members)


def test_members_are_listed_in_the_order_that_people_expect():
    drawn = picture(state_of(HashRing({"n10": 1, "n2": 1, "a": 1, "n2-b": 1, "7": 1})), 20)
    assert [row.node for row in drawn.legend] == ["a", "n2", "n2-b", "n10", "7"]
    assert [row.letter for row in drawn.legend] == list("ABCDE")


def test_letters_begin_again_when_they_are_used_up():
    drawn = picture(state_of(HashRing(equal(len(LETTERS) + 1))), 20)
    assert drawn.legend[-1].letter == "A"


def test_an_impossible_width_is_brought_within_bounds():
    assert len(picture(ClusterState(), -5).rows[0]) == WIDTH_MIN
    assert len(picture(ClusterState(), 10**9).rows[0]) == WIDTH_MAX


def test_slots_without_a_primary_are_shown_as_vacant():
    """That is a slot without a primary as well as one whose primary is an earlier life of its node."""
    drawn = picture(ClusterState(members=TWO, slots=halves(None, Replica("b", 0))), 8)
    assert drawn.vacant == SLOTS and drawn.single == 0
    assert drawn.rows[0] == (None,) * 8
    assert str(drawn).splitlines()[0] == "    0  ........"
    assert drawn.remarks() == ["4096 slots are without a primary (.)."]


def test_slots_with_one_copy_or_a_learner_are_counted():
    slots = (
        SlotState(primary=A, backup=Copy(Replica("b", 0), 1)),
        SlotState(primary=A, learner=Copy(B, 1)),
        *(SlotState(primary=A, backup=Copy(B, 1)),) * (SLOTS - 2),
    )
    drawn = picture(ClusterState(members=TWO, slots=slots), 8)
    assert (drawn.vacant, drawn.single, drawn.moving) == (0, 2, 1)
    assert drawn.remarks() == ["2 slots are without a backup.", "1 slot is being copied."]
    assert str(drawn).endswith("\n\n2 slots are without a backup.\n1 slot is being copied.")


def test_a_cluster_without_members_can_be_drawn():
    drawn = picture(ClusterState(), 8)
    assert drawn.legend == () and drawn.remarks()[0] == "The cluster has no members."
    assert "node" not in str(drawn)


@pytest.mark.parametrize("members", [1, 3, 20])
def test_a_drawing_keeps_within_its_width(members):
    lines = draw(state_of(HashRing(equal(members))), width=60).splitlines()
    assert [len(line) for line in lines[:ROWS]] == [60] * ROWS


@pytest.mark.parametrize("members", [0, 1, 3, 20, 30])
def test_colour_changes_nothing_but_the_colour(members):
    state = state_of(HashRing(equal(members)))
    coloured = draw(state, width=60, colour=True)
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == draw(state, width=60)
    assert ("\x1b[" in coloured) == (members > 0)
    assert "\x1b[" not in draw(state, width=60)


def test_a_member_has_the_same_colour_in_the_circle_and_in_the_legend():
    coloured = draw(ClusterState(members=TWO, slots=halves(A, B)), width=20, colour=True)
    colour_of = dict(re.findall("\x1b\\[([0-9;]*)m([AB])", coloured))
    assert sorted(colour_of.values()) == ["A", "B"], "two colours, one for each letter"
