"""Acquire, release and cancel, against scripted nodes: nothing is granted twice, nothing is left behind."""

from __future__ import annotations

import pytest

from lockring.core.client import GrantLost, LongWait, SendTo
from lockring.core.client.recent_releases import UNDONE_NS
from lockring.errors import (
    AcquireTimeout,
    ClientClosed,
    InvalidRequest,
    LockLost,
    NotHeld,
    Overloaded,
    Unavailable,
)
from lockring.ids import Generation
from lockring.protocol import (
    Acquire,
    CloseSession,
    GrantReply,
    HolderRecord,
    Keepalive,
    KeepaliveReply,
    LossNotice,
    QueueNotice,
    Refusal,
    Release,
    ReleaseReply,
    TroubleNotice,
)
from lockring.slots import slot_of
from tests.unit.core.client.world import (
    COORDINATOR,
    TTL_MS,
    TTL_NS,
    A,
    B,
    World,
    connected,
    connects,
    disconnects,
    lost,
    only,
    resolved,
    routes,
    sent,
)


def moved(request: int, hint: int = 0) -> Refusal:
    return Refusal(request, "moved", "another node has it", "x", hint)


class TestAcquire:
    def test_a_client_connects_only_when_it_has_something_to_do(self) -> None:
        world = World()
        assert world.pass_s(100) == []
        world.acquire()
        assert connects(world.take()) == [A]

    def test_an_acquire_waits_for_greeting_and_routes_and_then_goes_to_the_slots_primary(self) -> None:
        world = World()
        ticket = world.acquire("x", wait_ms=5_000)
        assert sent(world.accept(A)) == []
        effects = world.say(A, routes(3, 1))
        assert connects(effects) == [B]
        request = only(world.accept(B), Acquire)
        assert (request.session, request.acquisition, request.name) == (ticket.session.id, 1, "x")
        assert (request.ttl_ms, request.owner, request.version, request.wait_ms) == (
            TTL_MS,
            "tester",
            3,
            5_000,
        )

    def test_a_grant_resolves_the_call_and_carries_the_generation(self) -> None:
        world = connected()
        ticket = world.acquire()
        request = only(world.take(), Acquire)
        effects = world.say(A, GrantReply(request.request, 42, TTL_MS, request.request))
        assert resolved(effects) == [(ticket, None)]
        assert ticket.generation == 42
        assert world.believes(ticket)

    def test_a_second_grant_of_the_same_request_changes_nothing(self) -> None:
        world = connected()
        ticket = world.hold(generation=5)
        assert world.say(A, GrantReply(ticket.exchange.request, 6, TTL_MS, ticket.exchange.request)) == []
        assert ticket.generation == 5

    def test_acquisitions_count_per_session_and_each_ttl_has_its_own_session(self) -> None:
        world = connected()
        tickets = [
            world.acquire("x", ttl_ms=5_000),
            world.acquire("y", ttl_ms=5_000),
            world.acquire("z", ttl_ms=700),
        ]
        requests = sent(world.take(), Acquire)
        assert [request.acquisition for request in requests] == [1, 2, 1]
        assert requests[0].session == requests[1].session != requests[2].session
        assert [ticket.session.ttl_ms for ticket in tickets] == [5_000, 5_000, 700]

    def test_after_connection_loss_the_acquire_is_repeated_under_its_id_with_the_time_waited(self) -> None:
        world = connected()
        ticket = world.acquire("x", wait_ms=60_000)
        first = only(world.take(), Acquire)
        world.pass_s(1.5)
        assert connects(world.cut(A)) == [A, B]  # B for news, should A not come back
        again = only(world.accept(A), Acquire)
        assert (again.session, again.acquisition) == (first.session, first.acquisition)
        assert again.request > first.request
        assert again.waited_ms == 1_500
        assert again.wait_ms == 58_500
        assert resolved(world.say(A, GrantReply(again.request, 9, TTL_MS, again.request))) == [(ticket, None)]

    def test_new_routes_send_a_waiting_acquire_to_the_new_primary_and_the_old_ones_answer_is_ignored(
        self,
    ) -> None:
        world = connected()
        ticket = world.acquire()
        first = only(world.take(), Acquire)
        assert connects(world.say(A, routes(2, 1))) == [B]
        again = only(world.accept(B), Acquire)
        assert again.acquisition == first.acquisition
        assert world.say(A, GrantReply(first.request, 5, TTL_MS, first.request), moved(first.request)) == []
        assert resolved(world.say(B, GrantReply(again.request, 6, TTL_MS, again.request))) == [(ticket, None)]
        assert ticket.generation == 6

    def test_moved_without_newer_routes_is_retried_after_pauses_that_grow(self) -> None:
        world = connected()
        world.acquire()
        request = only(world.take(), Acquire)
        pauses = []
        for _ in range(8):
            assert sent(world.say(A, moved(request.request))) == []
            before = world.now_ns
            while not (again := sent(world.pass_s(0.01), Acquire)):
                pass
            pauses.append(round((world.now_ns - before) / 1e9, 2))
            request = again[0]
        assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]

    def test_moved_is_followed_at_once_where_the_routes_changed_since_it_was_sent(self) -> None:
        world = connected()
        world.acquire("other", ttl_ms=TTL_MS)
        world.say(A, routes(2, {slot_of("other"): 1}))
        world.accept(B)
        ticket = world.acquire("x")
        request = only(world.take(), Acquire)
        # The node pushes its newer routes before it refuses.
        again = only(world.say(A, routes(3, 1), moved(request.request, 3)), Acquire)
        assert again.name == "x"
        assert ticket.exchange.link == world.link_of[B]

    def test_unavailable_is_retried_and_new_routes_end_the_pause(self) -> None:
        world = connected()
        world.acquire()
        request = only(world.take(), Acquire)
        world.say(A, Refusal(request.request, "unavailable", "no lease"))
        assert only(world.say(A, routes(2)), Acquire).acquisition == request.acquisition

    def test_overloaded_is_retried_only_after_its_pause(self) -> None:
        world = connected()
        world.acquire()
        request = only(world.take(), Acquire)
        world.say(A, Refusal(request.request, "overloaded", "too many wait"))
        assert sent(world.say(A, routes(2)), Acquire) == []
        assert only(world.pass_s(0.05), Acquire).acquisition == request.acquisition

    def test_a_try_is_not_repeated_when_the_node_is_overloaded(self) -> None:
        world = connected()
        ticket = world.acquire(wait_ms=0)
        request = only(world.take(), Acquire)
        [(which, error)] = resolved(world.say(A, Refusal(request.request, "overloaded", "too many wait")))
        assert which is ticket
        assert isinstance(error, Overloaded)

    def test_a_refusal_for_good_reaches_the_caller_with_its_text(self) -> None:
        world = connected()
        world.acquire()
        request = only(world.take(), Acquire)
        [(_, error)] = resolved(world.say(A, Refusal(request.request, "invalid", "ttl is above 30 s")))
        assert isinstance(error, InvalidRequest)
        assert str(error) == "ttl is above 30 s"
        assert error.name == "x"
        assert world.core.status(now_ns=world.now_ns).waiting == 0

    def test_a_slot_without_primary_parks_the_acquire_until_one_is_there(self) -> None:
        world = connected(first=routes(1, None))
        world.acquire()
        assert sent(world.take()) == []
        assert world.core.status(now_ns=world.now_ns).parked == 1
        assert only(world.say(A, routes(2, 0)), Acquire).name == "x"

    def test_waiters_of_one_lock_are_sent_again_in_their_order(self) -> None:
        world = connected()
        for _ in range(5):
            world.acquire()
        world.take()
        world.cut(A)
        assert [request.acquisition for request in sent(world.accept(A), Acquire)] == [2, 3, 4, 5, 6]


