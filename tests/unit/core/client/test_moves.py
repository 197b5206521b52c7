"""Locks that move to another node: who is asked to renew them, and until when they are held."""

from __future__ import annotations

from lockring.protocol import (
    Acquire,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    Message,
)
from lockring.slots import slot_of
from lockring.units import NS_PER_S
from tests.unit.core.client.world import (
    TTL_MS,
    TTL_NS,
    A,
    B,
    connected,
    connects,
    digest_of,
    lost,
    only,
    routes,
    sent,
)


class TestMoves:
    def test_held_locks_follow_the_routes_and_are_renewed_at_once_at_the_new_node(self) -> None:
        world = connected()
        ticket = world.hold()
        assert connects(world.say(A, routes(2, 1))) == [B]
        keepalive = only(world.accept(B), Keepalive)
        assert (keepalive.count, keepalive.digest, keepalive.version) == (1, digest_of(2), 2)
        world.say(B, KeepaliveReply(keepalive.request, TTL_MS, True))
        world.now_ns += TTL_NS - 1
        assert world.believes(ticket)

    def test_only_the_moved_slots_leave_and_the_digests_follow(self) -> None:
        world = connected()
        world.hold("x")
        world.hold("y")
        keepalive = only(world.pass_s(3), Keepalive)  # folds both into the digest
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        world.say(A, routes(2, {slot_of("y"): 1}))
        at_b = only(world.accept(B), Keepalive)
        assert at_b.digest == digest_of(3)
        world.say(B, KeepaliveReply(at_b.request, TTL_MS, True))
        assert sorted(each.digest for each in sent(world.pass_s(3), Keepalive)) == sorted(
            [digest_of(2), digest_of(3)]
        )

    def test_a_moved_lock_keeps_the_promise_that_it_had(self) -> None:
        world = connected()
        ticket = world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        kept_at = world.now_ns
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True), routes(2, 1))
        world.now_ns = kept_at + TTL_NS - 1
        assert world.believes(ticket)
        world.now_ns += 1
        assert not world.believes(ticket)

    def test_a_renewal_on_its_way_from_the_new_node_does_not_cover_tickets_that_came_after_it(self) -> None:
        world = connected(first=routes(1, {slot_of("y"): 1}))
        other = world.acquire("y")
        world.take()
        world.accept(B)
        world.say(B, GrantReply(other.exchange.request, 1, TTL_MS, other.exchange.request))
        ticket = world.hold("x")
        keepalives = sent(world.pass_s(3), Keepalive)
        at_b = next(each for each in keepalives if each.digest == digest_of(other.acquisition))
        world.say(A, routes(2, 1))
        world.now_ns += NS_PER_S
        world.say(B, KeepaliveReply(at_b.request, TTL_MS, True))
        world.now_ns += 5 * NS_PER_S
        assert world.believes(other)
        assert not world.believes(ticket)

    def test_a_lock_whose_slot_has_no_primary_is_kept_until_its_deadline(self) -> None:
        world = connected()
        ticket = world.hold()
        world.pass_s(1)
        world.say(A, routes(2, None))
        effects = world.pass_s(7.9)
        assert lost(effects) == []
        assert world.core.status(now_ns=world.now_ns).held == 1
        assert lost(world.pass_s(0.1)) == [(ticket, "local-deadline")]

    def test_a_lock_comes_back_from_a_slot_without_primary(self) -> None:
        world = connected()
        ticket = world.hold()
        world.say(A, routes(2, None))
        keepalive = only(world.say(A, routes(3, 0)), Keepalive)
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert world.believes(ticket)

    def test_after_a_reconnect_acquires_come_before_the_keepalive_that_speaks_of_them(self) -> None:
        world = connected()
        world.hold("x")
        world.acquire("y")
        world.take()
        world.cut(A)
        messages = sent(world.accept(A), Message)
        assert [type(message) for message in messages] == [Acquire, Keepalive]
        assert isinstance(messages[1], Keepalive)
        assert messages[1].count == 2

    def test_older_and_equal_routes_change_nothing(self) -> None:
        world = connected(first=routes(5))
        world.hold()
        assert world.say(A, routes(4, 1), routes(5, 1)) == []
        assert world.core.version == 5

    def test_a_node_that_left_is_forgotten_and_its_link_closed_once_another_is_ready(self) -> None:
        world = connected()
        world.hold()
        world.say(A, routes(2, 0, [("b", 1, B)]))
        effects = world.accept(B)
        keepalive = only(effects, Keepalive)
        world.say(B, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert world.core.status(now_ns=world.now_ns).links == ((A, True), (B, True))
        world.pass_s(0.1)
        world.say(B, routes(3, 0, [("b", 1, B)]))
        assert world.core.status(now_ns=world.now_ns).links == ((B, True),)

    def test_a_restarted_node_counts_as_another_one(self) -> None:
        world = connected()
        ticket = world.hold()
        world.cut(A)
        world.accept(A, incarnation=2)
        # The new life has nothing to do with the slots of the old one, and is not asked.
        assert world.core.status(now_ns=world.now_ns).held == 1
        keepalive = only(world.say(A, routes(2, 0, [("a", 2, A), ("b", 1, B)])), Keepalive)
        assert keepalive.count == 1
        assert world.believes(ticket)
