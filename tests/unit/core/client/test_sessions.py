"""Sessions: one for each TTL, or one for each acquisition, which ends with it."""

from __future__ import annotations

from lockring.core.client import TicketState
from lockring.protocol import Acquire, GrantReply, Keepalive, Refusal, Release, ReleaseReply
from tests.unit.core.client.world import TTL_MS, A, B, World, connected, lost, only, routes, sent


def world_of_single_sessions() -> World:
    """A client whose acquisitions have a session each, linked to A."""
    world = connected(session_per_acquisition=True)
    assert world.core.sessions() == [], "nothing is left of the warm-up"
    return world


def test_acquisitions_with_one_ttl_share_a_session() -> None:
    world = connected()
    assert world.acquire("x").session is world.acquire("y").session


def test_each_acquisition_may_have_a_session_of_its_own() -> None:
    world = world_of_single_sessions()
    one, other = world.hold("x"), world.hold("y")
    assert one.session is not other.session
    assert (one.acquisition, other.acquisition) == (1, 1)
    keepalives = sent(world.pass_s(TTL_MS / 3000), Keepalive)
    assert {each.session for each in keepalives} == {one.session.id, other.session.id}
    assert [each.count for each in keepalives] == [1, 1]


def test_a_session_of_one_acquisition_ends_with_its_release() -> None:
    world = world_of_single_sessions()
    ticket, other = world.hold("x"), world.hold("y")
    world.say(A, ReleaseReply(only(world.release(ticket), Release).request, True))
    assert world.core.sessions() == [other.session]
    keepalives = sent(world.pass_s(TTL_MS / 3000), Keepalive)
    assert [each.session for each in keepalives] == [other.session.id]


def test_a_session_of_one_acquisition_ends_with_its_refusal() -> None:
    world = world_of_single_sessions()
    world.acquire("x")
    world.say(A, Refusal(only(world.take(), Acquire).request, "invalid", "because"))
    assert world.core.sessions() == []


def test_a_session_of_one_acquisition_ends_with_an_acquire_that_was_never_sent() -> None:
    world = World(session_per_acquisition=True)
    world.cancel(world.acquire("x"))
    assert world.core.sessions() == []


def test_a_session_of_one_acquisition_lasts_until_its_release_is_answered_or_needless() -> None:
    world = world_of_single_sessions()
    ticket = world.hold("x")
    world.cut(A)
    assert lost(world.pass_s(TTL_MS / 1000 + 0.1)) == [(ticket, "local-deadline")]
    assert world.core.sessions() == [ticket.session]
    world.pass_s(2 * TTL_MS / 1000)
    assert world.core.sessions() == []


def test_a_release_that_a_crash_may_have_undone_is_repeated_under_its_ended_session() -> None:
    world = world_of_single_sessions()
    ticket = world.hold("x")
    world.say(A, ReleaseReply(only(world.release(ticket), Release).request, True))
    world.say(A, routes(2, 1))
    again = only(world.accept(B), Release)
    assert (again.session, again.acquisition) == (ticket.session.id, 1)
    world.say(B, ReleaseReply(again.request, False))
    assert world.core.sessions() == []


def test_a_waiting_acquisition_moves_to_another_node_under_its_session() -> None:
    world = world_of_single_sessions()
    ticket = world.acquire("x")
    world.take()
    world.say(A, routes(2, 1))
    moved = only(world.accept(B), Acquire)
    assert moved.session == ticket.session.id
    world.say(B, GrantReply(moved.request, 3, TTL_MS, moved.request))
    assert ticket.state == TicketState.HELD