class TestWaiting:
    def test_the_nodes_timeout_ends_the_call_and_leaves_nothing_to_release(self) -> None:
        world = connected()
        world.acquire(wait_ms=2_000)
        request = only(world.take(), Acquire)
        effects = world.say(A, Refusal(request.request, "timeout", "'x' is held by 'bob'"))
        [(_, error)] = resolved(effects)
        assert isinstance(error, AcquireTimeout)
        assert "bob" in str(error)
        assert sent(effects) == []

    def test_the_error_has_the_holders_the_position_and_the_time_that_the_call_has_waited(self) -> None:
        world = connected()
        world.acquire(wait_ms=2_000)
        request = only(world.take(), Acquire)
        world.pass_s(1.5)
        holder = HolderRecord("bob", "s", 1, 7, 5_000, 10_000, 9_000, host="web1", pid=4711)
        refusal = Refusal(request.request, "timeout", "'x' is held", holders=[holder], position=3)
        [(_, error)] = resolved(world.say(A, refusal))
        assert isinstance(error, AcquireTimeout)
        assert [(each.owner, each.host, each.pid, each.held_s) for each in error.holders] == [
            ("bob", "web1", 4711, 5.0)
        ]
        assert (error.position, error.waited_s) == (3, 1.5)

    def test_a_node_of_an_older_version_names_no_holders(self) -> None:
        world = connected()
        world.acquire(wait_ms=2_000)
        request = only(world.take(), Acquire)
        [(_, error)] = resolved(world.say(A, Refusal(request.request, "timeout", "'x' is held")))
        assert isinstance(error, AcquireTimeout)
        assert (error.holders, error.position) == ((), None)

    def test_a_long_wait_is_reported_once_and_its_holder_is_in_the_error_of_the_own_clock(self) -> None:
        world = connected()
        world.acquire(wait_ms=2_000)
        request = only(world.take(), Acquire)
        assert world.say(A, QueueNotice(request.request)) == []
        world.pass_s(1.0)
        holder = HolderRecord("bob", "s", 1, 7, 5_000, 10_000, 9_000)
        [wait] = world.say(A, QueueNotice(request.request, [holder], 2))
        assert isinstance(wait, LongWait)
        assert (wait.waited_s, wait.notice.position) == (1.0, 2)
        assert world.say(A, QueueNotice(request.request, [holder], 1)) == []
        [(_, error)] = resolved(world.pass_s(1.5))
        assert isinstance(error, AcquireTimeout)
        assert ([each.owner for each in error.holders], error.position) == (["bob"], 1)

    def test_the_clients_own_clock_ends_the_wait_and_takes_the_request_back(self) -> None:
        world = connected()
        ticket = world.acquire(wait_ms=2_000)
        request = only(world.take(), Acquire)
        world.say(A, QueueNotice(request.request))
        assert resolved(world.pass_s(2.2)) == [], "the node may be about to say who holds it"
        effects = world.pass_s(0.1)
        [(_, error)] = resolved(effects)
        assert isinstance(error, AcquireTimeout)
        assert only(effects, Release).acquisition == ticket.acquisition
        assert resolved(world.say(A, GrantReply(request.request, 3, TTL_MS, request.request))) == []
        assert not world.believes(ticket)

    def test_a_wait_ends_as_an_outage_unless_a_node_has_said_that_the_lock_is_held(self) -> None:
        world = connected()
        world.acquire(wait_ms=2_000)
        request = only(world.take(), Acquire)
        assert resolved(world.pass_s(1.999)) == []
        effects = world.pass_s(0.001)
        [(_, error)] = resolved(effects)
        assert isinstance(error, Unavailable)
        assert error.reason == "failover"
        assert error.since_s == pytest.approx(2)
        assert resolved(world.say(A, GrantReply(request.request, 3, TTL_MS, request.request))) == []

    def test_a_queue_notice_counts_only_as_long_as_its_connection_lasts(self) -> None:
        world = connected()
        world.acquire(wait_ms=3_000)
        world.say(A, QueueNotice(only(world.take(), Acquire).request))
        world.cut(A)
        [(_, error)] = resolved(world.pass_s(3))
        assert isinstance(error, Unavailable)
        assert error.reason == "unreachable"

    @pytest.mark.parametrize(("code", "kind"), [("timeout", AcquireTimeout), ("unavailable", Unavailable)])
    def test_the_client_waits_for_the_last_word_of_the_node_that_has_queued_the_acquire(
        self, code: str, kind: type[Exception]
    ) -> None:
        world = connected()
        ticket = world.acquire(wait_ms=2_000)
        request = only(world.take(), Acquire).request
        world.say(A, QueueNotice(request))
        world.pass_s(2.1)
        [(which, error)] = resolved(world.say(A, Refusal(request, code, "held by someone, or not")))
        assert (which, type(error)) == (ticket, kind)
        assert "held by someone" in str(error)

    def test_a_queue_at_a_node_without_coordinator_does_not_show_that_the_lock_is_held(self) -> None:
        world = connected()
        world.acquire(wait_ms=2_000)
        world.say(A, QueueNotice(only(world.take(), Acquire).request))
        world.say(A, TroubleNotice("no-coordinator", "node a has not heard of the coordinator", True, 38_000))
        [(_, error)] = resolved(world.pass_s(2.5))
        assert isinstance(error, Unavailable)
        assert error.reason == "no-coordinator"
        assert error.since_s is not None
        assert error.since_s >= 40
        assert "has not heard of the coordinator" in str(error)

    def test_a_try_waits_a_second_for_its_answer_and_then_fails_without_one(self) -> None:
        world = connected()
        world.acquire(wait_ms=0)
        world.take()
        assert resolved(world.pass_s(0.99)) == []
        [(_, error)] = resolved(world.pass_s(0.01))
        assert isinstance(error, Unavailable)
        assert A in str(error)

    def test_with_no_server_in_reach_the_error_names_every_address_and_why(self) -> None:
        world = World([A, B])
        world.acquire(wait_ms=3_000)
        world.take()
        world.cut(A, "connection refused")
        [(_, error)] = resolved(world.pass_s(3))
        assert isinstance(error, Unavailable)
        assert f"{A}: connection refused" in str(error)
        assert B in str(error)

    def test_without_a_timeout_the_first_server_is_awaited_for_the_connect_timeout(self) -> None:
        world = World(connect_timeout_ns=4_000_000_000)
        world.acquire()
        assert resolved(world.pass_s(3.9)) == []
        [(_, error)] = resolved(world.pass_s(0.2))
        assert isinstance(error, Unavailable)

    def test_once_a_server_was_reached_a_call_without_timeout_waits_forever(self) -> None:
        world = connected()
        world.cut(A)
        world.acquire()
        assert resolved(world.pass_s(300)) == []

    def test_a_lock_whose_slot_no_node_serves_is_unavailable_when_the_time_is_over(self) -> None:
        world = connected(first=routes(1, None))
        world.acquire(wait_ms=2_000)
        [(_, error)] = resolved(world.pass_s(2))
        assert isinstance(error, Unavailable)
        assert "'x'" in str(error)

    @pytest.mark.parametrize(("code", "kind"), [("unavailable", Unavailable), ("overloaded", Overloaded)])
    def test_at_the_end_of_the_wait_the_error_is_the_last_refusal(
        self, code: str, kind: type[Exception]
    ) -> None:
        world = connected()
        world.acquire(wait_ms=1_500)
        effects = world.take()
        for _ in range(20):
            for request in sent(effects, Acquire):
                world.say(A, Refusal(request.request, code, "because"))
            effects = world.pass_s(0.1)
            if resolved(effects):
                break
        [(_, error)] = resolved(effects)
        assert type(error) is kind
        assert str(error).startswith("because")

    def test_timeouts_of_granted_acquires_do_not_pile_up(self) -> None:
        world = connected()
        core, link, now_ns = world.core, world.link_of[A], world.now_ns
        for _ in range(5_000):
            ticket = world.acquire(wait_ms=3_600_000)
            core.receive(
                link, GrantReply(ticket.exchange.request, 1, TTL_MS, ticket.exchange.request), now_ns=now_ns
            )
            core.release(ticket, now_ns=now_ns)
            core.receive(link, ReleaseReply(ticket.exchange.request, True), now_ns=now_ns)
        assert len(core._outstanding.alarms) < 3_000
        world.take()


