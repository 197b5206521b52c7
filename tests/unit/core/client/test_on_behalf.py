"""A client that acts for programs behind it: they keep what it acquires, and it renews what it never acquired."""

from __future__ import annotations

import pytest

from lockring.cluster_state import Replica
from lockring.core.client import (
    ONLY_ACQUISITION,
    CallResult,
    ClientEffect,
    LossOnBehalf,
    OnBehalf,
    PageRequest,
    Query,
    Ticket,
    TicketState,
)
from lockring.core.digest import mix
from lockring.errors import Overloaded, StaleVersion, Unavailable
from lockring.ids import Generation
from lockring.protocol import (
    Acquire,
    AcquisitionVerdict,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    List,
    ListedAcquisition,
    ListReply,
    LossNotice,
    Message,
    OnBehalfOf,
    Refusal,
    Release,
    ReleaseReply,
    SlotList,
    Verdict,
)
from lockring.protocol.identities import Claim, Identity
from lockring.slots import slot_of
from lockring.units import NS_PER_S
from tests.unit.core.client.world import TTL_MS, A, B, World, connected, only, resolved, routes, sent


def acting() -> World:
    """A client that acts for others, linked to A."""
    return connected(session_per_acquisition=True)


def acquire_for(world: World, session: str, *, waited_ms: int = 0, name: str = "x") -> Ticket:
    """Begin to acquire a lock for a program."""
    on_behalf = OnBehalf(session, "their owner", waited_ms)
    return world.core.acquire(name, ttl_ms=TTL_MS, now_ns=world.now_ns, on_behalf=on_behalf)


def renew_for(world: World, session: str = "theirs") -> Query:
    """Begin to renew a program's lock, for up to 3 s."""
    give_up_at_ns = world.now_ns + 3 * NS_PER_S
    return world.core.renew_for(
        "theirs", "x", ttl_ms=TTL_MS, give_up_at_ns=give_up_at_ns, now_ns=world.now_ns
    )


def kept(request: int, verdict: Verdict, *, promise_ms: int = TTL_MS, generation: int = 7) -> KeepaliveReply:
    """A node's answer about the only acquisition of a session."""
    return KeepaliveReply(
        request, promise_ms, False, [], [AcquisitionVerdict(ONLY_ACQUISITION, verdict, generation)]
    )


# --------------------------------------------------------------------------- acquiring


def test_an_acquire_on_behalf_speaks_for_the_program_and_counts_its_earlier_wait() -> None:
    world = acting()
    acquire_for(world, "theirs", waited_ms=500)
    world.pass_s(0)
    world.cut(A)
    world.pass_s(2)
    acquire = only(world.accept(A), Acquire)
    assert (acquire.session, acquire.acquisition, acquire.owner) == (
        "theirs",
        ONLY_ACQUISITION,
        "their owner",
    )
    assert acquire.waited_ms >= 2_500


def test_a_grant_on_behalf_is_the_programs_and_is_neither_renewed_nor_lost_here() -> None:
    world = acting()
    ticket = acquire_for(world, "theirs")
    request = only(world.take(), Acquire).request
    assert resolved(world.say(A, GrantReply(request, 7, TTL_MS, request))) == [(ticket, None)]
    assert (ticket.state, ticket.generation) == (TicketState.HELD, 7)
    assert ticket.deadline_ns == world.now_ns + TTL_MS * 1_000_000
    assert world.core.sessions() == []
    assert sent(world.pass_s(5 * TTL_MS / 1000)) == []


def test_a_waiting_acquire_on_behalf_is_kept_alive() -> None:
    world = acting()
    acquire_for(world, "theirs")
    keepalive = only(world.pass_s(TTL_MS / 3000 + 0.01), Keepalive)
    assert (keepalive.session, keepalive.count, keepalive.digest) == ("theirs", 1, mix(ONLY_ACQUISITION))


def test_the_answer_to_a_keepalive_that_is_older_than_the_grant_gives_nothing_up() -> None:
    """Of an acquisition that it has handed over, the client must not say that it is not there."""
    world = acting()
    ticket = acquire_for(world, "theirs")
    acquire = only(world.take(), Acquire)
    keepalive = only(world.pass_s(TTL_MS / 3000 + 0.01), Keepalive)
    world.say(A, GrantReply(acquire.request, 7, TTL_MS, keepalive.request))
    assert ticket.state == TicketState.HELD
    assert sent(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False, [], [])), Keepalive) == []


