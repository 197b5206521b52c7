"""Links: when the client opens one, when it takes one for dead, and what it says when nothing helps."""

from __future__ import annotations

import pytest

from lockring.core.client.dialing import BACKOFF_NS_MAX
from lockring.errors import ProtocolError, Unavailable, WrongCluster
from lockring.ids import Incarnation, NodeId
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    ClientHello,
    GrantReply,
    Keepalive,
    Refusal,
    Release,
    Routes,
    Welcome,
)
from tests.unit.core.client.world import (
    COORDINATOR,
    TTL_MS,
    A,
    B,
    C,
    World,
    connected,
    connects,
    disconnects,
    only,
    resolved,
    routes,
    sent,
)


class TestOpening:
    def test_seeds_are_tried_one_more_each_quarter_second_until_one_answers(self) -> None:
        world = World([A, B, C])
        world.acquire()
        assert connects(world.take()) == [A]
        assert connects(world.pass_s(0.24)) == []
        assert connects(world.pass_s(0.01)) == [B]
        world.accept(B, routes(1, 1))
        assert connects(world.pass_s(0.5)) == []

    def test_a_refusing_address_is_left_alone_for_longer_and_longer(self) -> None:
        world = World([A])
        world.acquire()
        world.take()
        times = []
        for _ in range(8):
            world.cut(A, "connection refused")
            before = world.now_ns
            while not connects(world.pass_s(0.01)):
                assert world.now_ns - before <= 1.5 * BACKOFF_NS_MAX
            times.append((world.now_ns - before) / 1e9)
        assert times[-1] >= 1.0
        assert times == sorted(times)

    def test_one_link_serves_a_node_that_routes_name_by_another_address(self) -> None:
        world = World(["localhost:9501"])
        world.acquire()
        effects = world.accept("localhost:9501", routes(1), node="a")
        assert connects(effects) == []
        assert only(effects, Acquire).name == "x"

    def test_of_two_links_to_one_node_the_later_greeted_is_used(self) -> None:
        world = World(["localhost:9501", A])
        ticket = world.acquire()
        world.take()
        world.pass_s(0.25)
        world.accept("localhost:9501", routes(1), node="a")
        effects = world.accept(A)
        assert disconnects(effects) == ["a newer connection took its place"]
        again = only(effects, Acquire)
        assert resolved(world.say(A, GrantReply(again.request, 1, TTL_MS, again.request))) == [(ticket, None)]

    def test_a_late_answer_to_an_older_greeting_does_not_take_the_newer_links_place(self) -> None:
        world = World(["localhost:9501", A])
        world.acquire()
        world.take()
        world.pass_s(0.25)
        for address in ("localhost:9501", A):
            world.core.connected(world.link_of[address], now_ns=world.now_ns)
        hellos = sent(world.take(), ClientHello)
        assert [hello.connection for hello in hellos] == [1, 2]
        welcome = Welcome(PROTOCOL, "cluster", "node", "a", 1, 1)
        world.say(A, welcome, routes(1))
        assert disconnects(world.say("localhost:9501", welcome)) == ["a newer connection took its place"]
        assert world.core.status(now_ns=world.now_ns).links == ((A, True),)

    def test_a_node_of_another_life_at_the_same_address_is_not_connected_to_again(self) -> None:
        world = World()
        world.acquire()
        world.accept(A, routes(1), incarnation=2)
        assert A not in connects(world.pass_s(10))
        assert world.core.status(now_ns=world.now_ns).links[0] == (A, True)

    def test_while_a_primary_stays_unreachable_other_members_are_asked_for_news(self) -> None:
        world = connected(first=routes(1, 1))
        world.acquire()
        assert C not in connects(world.take() + world.pass_s(0.9))
        assert connects(world.pass_s(0.2)) == [C]
        world.accept(C)
        assert only(world.say(C, routes(2, 2)), Acquire).version == 2

    def test_an_address_that_no_call_needs_any_more_is_not_connected_to(self) -> None:
        world = connected(first=routes(1, 1))
        ticket = world.acquire()
        world.take()
        world.cut(B)
        world.cancel(ticket)
        assert connects(world.pass_s(10)) == []

    def test_reports_on_links_that_are_gone_are_ignored(self) -> None:
        world = World()
        world.core.connected(77, now_ns=world.now_ns)
        world.core.disconnected(77, now_ns=world.now_ns)
        world.core.receive(77, routes(1), now_ns=world.now_ns)
        assert world.take() == []


class TestDeadLinks:
    def test_a_link_with_a_query_unanswered_for_two_seconds_is_dead(self) -> None:
        world = connected()
        ticket = world.hold()
        world.pass_s(0.5)
        world.release(ticket)
        assert disconnects(world.pass_s(1.99)) == []
        effects = world.pass_s(0.02)
        assert disconnects(effects) == [f"{A} did not answer in time"]
        assert A in connects(effects)
        assert only(world.accept(A), Release).acquisition == ticket.acquisition

    def test_any_message_shows_that_a_link_lives(self) -> None:
        world = connected()
        ticket = world.hold()
        world.release(ticket)
        world.pass_s(1.5)
        world.say(A, routes(2))
        assert disconnects(world.pass_s(1.9)) == []
        assert disconnects(world.pass_s(0.2)) != []

    def test_waiting_for_a_lock_does_not_count_as_silence(self) -> None:
        world = connected()
        world.acquire()
        world.take()
        assert disconnects(world.pass_s(2.9)) == []

    def test_short_leases_make_the_client_less_patient(self) -> None:
        world = connected()
        world.hold("x", ttl_ms=1_500)
        effects = world.pass_s(1.1)
        assert disconnects(effects) == [f"{A} did not answer in time"]

    def test_a_server_that_does_not_answer_the_greeting_is_given_up(self) -> None:
        world = World()
        world.acquire()
        world.take()
        world.core.connected(world.link_of[A], now_ns=world.now_ns)
        assert disconnects(world.pass_s(3)) == [f"{A} did not answer the greeting in time"]