class TestRelease:
    def test_a_release_names_the_acquisition_and_resolves_when_it_is_answered(self) -> None:
        world = connected()
        ticket = world.hold()
        effects = world.release(ticket)
        request = only(effects, Release)
        assert (request.session, request.acquisition, request.name) == (ticket.session.id, 2, "x")
        assert not world.believes(ticket)
        assert resolved(effects) == []
        assert resolved(world.say(A, ReleaseReply(request.request, True))) == [(ticket, None)]

    def test_a_second_release_is_refused(self) -> None:
        world = connected()
        ticket = world.hold()
        world.release(ticket)
        with pytest.raises(NotHeld):
            world.release(ticket)

    def test_a_release_after_the_deadline_raises_that_the_lock_was_lost(self) -> None:
        world = connected()
        ticket = world.hold()
        world.now_ns += TTL_NS  # frozen: no timer ran
        with pytest.raises(LockLost) as caught:
            world.core.release(ticket, now_ns=world.now_ns)
        assert caught.value.reason == "local-deadline"
        assert lost(world.take()) == [(ticket, "local-deadline")]

    def test_a_release_is_repeated_on_the_next_connection(self) -> None:
        world = connected()
        ticket = world.hold()
        first = only(world.release(ticket), Release)
        world.cut(A)
        again = only(world.accept(A), Release)
        assert again.acquisition == first.acquisition
        assert resolved(world.say(A, ReleaseReply(again.request, False))) == [(ticket, None)]

    def test_a_release_refused_as_moved_goes_to_the_new_primary(self) -> None:
        world = connected()
        ticket = world.hold()
        first = only(world.release(ticket), Release)
        assert connects(world.say(A, routes(2, 1), moved(first.request))) == [B]
        again = only(world.accept(B), Release)
        assert again.acquisition == first.acquisition
        assert resolved(world.say(B, ReleaseReply(again.request, True))) == [(ticket, None)]

    def test_a_release_is_repeated_at_a_new_primary_which_may_not_have_heard_of_it(self) -> None:
        world = connected()
        ticket = world.hold()
        first = only(world.release(ticket), Release)
        world.say(A, ReleaseReply(first.request, True))
        world.pass_s(1)
        world.say(A, routes(2, 1))
        again = only(world.accept(B), Release)
        assert again.acquisition == first.acquisition
        assert resolved(world.say(B, ReleaseReply(again.request, True))) == [], "its caller was told before"
        assert sent(world.say(B, routes(3, 1)), Release) == [], "once is enough for each primary"

    def test_a_release_is_repeated_where_its_primary_is_lost_though_nothing_else_is_wanted_there(
        self,
    ) -> None:
        world = connected()
        ticket = world.hold()
        first = only(world.release(ticket), Release)
        world.say(A, ReleaseReply(first.request, True))
        world.cut(A)
        assert A in connects(world.pass_s(1)), "somebody has to say where the lock is now"
        assert only(world.accept(A), Release).acquisition == first.acquisition

    def test_a_release_of_long_ago_is_not_repeated_at_a_new_primary(self) -> None:
        world = connected()
        ticket = world.hold()
        world.say(A, ReleaseReply(only(world.release(ticket), Release).request, True))
        world.now_ns += UNDONE_NS
        assert connects(world.say(A, routes(2, 1))) == []

    def test_a_release_refused_for_another_reason_is_over(self) -> None:
        world = connected()
        ticket = world.hold()
        request = only(world.release(ticket), Release)
        effects = world.say(A, Refusal(request.request, "not-held", "unknown"))
        assert resolved(effects) == [(ticket, None)]

    def test_the_caller_waits_for_an_unreachable_node_only_as_long_as_the_lease_lasts(self) -> None:
        world = connected()
        ticket = world.hold()
        world.pass_s(1)
        world.cut(A)
        world.release(ticket)
        assert resolved(world.pass_s(7.9)) == []
        assert resolved(world.pass_s(0.2)) == [(ticket, None)]

    def test_a_release_is_given_up_once_no_lease_can_be_left(self) -> None:
        world = connected()
        ticket = world.hold()
        world.cut(A)
        world.release(ticket)
        world.pass_s(2 * TTL_MS / 1000 + 1)
        assert world.core.status(now_ns=world.now_ns).parked == 0
        assert sent(world.accept(A), Release) == []


