"""A client takes the difference to newer routes on exactly those from which it leads, and asks for all otherwise."""

from __future__ import annotations

import struct

import msgspec
import pytest

from lockring.cluster_state import Replica
from lockring.core.route_differences import content_of_routes, digest_of_routes, packed_slots
from lockring.ids import NO_REQUEST, Incarnation, NodeId, SlotNumber, Version
from lockring.protocol import ClientHello, GetRoutes, Routes, RoutesDifference
from lockring.slots import SLOTS, slot_of
from tests.unit.core.client.world import COORDINATOR, A, B, C, World, connects, disconnects, routes, sent

LOCK_SLOT = slot_of("x")
MEMBERS = {Replica(NodeId(name), Incarnation(1)): address for name, address in (("a", A), ("b", B), ("c", C))}


def moved_to(
    place: int, base: int, version: int, *, slot: int = LOCK_SLOT, before: int = 0
) -> RoutesDifference:
    """The step in which a slot moves to the member at a place, from routes with all slots at `before`."""
    lives = [*MEMBERS]
    primaries: list[Replica | None] = [lives[before]] * SLOTS
    primaries[slot] = lives[place]
    content = content_of_routes(primaries, MEMBERS.items())
    return RoutesDifference(
        Version(base),
        Version(version),
        digest_of_routes(Version(version), COORDINATOR, content),
        COORDINATOR,
        [],
        [],
        [(lives[place].node, lives[place].incarnation)],
        packed_slots([(SlotNumber(slot), 0)]),
    )


@pytest.fixture
def world() -> World:
    """A client with a link to a, which has all slots by version 5."""
    world = World([A])
    world.acquire()
    world.take()
    world.accept(A, routes(5, 0))
    world.take()
    return world


def asked(world: World, difference: RoutesDifference) -> list[Version]:
    """Return the versions whose routes the client asks for when a sends it a difference."""
    questions = sent(world.say(A, difference), GetRoutes)
    assert all(each.request != NO_REQUEST for each in questions), "a refusal needs a number"
    return [each.version for each in questions]


def table(world: World) -> list[str]:
    return ["" if node is None else node.replica.node for node in world.core._routes.table]


def test_a_difference_moves_a_slot(world: World) -> None:
    assert asked(world, moved_to(1, 5, 6)) == []
    expected = ["a"] * SLOTS
    expected[LOCK_SLOT] = "b"
    assert table(world) == expected
    assert world.core._routes.version == 6


def test_differences_follow_each_other(world: World) -> None:
    assert asked(world, moved_to(1, 5, 6)) == []
    assert asked(world, moved_to(2, 6, 8)) == []
    assert table(world)[LOCK_SLOT] == "c"


def test_what_waits_for_a_moved_slot_goes_to_its_new_primary(world: World) -> None:
    assert connects(world.say(A, moved_to(1, 5, 6))) == [B]


@pytest.mark.parametrize(("base", "version"), [(4, 6), (6, 7)])
def test_a_difference_from_other_routes_is_not_taken_and_all_are_asked_for(
    world: World, base: int, version: int
) -> None:
    assert asked(world, moved_to(1, base, version)) == [Version(5)]
    assert world.core._routes.version == 5
    assert set(table(world)) == {"a"}
    world.say(A, routes(version, {LOCK_SLOT: 1}))
    assert table(world)[LOCK_SLOT] == "b"


def test_a_difference_to_routes_that_are_not_newer_is_ignored(world: World) -> None:
    assert asked(world, moved_to(1, 4, 5)) == []
    assert set(table(world)) == {"a"}


def test_a_difference_that_leads_elsewhere_is_not_taken(world: World) -> None:
    wrong = msgspec.structs.replace(moved_to(1, 5, 6), digest=7)
    assert asked(world, wrong) == [Version(5)]
    assert set(table(world)) == {"a"}
    assert asked(world, moved_to(1, 5, 6)) == [], "nothing of it was kept"


def test_members_come_and_go_by_differences(world: World) -> None:
    new = Replica(NodeId("d"), Incarnation(4))
    members = {**MEMBERS, new: "10.0.0.4:9501"}
    del members[Replica(NodeId("c"), Incarnation(1))]
    lives: list[Replica | None] = [next(iter(MEMBERS))] * SLOTS
    lives[LOCK_SLOT] = None
    digest = digest_of_routes(Version(6), "there:1", content_of_routes(lives, members.items()))
    step = RoutesDifference(
        Version(5),
        Version(6),
        digest,
        "there:1",
        [(NodeId("c"), Incarnation(1))],
        [(new.node, new.incarnation, "10.0.0.4:9501")],
        [],
        struct.pack("<HH", LOCK_SLOT, 0xFFFF),
    )
    assert asked(world, step) == []
    assert [each.node for each in world.core._routes.members] == ["a", "b", "d"]
    assert table(world)[LOCK_SLOT] == ""
    assert world.core._routes.coordinator == "there:1"
    assert world.core._routes.unserved_since_ns


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": b"\x00"},
        {"slots": struct.pack("<HH", SLOTS, 0)},
        {"slots": struct.pack("<HH", 0, 1)},
        {"primaries": [("stranger", 1)]},
    ],
)
def test_a_malformed_difference_ends_the_link(world: World, wrong: dict[str, object]) -> None:
    step = msgspec.structs.replace(moved_to(1, 5, 6), **wrong)
    assert disconnects(world.say(A, step))


def test_the_first_routes_of_another_server_count_as_they_do_as_a_whole(world: World) -> None:
    assert asked(world, moved_to(1, 5, 6)) == []
    newer: Routes = routes(9, 2)
    world.say(A, newer)
    assert asked(world, moved_to(1, 9, 10, before=2)) == []
    assert table(world)[LOCK_SLOT] == "b"


def test_a_client_says_that_it_takes_differences() -> None:
    world = World([A])
    world.acquire()
    world.take()
    world.core.connected(world.link_of[A], now_ns=world.now_ns)  # type: ignore[arg-type]
    assert [hello.differences for hello in sent(world.take(), ClientHello)] == [True]