@pytest.mark.parametrize("is_granted", [False, True])
def test_a_call_that_ends_takes_back_only_its_own_request_and_once(is_granted: bool) -> None:
    world = acting()
    ticket = acquire_for(world, "theirs")
    request = only(world.take(), Acquire).request
    if is_granted:
        world.say(A, GrantReply(request, 7, TTL_MS, request))
    world.core.cancel(ticket, now_ns=world.now_ns)
    release = only(world.take(), Release)
    assert (release.session, release.acquire) == ("theirs", request)
    world.cut(A)
    assert sent(world.pass_s(2 * TTL_MS / 1000), Release) == []
    assert world.core.sessions() == []


def test_two_calls_for_one_acquisition_wait_side_by_side() -> None:
    world = acting()
    first, second = acquire_for(world, "theirs"), acquire_for(world, "theirs")
    one, other = sent(world.take(), Acquire)
    world.core.cancel(first, now_ns=world.now_ns)
    assert only(world.take(), Release).acquire == one.request
    assert resolved(world.say(A, GrantReply(other.request, 7, TTL_MS, other.request))) == [(second, None)]


def test_an_overloaded_node_is_reported_to_the_program_at_once() -> None:
    world = acting()
    ticket = acquire_for(world, "theirs")
    request = only(world.take(), Acquire).request
    ((ended, error),) = resolved(world.say(A, Refusal(request, "overloaded", "too many requests wait")))
    assert ended is ticket
    assert isinstance(error, Overloaded)


def test_a_client_that_closes_ends_no_session_of_a_program() -> None:
    world = acting()
    acquire_for(world, "theirs")
    world.take()
    world.core.close(now_ns=world.now_ns)
    assert sent(world.take()) == []
    assert world.core.is_closed


# --------------------------------------------------------------------------- renewing and releasing


def test_a_lock_that_another_client_acquired_is_renewed_by_its_session() -> None:
    world = acting()
    query = renew_for(world)
    keepalive = only(world.take(), Keepalive)
    assert (keepalive.session, keepalive.ttl_ms) == ("theirs", TTL_MS)
    assert keepalive.listed == [SlotList(slot_of("x"), [ListedAcquisition(ONLY_ACQUISITION, "x")])]
    reply = kept(keepalive.request, Verdict.HELD)
    assert world.say(A, reply) == [CallResult(query, reply, None)]


@pytest.mark.parametrize(
    ("verdict", "promise_ms"), [(Verdict.MOVED, TTL_MS), (Verdict.RETRY, TTL_MS), (Verdict.HELD, 0)]
)
def test_a_renewal_is_repeated_while_the_node_cannot_speak_of_the_lock(
    verdict: Verdict, promise_ms: int
) -> None:
    world = acting()
    query = renew_for(world)
    for _ in range(3):
        world.say(A, kept(only(world.pass_s(0.3), Keepalive).request, verdict, promise_ms=promise_ms))
    ((ended, _, error),) = [each for each in world.pass_s(4) if isinstance(each, CallResult)]
    assert ended is query
    assert isinstance(error, Unavailable)


def test_a_renewal_follows_the_lock_to_its_next_primary() -> None:
    world = acting()
    renew_for(world)
    world.take()
    world.say(A, routes(2, 1))
    world.cut(A)
    assert only(world.accept(B), Keepalive).session == "theirs"


def test_a_loss_that_a_node_reports_of_a_programs_session_is_passed_on() -> None:
    world = acting()
    notice = LossNotice("theirs", ONLY_ACQUISITION, "x", "broken")
    assert world.say(A, notice) == [LossOnBehalf("theirs", "x", "broken", Generation(0))]
    assert connected().say(A, notice) == [], "a client of its own has nothing to do with others' sessions"


def test_a_loss_is_passed_on_while_another_call_of_the_same_session_waits() -> None:
    world = acting()
    waiting = acquire_for(world, "theirs")
    world.take()
    notice = LossNotice("theirs", ONLY_ACQUISITION, "x", "broken")
    assert world.say(A, notice) == [LossOnBehalf("theirs", "x", "broken", Generation(0))]
    assert waiting.state == TicketState.PENDING


def test_a_release_on_behalf_says_what_it_found_and_how_often_it_was_asked() -> None:
    world = acting()
    query = world.core.release_for(
        "theirs", "x", give_up_at_ns=world.now_ns + 9 * NS_PER_S, now_ns=world.now_ns
    )
    assert only(world.take(), Release).acquire == 0
    world.cut(A)
    again = only(world.accept(A), Release)
    reply = ReleaseReply(again.request, False)
    assert world.say(A, reply) == [CallResult(query, reply, None)]
    assert query.exchange.sent == 2


# --------------------------------------------------------------------------- pages