class TestWrongServers:
    @pytest.mark.parametrize(("code", "kind"), [("protocol", ProtocolError), ("wrong-cluster", WrongCluster)])
    def test_a_refused_greeting_fails_the_call_at_once_if_there_is_no_other_server(
        self, code: str, kind: type[Exception]
    ) -> None:
        world = World()
        ticket = world.acquire()
        world.take()
        world.core.connected(world.link_of[A], now_ns=world.now_ns)
        effects = world.say(A, Refusal(0, code, "speak version 2"))
        [(which, error)] = resolved(effects)
        assert which is ticket
        assert type(error) is kind
        assert "speak version 2" in str(error)
        assert disconnects(effects) == ["speak version 2"]

    def test_where_all_servers_are_wrong_the_error_names_each(self) -> None:
        world = World([A, B])
        world.acquire()
        world.take()
        world.cut(A, error=ProtocolError(f"{A} is not a lockring server"))
        world.pass_s(0.3)
        [(_, error)] = resolved(world.cut(B, error=ProtocolError(f"{B} is not a lockring server")))
        assert isinstance(error, Unavailable)
        assert f"{A} is not a lockring server" in str(error)
        assert f"{B} is not a lockring server" in str(error)

    def test_a_wrong_server_beside_an_unreachable_one_does_not_end_the_call(self) -> None:
        world = World([A, B])
        world.acquire()
        world.take()
        world.cut(A, error=ProtocolError("no lockring server"))
        world.pass_s(0.3)
        assert resolved(world.cut(B, "connection refused")) == []

    def test_a_greeting_answered_with_something_else_is_a_wrong_server(self) -> None:
        world = World()
        world.acquire()
        world.take()
        world.core.connected(world.link_of[A], now_ns=world.now_ns)
        [(_, error)] = resolved(world.say(A, routes(1)))
        assert "is not a lockring server" in str(error)

    def test_another_protocol_version_in_the_answer_is_refused(self) -> None:
        world = World()
        world.acquire()
        world.take()
        world.core.connected(world.link_of[A], now_ns=world.now_ns)
        [(_, error)] = resolved(world.say(A, Welcome(PROTOCOL + 1, "c", "node", "a", 1, 1)))
        assert "protocol" in str(error)

    def test_a_server_of_another_cluster_is_not_used(self) -> None:
        world = connected([A, B])
        world.hold()
        world.cut(A)
        world.pass_s(0.25)
        world.core.connected(world.link_of[B], now_ns=world.now_ns)
        effects = world.say(B, Welcome(PROTOCOL, "another", "node", "b", 1, 1))
        assert any("another" in reason for reason in disconnects(effects))
        assert world.core.version == 1

    def test_a_client_that_holds_nothing_follows_a_cluster_that_was_made_again(self) -> None:
        world = connected()
        world.cut(A)
        ticket = world.acquire()
        world.pass_s(0.1)
        world.core.connected(world.link_of[A], now_ns=world.now_ns)
        assert only(world.take(), ClientHello).cluster == "cluster"
        world.say(A, Refusal(0, "wrong-cluster", "this is the cluster new"))
        world.pass_s(1)
        world.core.connected(world.link_of[A], now_ns=world.now_ns)
        assert only(world.take(), ClientHello).cluster == ""
        effects = world.say(A, Welcome(PROTOCOL, "new", "node", "a", 1, 1), routes(1))
        assert only(effects, Acquire).acquisition == ticket.acquisition

    @pytest.mark.parametrize(
        "bad",
        [
            Routes(9, [(NodeId("a"), Incarnation(1), A)], b"\0\0", COORDINATOR),
            Routes(9, [(NodeId("a"), Incarnation(1), A)], b"\7\7" * 4096, COORDINATOR),
            Refusal(0, "protocol", "could not read a frame"),
            Welcome(PROTOCOL, "cluster", "node", "a", 1, 1),
        ],
    )
    def test_nonsense_on_a_link_ends_it_and_nothing_else(self, bad: Routes | Refusal | Welcome) -> None:
        world = connected()
        ticket = world.hold()
        effects = world.say(A, bad)
        assert len(disconnects(effects)) == 1
        assert world.believes(ticket)
        world.pass_s(1.3)
        assert len(sent(world.accept(A), Keepalive)) == 1

    def test_a_lock_is_kept_by_its_deadline_while_its_address_is_refused(self) -> None:
        world = connected()
        ticket = world.hold()
        for _ in range(30):
            world.pass_s(0.25)
            if A in world.link_of:
                world.cut(A, "refused")
        assert world.believes(ticket)
        world.pass_s(2)
        assert not world.believes(ticket)
