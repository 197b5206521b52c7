"""A client whose cluster is gone, with another one at its addresses: what it held is lost at once, and it goes on
with the new one."""

from __future__ import annotations

import pytest

from lockring.core.client import CallResult, ClientEffect, Disconnect, GroupChange, SendTo, Ticket, Update
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockLost, WrongCluster
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    Break,
    ClientHello,
    Drain,
    FollowGroup,
    GetStatus,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    Message,
    Mode,
    Probe,
    ProbeReply,
    Refusal,
    Release,
    ReleaseReply,
    View,
    Watch,
    WatchNotice,
    Welcome,
)
from lockring.slots import slot_of
from tests.unit.core.client.world import (
    COORDINATOR,
    TTL_MS,
    A,
    B,
    C,
    World,
    answers,
    connected,
    is_ping,
    lock_info,
    lost,
    only,
    resolved,
    routes,
    sent,
)

ONE = [("a", 1, A)]
"""The members of a cluster of one node."""


def reach(world: World, address: str) -> list[ClientEffect]:
    """Let time pass until the client opens a connection to an address; what came out meanwhile."""
    taken = world.effects + world.take()
    world.effects = []
    for _ in range(100):
        for effect in taken:
            if isinstance(effect, Disconnect):
                world.link_of = {each: link for each, link in world.link_of.items() if link != effect.link}
        if address in world.link_of:
            return taken
        taken += world.pass_s(0.05)
    raise AssertionError(f"{address} was not tried within 5 s")


def greet(world: World, address: str, *messages: Message) -> list[ClientEffect]:
    """Let the client's next connection to an address succeed, and its greeting be answered so."""
    taken = reach(world, address)
    world.core.connected(world.link_of[address], now_ns=world.now_ns)
    return taken + world.take() + world.say(address, *messages)


def refuse(world: World, address: str) -> list[ClientEffect]:
    """Let a server of another cluster answer at an address."""
    effects = greet(world, address, Refusal(0, "wrong-cluster", "this is the cluster new"))
    world.link_of.pop(address, None)
    return effects


def fail(world: World, address: str) -> list[ClientEffect]:
    """Let no server answer at an address."""
    return reach(world, address) + world.cut(address, "connection refused")


def welcome(world: World, address: str = A) -> list[ClientEffect]:
    """Let the new cluster take the client in."""
    effects = greet(
        world,
        address,
        Welcome(PROTOCOL, "new", "node", "a", 2, 1),
        routes(1, members=[("a", 2, A)]),
    )
    assert only(effects, ClientHello).cluster == ""
    return effects


def test_held_locks_are_lost_as_soon_as_the_only_address_answers_for_another_cluster() -> None:
    world = connected(first=routes(1, members=ONE))
    ticket = world.hold()
    world.cut(A)
    assert world.believes(ticket)
    assert lost(refuse(world, A)) == [(ticket, "other-cluster")]
    assert not world.believes(ticket)
    with pytest.raises(LockLost, match="addresses belong to another cluster now") as caught:
        world.release(ticket)
    assert caught.value.reason == "other-cluster"


def test_the_greeting_of_another_cluster_counts_as_its_refusal_does() -> None:
    world = connected(first=routes(1, members=ONE))
    ticket = world.hold()
    world.cut(A)
    effects = greet(world, A, Welcome(PROTOCOL, "new", "node", "a", 2, 1))
    assert lost(effects) == [(ticket, "other-cluster")]


def test_later_calls_go_to_the_new_cluster_and_do_not_mention_the_old_one() -> None:
    world = connected(first=routes(1, members=ONE))
    held, released = world.hold("held"), world.hold("released")
    world.release(released)  # not answered any more
    world.cut(A)
    effects = refuse(world, A)
    assert (released, None) in resolved(effects)
    again = world.acquire("held")
    effects = welcome(world)
    assert sent(effects, Release) == []
    asked = only(effects, Acquire)
    assert asked.acquisition > held.acquisition
    world.say(A, GrantReply(asked.request, 1, TTL_MS, asked.request))
    assert world.believes(again)
    assert sent(world.pass_s(2 * TTL_MS / 1000 / 3 - 1), Release) == []


