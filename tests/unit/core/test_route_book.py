"""Routes for clients: all of them once, then the differences, made once for all clients."""

from __future__ import annotations

import random
import struct

import msgspec

from lockring.cluster_state import ClusterState, Replica, routes_of
from lockring.core.effects import Broadcast
from lockring.core.route_book import RouteBook, routes_for_all
from lockring.core.route_differences import content_of_routes, digest_of_routes, slots_in
from lockring.ids import ConnectionId, Version
from lockring.protocol import Routes, RoutesDifference
from tests.unit.core.states import FIRST, first_state, member, moved, numbers, replica, with_members


def used(state: ClusterState) -> RouteBook:
    """A book whose routes a client has had."""
    book = RouteBook()
    book.learn(state)
    book.whole()
    return book


def parts_of(routes: Routes) -> tuple[list[Replica | None], dict[Replica, str]]:
    """The primary of each slot, and the members' addresses."""
    members = {Replica(node, incarnation): address for node, incarnation, address in routes.members}
    places = [*members]
    found = struct.unpack(f"<{len(routes.primaries) // 2}H", routes.primaries)
    return [None if place == 0xFFFF else places[place] for place in found], members


def followed(routes: Routes, step: RoutesDifference) -> Routes:
    """The routes to which a difference leads, by its definition."""
    primaries, members = parts_of(routes)
    for gone in step.gone:
        del members[Replica(*gone)]
    members |= {Replica(node, incarnation): address for node, incarnation, address in step.members}
    for number, primary in slots_in(step):
        primaries[number] = primary
    content = content_of_routes(primaries, members.items())
    assert digest_of_routes(step.version, step.coordinator, content) == step.digest
    places = [*members]
    packed = [0xFFFF if each is None else places.index(each) for each in primaries]
    return Routes(
        version=step.version,
        members=[(each.node, each.incarnation, address) for each, address in members.items()],
        primaries=struct.pack(f"<{len(packed)}H", *packed),
        coordinator=step.coordinator,
    )


def test_a_moved_slot_costs_some_dozens_of_bytes() -> None:
    state = first_state("a", "b")
    book = used(state)
    assert book.learn(moved(state, "b", 7), numbers(7))
    assert book.difference is not None
    assert (book.difference.base, book.difference.version) == (FIRST, FIRST + 1)
    assert len(msgspec.msgpack.encode(book.difference)) < 60


def test_differences_lead_to_the_routes_of_the_state_whatever_changes() -> None:
    draw = random.Random(1)
    state = first_state("a", "b", "c")
    book = used(state)
    routes = book.whole()
    for step in range(40):
        match draw.randrange(5):
            case 0 | 1:
                lives = [*state.members]
                state = moved(state, draw.choice(lives), *draw.sample(range(4096), draw.randrange(1, 5)))
            case 2:
                state = with_members(state, *state.members.values(), member(f"new-{step}"))
            case 3:  # another life of one of them: its slots have no primary any more
                first, *rest = state.members.values()
                again = member(first.replica.node, first.replica.incarnation + 1)
                state = with_members(state, *rest, again)
            case 4:
                members = list(state.members.values())
                moving = msgspec.structs.replace(members[-1], address=f"elsewhere:{step}")
                state = with_members(state, *members[:-1], moving)
        if book.learn(state):
            assert book.difference is not None
            routes = followed(routes, book.difference)
        expected, found = parts_of(routes_of(state)), parts_of(routes)
        assert found == expected
        assert book.whole().version == routes.version


def test_a_state_with_the_same_routes_is_no_news() -> None:
    state = first_state("a", "b")
    book = used(state)
    before = book.whole()
    same = msgspec.structs.replace(state, version=Version(FIRST + 1), term="u")
    assert not book.learn(same, numbers())
    assert book.whole() is before, "a client that comes later gets the version that the others have"


def test_a_change_of_the_coordinator_is_news() -> None:
    state = first_state("a")
    book = used(state)
    assert book.learn(msgspec.structs.replace(state, version=Version(FIRST + 1), coordinator="there:2"), [])
    assert book.difference is not None
    assert followed(routes_of(state), book.difference).coordinator == "there:2"


def test_nothing_is_made_for_a_server_without_clients() -> None:
    book = RouteBook()
    state = first_state("a", "b")
    assert book.learn(state)
    assert book.learn(moved(state, "b", 1))
    assert book.difference is None


def test_clients_that_know_no_differences_get_all_routes() -> None:
    state = first_state("a", "b")
    book = used(state)
    book.learn(moved(state, "b", 1), numbers(1))
    first, second, third = map(ConnectionId, (1, 2, 3))
    effects = routes_for_all({first: True, second: False, third: True}, book)
    assert effects == [Broadcast((first, third), book.difference), Broadcast((second,), book.whole())]
    assert routes_for_all({first: True}, book) == [Broadcast((first,), book.difference)]
    assert routes_for_all({second: False}, book) == [Broadcast((second,), book.whole())]
    assert routes_for_all({}, book) == []
    assert routes_for_all({first: True}, book, has_any=False) == [Broadcast((first,), book.whole())]


def test_the_life_of_a_member_that_is_no_more_is_no_primary() -> None:
    state = first_state("a", "b")
    book = used(state)
    assert book.learn(with_members(state, member("a", 2), member("b")), [])
    assert book.difference is not None
    assert book.difference.gone == [("a", 1)]
    assert {primary for _, primary in slots_in(book.difference)} == {None}
    assert len(slots_in(book.difference)) == len(state.slots)
    assert replica("a", 2) not in [primary for _, primary in slots_in(book.difference)]