def test_a_page_is_asked_of_one_member_and_fails_if_that_has_left() -> None:
    world = acting()

    def ask(incarnation: int) -> Query:
        page = PageRequest(Replica("a", incarnation), 5, "x", 10)
        until_ns = world.now_ns + NS_PER_S
        return world.core.list_page("job/", page, give_up_at_ns=until_ns, now_ns=world.now_ns)

    query = ask(1)
    asked = only(world.take(), List)
    assert (asked.prefix, asked.from_slot, asked.after_name, asked.limit) == ("job/", 5, "x", 10)
    reply = ListReply(asked.request, [], -1, "", 0)
    assert world.say(A, reply) == [CallResult(query, reply, None)]
    gone = ask(2)
    (result,) = world.take()
    assert isinstance(result, CallResult)
    assert result.request is gone
    assert isinstance(result.error, StaleVersion)


# --------------------------------------------------------------------------- on whose behalf

ONE, TWO = Identity("token", "one"), Identity("token", "two")


def spoken(effects: list[ClientEffect]) -> list[str]:
    """The messages that were sent, with the identities that were announced."""
    messages: list[Message] = sent(effects)
    return [each.identity.name if isinstance(each, OnBehalfOf) else type(each).__name__ for each in messages]


def acquire_by(world: World, asker: Identity, session: str, name: str = "x") -> Ticket:
    on_behalf = OnBehalf(session, asker=asker)
    return world.core.acquire(name, ttl_ms=TTL_MS, now_ns=world.now_ns, on_behalf=on_behalf)


def ask_by(world: World, asker: Identity | None) -> Query:
    world.core.ask_for(asker)
    return renew_for(world)


def test_an_identity_is_announced_before_its_requests_and_not_again_before_the_next_ones() -> None:
    world = acting()
    acquire_by(world, ONE, "a")
    acquire_by(world, ONE, "b", "y")
    ask_by(world, ONE)
    assert spoken(world.take()) == ["one", "Acquire", "Acquire", "Keepalive"]
    ask_by(world, TWO)
    acquire_by(world, TWO, "c", "z")
    acquire_by(world, ONE, "d", "w")
    assert spoken(world.take()) == ["two", "Keepalive", "Acquire", "one", "Acquire"]


def test_an_equal_identity_is_the_same() -> None:
    world = acting()
    acquire_by(world, ONE, "a")
    acquire_by(world, Identity("token", "one"), "b", "y")
    assert spoken(world.take()) == ["one", "Acquire", "Acquire"]
    acquire_by(world, Identity("token", "one", (Claim("aud", "x"),)), "c", "z")
    assert spoken(world.take()) == ["one", "Acquire"]


def test_the_keepalive_and_the_withdrawal_of_a_wait_are_its_own_identitys() -> None:
    world = acting()
    ticket = acquire_by(world, ONE, "a")
    world.take()
    world.core.ask_for(TWO)
    world.core.watch("y", now_ns=world.now_ns)
    assert spoken(world.take()) == ["two", "Watch"]
    said = spoken(world.pass_s(TTL_MS / 3000 + 0.01))
    assert said[said.index("Keepalive") - 1] == "one"
    world.core.watch("z", now_ns=world.now_ns)
    world.take()
    assert spoken(world.cancel(ticket))[:2] == ["one", "Release"]


def test_the_end_of_a_watch_is_its_own_identitys() -> None:
    world = acting()
    world.core.ask_for(ONE)
    query = world.core.watch("x", now_ns=world.now_ns)
    ask_by(world, TWO)
    assert spoken(world.take()) == ["one", "Watch", "two", "Keepalive"]
    world.core.abandon(query, now_ns=world.now_ns)
    assert spoken(world.take()) == ["one", "Unwatch"]


def test_a_new_connection_hears_the_identity_again() -> None:
    world = acting()
    acquire_by(world, ONE, "a")
    world.take()
    world.cut(A)
    world.pass_s(2)
    said = spoken(world.accept(A))
    assert said.index("Acquire") - said.index("one") == 1


def test_a_server_that_knows_no_identities_hears_of_none() -> None:
    world = acting()
    acquire_by(world, ONE, "a")
    world.cut(A)
    world.pass_s(2)
    assert "Acquire" in (said := spoken(world.accept(A, is_of_this_version=False)))
    assert "one" not in said


def test_a_client_that_acts_for_itself_announces_nothing() -> None:
    world = acting()
    acquire_for(world, "theirs")
    ask_by(world, None)
    assert spoken(world.take()) == ["Acquire", "Keepalive"]


def test_a_request_of_no_identity_behind_one_of_an_identity_is_a_bug() -> None:
    """The server would take it for the other's."""
    world = acting()
    ask_by(world, ONE)
    world.take()
    with pytest.raises(AssertionError):
        ask_by(world, None)