def test_a_waiting_acquire_waits_at_the_new_cluster() -> None:
    world = connected(first=routes(1, members=ONE))
    world.hold("x")
    waiting = world.acquire("x")
    world.take()
    world.pass_s(1)
    world.cut(A)
    assert waiting not in [which for which, _ in resolved(refuse(world, A))]
    asked = only(welcome(world), Acquire)
    assert asked.acquisition == waiting.acquisition
    assert asked.waited_ms >= 1000
    world.say(A, GrantReply(asked.request, 3, TTL_MS, asked.request))
    assert world.believes(waiting)


def test_orders_about_the_old_cluster_fail_rather_than_reach_the_new_one() -> None:
    world = connected(first=routes(1, members=ONE))
    give_up = world.now_ns + 100 * 10**9
    broken = world.core.break_lock("x", 7, force=True, give_up_at_ns=give_up, now_ns=world.now_ns)
    drained = world.core.drain("a", give_up_at_ns=give_up, now_ns=world.now_ns)
    world.hold()
    world.cut(A)
    failed = {each.request: each.error for each in answers(refuse(world, A))}
    assert isinstance(failed[broken], WrongCluster)
    assert isinstance(failed[drained], WrongCluster)
    world.acquire("y")
    effects = welcome(world)
    assert not sent(effects, Break) + sent(effects, Drain)


def test_a_watch_goes_on_at_the_new_cluster_with_a_gap() -> None:
    world = connected(first=routes(1, members=ONE))
    world.core.watch("x", now_ns=world.now_ns)
    asked = only(world.take(), Watch)
    world.say(A, WatchNotice(asked.request, lock_info("x", 5), [], False))
    world.cut(A)
    refuse(world, A)
    again = only(welcome(world), Watch)
    effects = world.say(A, WatchNotice(again.request, lock_info("x", 1), [], False))
    [update] = [each for each in effects if isinstance(each, Update)]
    assert update.gap


def test_a_member_of_a_group_owns_no_keys_any_more() -> None:
    world = connected(first=routes(1, members=ONE))
    ticket = world.hold("g", mode=Mode.SHARED)
    request = world.core.follow(ticket, now_ns=world.now_ns)
    world.take()
    world.say(A, View(request.exchange.request, 3, True, [], []))
    world.cut(A)
    effects = refuse(world, A)
    assert [each for each in effects if isinstance(each, GroupChange)]
    assert request.subscription is not None
    assert request.subscription.ended
    assert request.done
    assert world.core.owned(request, world.now_ns) == frozenset()
    world.acquire("y")
    assert not sent(welcome(world), FollowGroup)


def test_one_address_of_several_may_answer_for_another_cluster_while_this_one_lives() -> None:
    world = connected()
    ticket = world.hold()
    world.cut(A)
    assert lost(refuse(world, A)) == []
    greet(world, B, Welcome(PROTOCOL, "cluster", "node", "b", 1, 2), routes(2, 1))
    assert world.believes(ticket)
    for _ in range(3):
        assert lost(refuse(world, A)) == []
        world.pass_s(0.5)
    assert world.believes(ticket)


def test_the_cluster_is_gone_once_no_known_address_belongs_to_it() -> None:
    world = connected()
    ticket = world.hold()
    world.cut(A)
    assert not lost(refuse(world, A) + fail(world, B))
    assert world.believes(ticket)
    assert lost(fail(world, C)) == [(ticket, "other-cluster")]


def test_an_earlier_failure_proves_nothing_about_the_other_addresses() -> None:
    world = connected()
    ticket = world.hold()
    world.cut(A)
    fail(world, B)
    fail(world, C)
    world.pass_s(0.01)
    assert not lost(refuse(world, A))
    assert world.believes(ticket)
    assert not lost(fail(world, B))
    assert lost(fail(world, C)) == [(ticket, "other-cluster")]


def gone_on_after_a_meeting() -> tuple[World, Ticket]:
    """A client that has met another cluster at A, whose slots have moved to B, and was served there for a minute."""
    world = connected(first=routes(1, {slot_of("x"): 0, slot_of("y"): 1}))
    ticket = world.hold("x")
    world.acquire("y")
    world.accept(B)
    world.cut(A)
    refuse(world, A)
    effects = world.take() + world.say(B, routes(2, 1))
    for _ in range(120):
        for question in sent(effects, Keepalive):
            world.say(B, KeepaliveReply(question.request, TTL_MS, True))
        effects = world.pass_s(0.5)
    assert world.believes(ticket)
    return world, ticket