class TestCancel:
    def test_cancelling_a_sent_acquire_releases_it_and_ignores_the_grant_that_crosses(self) -> None:
        world = connected()
        ticket = world.acquire()
        request = only(world.take(), Acquire)
        release = only(world.cancel(ticket), Release)
        assert release.acquisition == request.acquisition
        effects = world.say(A, GrantReply(request.request, 8, TTL_MS, request.request))
        assert resolved(effects) == []
        assert not world.believes(ticket)
        assert world.say(A, ReleaseReply(release.request, True)) == []
        assert world.core.status(now_ns=world.now_ns) == world.core.status(now_ns=world.now_ns)._replace(
            held=0, waiting=0, parked=0
        )

    def test_cancelling_an_acquire_that_was_never_sent_sends_nothing(self) -> None:
        world = World()
        ticket = world.acquire()
        world.take()
        world.cancel(ticket)
        assert sent(world.accept(A, routes(1))) == []
        assert world.core.status(now_ns=world.now_ns).parked == 0

    def test_a_cancel_while_disconnected_is_sent_on_the_next_connection(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        world.cut(A)
        world.cancel(ticket)
        effects = world.accept(A)
        assert sent(effects, Acquire) == []
        assert only(effects, Release).acquisition == ticket.acquisition

    def test_cancelling_a_held_ticket_releases_it_without_a_loss(self) -> None:
        world = connected()
        ticket = world.hold()
        effects = world.cancel(ticket)
        assert only(effects, Release).acquisition == ticket.acquisition
        assert not any(isinstance(effect, GrantLost) for effect in effects)

    def test_cancelling_the_wait_for_a_release_lets_the_release_go_on(self) -> None:
        world = connected()
        ticket = world.hold()
        world.release(ticket)
        world.cancel(ticket)
        world.cut(A)
        request = only(world.accept(A), Release)
        assert resolved(world.say(A, ReleaseReply(request.request, True))) == []
        assert world.core.status(now_ns=world.now_ns).parked == 0

    def test_cancelling_a_ticket_that_is_over_does_nothing(self) -> None:
        world = connected()
        ticket = world.hold()
        request = only(world.release(ticket), Release)
        world.say(A, ReleaseReply(request.request, True))
        assert world.cancel(ticket) == []

    def test_cancelling_in_the_pause_after_a_refusal_ends_the_retries(self) -> None:
        world = connected()
        ticket = world.acquire()
        request = only(world.take(), Acquire)
        world.say(A, Refusal(request.request, "unavailable", "no lease"))
        release = only(world.cancel(ticket), Release)
        world.say(A, ReleaseReply(release.request, False))
        assert sent(world.pass_s(5), Acquire) == []


class TestClose:
    def test_closing_ends_each_session_where_it_has_something_and_fails_what_is_open(self) -> None:
        world = connected()
        held, waiting = world.hold("x"), world.acquire("y")
        world.take()
        world.core.close(now_ns=world.now_ns)
        effects = world.take()
        assert only(effects, CloseSession).session == held.session.id
        assert lost(effects) == [(held, "session-ended")]
        [(which, error)] = resolved(effects)
        assert which is waiting
        assert isinstance(error, ClientClosed)
        assert not world.core.is_closed
        request = only(effects, CloseSession).request
        assert disconnects(world.say(A, ReleaseReply(request, True))) == ["the client was closed"]
        assert world.core.is_closed
        assert world.core.next_deadline_ns() is None

    def test_a_release_that_is_awaited_is_over_at_close(self) -> None:
        world = connected()
        ticket = world.hold()
        world.release(ticket)
        world.core.close(now_ns=world.now_ns)
        assert resolved(world.take()) == [(ticket, None)]

    def test_closing_waits_for_the_nodes_for_at_most_a_second(self) -> None:
        world = connected()
        world.hold()
        world.core.close(now_ns=world.now_ns)
        world.take()
        assert disconnects(world.pass_s(1)) != []
        assert world.core.is_closed

    def test_a_refused_session_end_counts_as_answered(self) -> None:
        world = connected()
        world.hold()
        world.core.close(now_ns=world.now_ns)
        request = only(world.take(), CloseSession).request
        world.say(A, Refusal(request, "unavailable", "no lease"))
        assert world.core.is_closed

    def test_an_unused_client_closes_at_once_and_closing_twice_is_fine(self) -> None:
        world = World()
        world.core.close(now_ns=world.now_ns)
        world.core.close(now_ns=world.now_ns)
        assert world.take() == []
        assert world.core.is_closed

    def test_a_closed_client_refuses_new_calls(self) -> None:
        world = connected()
        world.core.close(now_ns=world.now_ns)
        with pytest.raises(ClientClosed):
            world.acquire()
        with pytest.raises(ClientClosed):
            world.core.get_state(give_up_at_ns=world.now_ns, now_ns=world.now_ns)

    def test_closing_breaks_connections_that_are_still_being_made(self) -> None:
        world = World()
        world.acquire()
        world.take()
        world.core.close(now_ns=world.now_ns)
        assert disconnects(world.take()) == ["the client was closed"]


class TestLostPush:
    def test_a_broken_lock_is_lost_first_and_then_let_go_at_once(self) -> None:
        world = connected()
        ticket = world.hold()
        effects = world.say(A, LossNotice(ticket.session.id, ticket.acquisition, "x", "broken"))
        assert isinstance(effects[0], GrantLost)
        assert effects[0].reason == "broken"
        assert isinstance(effects[1], SendTo)
        assert only(effects, Release).acquisition == ticket.acquisition
        assert not world.believes(ticket)
        with pytest.raises(LockLost) as caught:
            world.release(ticket)
        assert caught.value.reason == "broken"

    def test_a_loss_notice_for_a_ticket_that_is_over_is_ignored(self) -> None:
        world = connected()
        ticket = world.hold()
        world.release(ticket)
        assert world.say(A, LossNotice(ticket.session.id, ticket.acquisition, "x", "broken")) == []
        assert world.say(A, LossNotice("unknown", 1, "x", "broken")) == []

    def test_a_former_primary_cannot_end_a_grant_that_lives_on_at_its_successor(self) -> None:
        world = connected()
        ticket = world.hold()
        world.say(A, routes(2, 1))
        world.accept(B)
        assert lost(world.say(A, LossNotice(ticket.session.id, ticket.acquisition, "x", "expired"))) == []
        assert world.believes(ticket)

    def test_the_end_of_an_earlier_grant_of_the_acquisition_does_not_end_the_present_one(self) -> None:
        world = connected()
        ticket = world.hold()
        earlier = Generation(ticket.generation - 1)
        late = LossNotice(ticket.session.id, ticket.acquisition, "x", "expired", earlier)
        assert lost(world.say(A, late)) == []
        assert world.believes(ticket)
        notice = LossNotice(ticket.session.id, ticket.acquisition, "x", "expired", ticket.generation)
        assert lost(world.say(A, notice)) == [(ticket, "expired")]

    def test_a_waiter_that_its_node_dropped_queues_again_under_its_id(self) -> None:
        world = connected()
        ticket = world.acquire()
        first = only(world.take(), Acquire)
        again = only(world.say(A, LossNotice(ticket.session.id, ticket.acquisition, "x", "expired")), Acquire)
        assert again.acquisition == first.acquisition
        # The node may answer either request.
        assert resolved(world.say(A, GrantReply(first.request, 4, TTL_MS, first.request))) == [(ticket, None)]
        assert world.say(A, GrantReply(again.request, 4, TTL_MS, again.request)) == []


def test_a_keepalive_on_a_short_lived_client_never_blocks_the_uncontended_path() -> None:
    """Acquire and release are one message each way, each; nothing else is sent below a third of the TTL."""
    world = connected()
    for number in range(100):
        ticket = world.hold("x", generation=number + 1)
        request = only(world.release(ticket), Release)
        world.say(A, ReleaseReply(request.request, True))
    keepalive = only(world.pass_s(3.1), Keepalive)
    assert (keepalive.count, keepalive.digest) == (0, 0)
    world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
    assert sent(world.pass_s(60)) == []


def test_acquires_do_not_go_to_the_coordinator_that_a_greeting_names() -> None:
    world = World([COORDINATOR])
    world.acquire()
    effects = world.accept(COORDINATOR, routes(1, 1))
    assert connects(effects) == [B]
    assert only(world.accept(B), Acquire).name == "x"
