"""Connections that were dropped silently: doubted when an answer is late, raced by a second one, and replaced."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.core.client import SendTo
from lockring.core.client.link_checks import CHECK_FIRST_NS, CHECK_FIRST_NS_MAX
from lockring.protocol import (
    Acquire,
    Describe,
    DescribeReply,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    QueueNotice,
    Release,
    ReleaseReply,
)
from lockring.units import NS_PER_S
from tests.unit.core.client.world import (
    TTL_MS,
    A,
    B,
    World,
    answers,
    connected,
    connects,
    disconnects,
    is_ping,
    lock_info,
    only,
    resolved,
    routes,
    sent,
)


def idle(**options: Any) -> World:
    """A client whose link to A has carried nothing for so long that it is not trusted, and leads nowhere any more."""
    world = connected(**options)
    world.pass_s(2)
    world.deaf.add(world.link_of[A])
    return world


class TestRaces:
    def test_a_try_on_an_idle_connection_that_leads_nowhere_is_granted_over_a_second_one_within_its_second(
        self,
    ) -> None:
        world = idle()
        ticket = world.acquire(wait_ms=0)
        first = only(world.take(), Acquire)
        assert connects(world.pass_s(0.31)) == [A]
        again = only(world.accept_rival(A, node="a"), Acquire)
        assert again.acquisition == first.acquisition, "the same acquisition, so it cannot be granted twice"
        assert resolved(world.say(A, GrantReply(again.request, 1, TTL_MS, again.request))) == [(ticket, None)]

    def test_a_wait_without_a_bound_is_raced_too(self) -> None:
        world = idle()
        world.acquire()
        world.take()
        assert connects(world.pass_s(0.31)) == [A]

    @pytest.mark.parametrize("what", ["release", "keepalive", "describe"])
    def test_every_query_is_repeated_on_the_connection_that_wins(self, what: str) -> None:
        world = connected()
        ticket = world.hold()
        world.pass_s(2)
        world.deaf.add(world.link_of[A])
        kind: type[Release | Describe | Keepalive]
        if what == "release":
            kind = Release
            world.release(ticket)
        elif what == "describe":
            kind = Describe
            world.core.describe("x", give_up_at_ns=world.now_ns + 10**10, now_ns=world.now_ns)
        else:
            kind = Keepalive
            world.pass_s(1)
        assert connects(world.pass_s(0.31)) == [A]
        assert len(sent(world.accept_rival(A, node="a"), kind)) == 1

    def test_an_answer_that_is_only_slow_ends_the_race(self) -> None:
        world = connected()
        world.pass_s(2)
        request = world.core.describe("x", give_up_at_ns=world.now_ns + 10**10, now_ns=world.now_ns)
        message = only(world.take(), Describe)
        world.pass_s(0.4)
        effects = world.say(A, DescribeReply(message.request, lock_info("x")))
        assert disconnects(effects) == ["the connection that was there answers after all"]
        assert [each.request for each in answers(effects)] == [request]
        assert connects(world.pass_s(5)) == []

    def test_a_connection_in_use_is_not_raced(self) -> None:
        world = connected()
        world.pass_s(0.9)
        world.core.describe("x", give_up_at_ns=world.now_ns + 10**10, now_ns=world.now_ns)
        assert connects(world.pass_s(1.9)) == []

    def test_a_rival_that_cannot_be_opened_leaves_the_first_connection_alone(self) -> None:
        world = idle()
        world.acquire()
        world.take()
        world.pass_s(0.31)
        world.core.disconnected(world.rival_of.pop(A), now_ns=world.now_ns, reason="connection refused")
        assert disconnects(world.pass_s(1)) == []
        assert connects(world.pass_s(0.5)) == []
        assert disconnects(world.pass_s(1)) == [f"{A} did not answer in time"]

    def test_a_first_connection_that_breaks_leaves_its_place_to_the_second(self) -> None:
        world = idle()
        ticket = world.acquire()
        world.take()
        world.pass_s(0.31)
        assert A not in connects(world.cut(A))
        world.link_of[A] = world.rival_of.pop(A)
        again = only(world.accept(A), Acquire)
        assert resolved(world.say(A, GrantReply(again.request, 1, TTL_MS, again.request))) == [(ticket, None)]

    def test_held_locks_are_renewed_over_the_second_connection(self) -> None:
        world = connected()
        ticket = world.hold()
        world.pass_s(2)
        world.deaf.add(world.link_of[A])
        world.pass_s(1.31)
        keepalive = only(world.accept_rival(A, node="a"), Keepalive)
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        world.now_ns += 8 * 10**9
        assert world.believes(ticket)

    def test_a_restarted_node_does_not_take_the_place_of_its_former_life(self) -> None:
        world = idle()
        world.acquire()
        world.take()
        world.pass_s(0.31)
        effects = world.accept_rival(A, routes(2, 0, [("b", 1, A)]), node="b")
        assert only(effects, Acquire).name == "x"
        assert world.core.status(now_ns=world.now_ns).links == ((A, True),)


class TestWaiting:
    def test_a_node_at_which_an_acquire_waits_is_asked_now_and_then_whether_it_is_there(self) -> None:
        world = connected()
        world.acquire()
        world.say(A, QueueNotice(only(world.take(), Acquire).request))
        world.deaf.add(world.link_of[A])
        pings = [effect for effect in world.pass_s(CHECK_FIRST_NS_MAX / NS_PER_S) if is_ping(effect)]
        assert len(pings) == 1
        assert connects(world.pass_s(0.31)) == [A]

    def test_a_node_that_falls_silent_before_the_first_question_is_asked_a_second_after_its_last_word(
        self,
    ) -> None:
        world = connected()
        world.acquire()
        request = only(world.take(), Acquire).request
        world.pass_s(0.6)
        world.say(A, QueueNotice(request))
        world.deaf.add(world.link_of[A])
        assert not [effect for effect in world.pass_s(0.99) if is_ping(effect)]
        assert len([effect for effect in world.pass_s(0.27) if is_ping(effect)]) == 1
        assert connects(world.pass_s(0.31)) == [A]

    def test_clients_that_heard_of_something_together_do_not_ask_together(self) -> None:
        def asks_at_ns(client: str) -> int:
            world = connected(new_id=lambda: client)
            world.acquire()
            world.say(A, QueueNotice(only(world.take(), Acquire).request))
            world.deaf.add(world.link_of[A])
            heard_at_ns = world.now_ns
            while not any(is_ping(effect) for effect in world.pass_s(0.01)):
                assert world.now_ns - heard_at_ns < 2 * CHECK_FIRST_NS_MAX
            return world.now_ns - heard_at_ns

        times_ns = sorted(asks_at_ns(f"client-{number}") for number in range(50))
        assert CHECK_FIRST_NS <= times_ns[0] < times_ns[-1] <= CHECK_FIRST_NS_MAX + 10_000_000
        assert all(times_ns.count(each) <= 50 // 5 for each in times_ns), (
            "of 25 times, each may have its share"
        )

    def test_waiting_costs_a_ping_each_five_seconds(self) -> None:
        world = connected()
        world.acquire(ttl_ms=30_000)
        first = only(world.take(), Acquire).request
        world.say(A, QueueNotice(first))
        keepalive = only(world.pass_s(3), Keepalive)  # of the session that the warm-up has used
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert sent(world.pass_s(5.9)) == []
        world.acquire("y", ttl_ms=30_000)
        numbered_between = only(world.take(), Acquire).request - first - 1
        assert numbered_between == 1 + 2, "the keepalive, and two questions that the world answers by itself"

    def test_an_idle_client_sends_nothing(self) -> None:
        world = connected()
        keepalive = only(world.pass_s(3), Keepalive)  # for the acquire before
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert not [effect for effect in world.pass_s(600) if isinstance(effect, SendTo)]

    def test_the_first_acquire_after_a_pause_asks_beside_it_whether_the_node_is_there(self) -> None:
        world = idle()
        world.acquire()
        effects = world.take()
        assert [
            type(effect.message) is Acquire or is_ping(effect)
            for effect in effects
            if isinstance(effect, SendTo)
        ] == [
            True,
            True,
        ]
        ticket = world.acquire("y")
        assert len(sent(world.take())) == 1, "one question is enough"
        assert ticket.exchange.link


class TestReconnecting:
    def test_locks_held_in_slots_without_primary_make_the_client_look_for_a_server_at_once(
        self,
    ) -> None:
        one = [("a", 1, A)]
        world = connected(first=routes(1, 0, one))
        world.hold()
        world.say(A, routes(2, None, one))
        assert A in connects(world.cut(A) + world.pass_s(0.3))
        world.cut(A, "connection refused")
        times = 0
        for _ in range(100):
            if A in connects(world.pass_s(0.05)):
                times += 1
                world.cut(A, "connection refused")
        assert 4 <= times <= 9, "again and again, after pauses of up to a second or a little more"

    def test_clients_do_not_all_come_back_at_the_same_time(self) -> None:
        def retries(client: str) -> list[int]:
            world = World(new_id=lambda: client)
            world.acquire()
            world.take()
            pauses_ns = []
            for _ in range(6):
                effects = world.cut(A, "connection refused")
                cut_at_ns = world.now_ns
                while A not in connects(effects):
                    due_ns = world.core.next_deadline_ns()
                    assert due_ns is not None
                    world.now_ns = due_ns
                    effects = world.take()
                pauses_ns.append(world.now_ns - cut_at_ns)
            return pauses_ns

        assert retries("one") != retries("two")
        assert retries("one") == retries("one")

    def test_a_release_is_confirmed_over_the_second_connection(self) -> None:
        world = connected()
        ticket = world.hold()
        world.pass_s(2)
        world.deaf.add(world.link_of[A])
        world.release(ticket)
        world.pass_s(0.31)
        again = only(world.accept_rival(A, node="a"), Release)
        assert resolved(world.say(A, ReleaseReply(again.request, True))) == [(ticket, None)]

    def test_another_server_is_not_raced_for(self) -> None:
        world = idle(seeds=[A, B])
        world.acquire()
        world.take()
        assert connects(world.pass_s(0.31)) == [A]