def test_a_meeting_counts_until_a_server_of_this_cluster_is_heard_again() -> None:
    world, ticket = gone_on_after_a_meeting()
    effects = world.cut(B) + fail(world, C) + fail(world, A) + fail(world, B)
    assert not lost(effects)
    assert world.believes(ticket)
    effects = refuse(world, A) + fail(world, B)
    assert not lost(effects)
    assert lost(fail(world, C)) == [(ticket, "other-cluster")]


def test_an_earlier_meeting_leads_no_client_without_locks_to_another_cluster() -> None:
    world, ticket = gone_on_after_a_meeting()
    asked = only(world.release(ticket), Release)
    world.say(B, ReleaseReply(asked.request, True))
    world.cut(B)
    world.acquire("z")
    effects = world.take() + reach(world, B)
    world.core.connected(world.link_of[B], now_ns=world.now_ns)
    assert only(effects + world.take(), ClientHello).cluster == "cluster"


def test_a_server_that_knows_of_no_cluster_yet_does_not_vouch_for_this_one() -> None:
    world = connected([A, COORDINATOR], first=routes(1, members=ONE))
    ticket = world.hold()
    world.cut(A)
    greet(world, COORDINATOR, Welcome(PROTOCOL, "", "coordinator", "", 0, 0, COORDINATOR, probes=True))
    assert not lost(refuse(world, A))
    [question] = sent(world.pass_s(2), Probe)
    world.say(COORDINATOR, ProbeReply(question.request))
    assert world.believes(ticket)
    effects = world.cut(COORDINATOR)
    assert lost(effects) == [(ticket, "other-cluster")]


def test_an_idle_link_is_checked_while_something_waits_for_a_route_and_given_up_if_it_is_dead() -> None:
    world = connected(first=routes(1, primaries=None))
    silent = world.link_of[A]
    world.deaf.add(silent)
    assert not any(is_ping(effect) for effect in world.take() + world.pass_s(6))
    world.acquire("x")
    effects = world.take() + world.pass_s(8)
    assert any(is_ping(effect) and effect.link == silent for effect in effects)
    assert any(isinstance(effect, Disconnect) and effect.link == silent for effect in effects)


@pytest.mark.parametrize(("is_of_this_version", "question"), [(True, Probe), (False, GetStatus)])
def test_an_idle_link_to_a_coordinator_is_checked_by_a_question_that_it_takes(
    is_of_this_version: bool, question: type[Probe | GetStatus]
) -> None:
    world = World([COORDINATOR, B])
    world.acquire("x")
    world.accept(COORDINATOR, is_of_this_version=is_of_this_version)
    link = world.link_of[COORDINATOR]
    assert sent(world.take(), question) == []
    effects = refuse(world, B) + world.pass_s(12)
    on_link = [
        effect for effect in effects if isinstance(effect, SendTo | Disconnect) and effect.link == link
    ]
    assert isinstance(on_link[0], SendTo)
    assert isinstance(on_link[0].message, question)
    assert isinstance(on_link[-1], Disconnect)  # it did not answer
    assert not any(is_ping(effect) for effect in on_link)


def test_an_answer_to_a_ping_keeps_the_link_to_a_coordinator() -> None:
    world = World([COORDINATOR, B])
    world.acquire("x")
    world.accept(COORDINATOR)
    link = world.link_of[COORDINATOR]
    effects = world.take() + refuse(world, B)
    for _ in range(12):
        for ping in sent(effects, Probe):
            world.say(COORDINATOR, ProbeReply(ping.request))
        effects = world.pass_s(1)
        assert not any(isinstance(effect, Disconnect) and effect.link == link for effect in effects)


def test_a_call_that_is_over_stays_over() -> None:
    world = connected(first=routes(1, members=ONE))
    ticket = world.hold()
    world.cancel(ticket)
    world.cut(A)
    effects = refuse(world, A)
    assert lost(effects) == []
    assert [each for each in effects if isinstance(each, CallResult)] == []
    assert world.core.next_deadline_ns() in (None, DISTANT_FUTURE_NS) or world.pass_s(30) is not None
