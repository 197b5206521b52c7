"""Describe, list, watch, break, state and drain, against scripted servers."""

from __future__ import annotations

from lockring.core.client import CallResult, Query
from lockring.core.client.link_checks import CHECK_FIRST_NS_MAX
from lockring.core.client.links import DOUBT_NS
from lockring.errors import InvalidRequest, NotHeld, Unavailable
from lockring.protocol import (
    COUNTED_MAX,
    Break,
    BreakReply,
    Describe,
    DescribeReply,
    Drain,
    DrainReply,
    GetState,
    List,
    ListReply,
    LockSearch,
    Refusal,
    ReleaseReply,
    StateReply,
    Undrain,
    UndrainReply,
    Unwatch,
    Watch,
    WatchNotice,
)
from lockring.slots import slot_of
from lockring.units import NS_PER_S
from tests.unit.core.client.world import (
    COORDINATOR,
    A,
    B,
    World,
    answers,
    connected,
    connects,
    disconnects,
    lock_info,
    only,
    routes,
    sent,
    updates,
)


def describe(world: World, name: str = "x", seconds: float = 10) -> Query:
    give_up = world.now_ns + round(seconds * NS_PER_S)
    return world.core.describe(name, give_up_at_ns=give_up, now_ns=world.now_ns)


def list_locks(world: World, prefix: str = "") -> Query:
    return world.core.list_locks(prefix, give_up_at_ns=world.now_ns + 10 * NS_PER_S, now_ns=world.now_ns)


class TestSearch:
    def test_every_member_is_asked_for_what_may_still_be_among_the_first(self) -> None:
        world = connected(first=routes(1, {0: 0, 1: 1}))
        search = LockSearch(text="j")
        world.core.search(
            "", search, limit=2, give_up_at_ns=world.now_ns + 10 * NS_PER_S, now_ns=world.now_ns
        )
        first = only(world.take(), List)
        assert (first.limit, first.search, first.from_slot) == (3, search, 0)
        locks = [lock_info(name) for name in ("j2", "j4", "j6")]
        effects = world.say(A, ListReply(first.request, locks, 99, "", counts=[(1, 0)] * 3, matched=4))
        second = only(effects, List)
        assert (second.from_slot, second.search.before) == (99, "j6")
        world.say(A, ListReply(second.request, [], -1, "", counts=[], matched=5))
        third = only(world.accept(B), List)
        assert (third.from_slot, third.search.before) == (0, "j6")
        locks = [lock_info(name) for name in ("j1", "j5")]
        (answer,) = answers(
            world.say(B, ListReply(third.request, locks, -1, "", 3, counts=[(1, 7), (1, 0)], matched=2))
        )
        found = answer.answer
        assert [lock.name for lock in found.locks] == ["j1", "j2"]
        assert (found.counts, found.matched, found.has_more) == ([(1, 7), (1, 0)], 11, True)
        assert found.unserved_slots == 3

    def test_a_great_many_locks_are_not_counted_on(self) -> None:
        world = connected(first=routes(1, {0: 0}))
        world.core.search(
            "",
            LockSearch(text="j"),
            limit=1,
            give_up_at_ns=world.now_ns + 10 * NS_PER_S,
            now_ns=world.now_ns,
        )
        question = only(world.take(), List)
        locks = [lock_info(name) for name in ("j2", "j4")]
        for number, (matched, is_counted) in enumerate(((COUNTED_MAX, True), (1, False), (-1, False)), 1):
            answer = ListReply(question.request, locks, 99 * number, "", counts=[(1, 0)] * 2, matched=matched)
            question = only(world.say(A, answer), List)
            assert question.search.is_counted == is_counted


class TestDescribe:
    def test_the_slots_primary_is_asked_and_its_answer_is_the_result(self) -> None:
        world = connected()
        request = describe(world)
        message = only(world.take(), Describe)
        assert (message.name, message.version) == ("x", 1)
        answer = DescribeReply(message.request, lock_info("x"))
        assert answers(world.say(A, answer)) == [CallResult(request, answer, None)]
        assert world.say(A, answer) == []

    def test_a_query_waits_for_a_connection_and_is_repeated_after_its_loss(self) -> None:
        world = World()
        describe(world)
        first = only(world.accept(A, routes(1)), Describe)
        world.cut(A)
        again = only(world.accept(A), Describe)
        assert again.request > first.request

    def test_moved_is_followed(self) -> None:
        world = connected()
        describe(world)
        message = only(world.take(), Describe)
        world.say(A, routes(2, 1), Refusal(message.request, "moved", "", "x", 2))
        assert only(world.accept(B), Describe).name == "x"

    def test_a_refusal_reaches_the_caller(self) -> None:
        world = connected()
        request = describe(world)
        message = only(world.take(), Describe)
        [answer] = answers(world.say(A, Refusal(message.request, "invalid", "no such thing")))
        assert answer.request is request
        assert isinstance(answer.error, InvalidRequest)

    def test_without_an_answer_in_time_the_error_names_the_server(self) -> None:
        world = connected()
        describe(world, seconds=1)
        world.take()
        [answer] = answers(world.pass_s(1))
        assert isinstance(answer.error, Unavailable)
        assert A in str(answer.error)

    def test_with_no_server_in_reach_the_error_names_the_addresses(self) -> None:
        world = World([A, B])
        describe(world, seconds=1)
        [answer] = answers(world.take() + world.pass_s(1))
        assert A in str(answer.error)
        assert B in str(answer.error)

    def test_an_answer_of_another_kind_is_ignored(self) -> None:
        world = connected()
        describe(world)
        message = only(world.take(), Describe)
        assert answers(world.say(A, DrainReply(message.request, "a"))) == []

    def test_an_abandoned_query_has_no_answer(self) -> None:
        world = connected()
        request = describe(world)
        message = only(world.take(), Describe)
        world.core.abandon(request, now_ns=world.now_ns)
        assert answers(world.say(A, DescribeReply(message.request, lock_info("x")))) == []
        assert answers(world.pass_s(20)) == []

    def test_closing_the_client_fails_its_queries(self) -> None:
        world = connected()
        describe(world)
        world.core.close(now_ns=world.now_ns)
        [answer] = answers(world.take())
        assert answer.error is not None
        assert answer.error.code == "closed"


class TestList:
    def test_every_primary_is_asked_page_by_page_and_the_result_is_sorted(self) -> None:
        world = connected(first=routes(1, {5: 1}))
        request = list_locks(world, "job/")
        first = only(world.take(), List)
        assert (first.prefix, first.from_slot, first.after_name) == ("job/", 0, "")
        page = ListReply(first.request, [lock_info("job/z"), lock_info("job/b")], 9, "job/b")
        second = only(world.say(A, page), List)
        assert (second.from_slot, second.after_name) == (9, "job/b")
        assert connects(world.say(A, ListReply(second.request, [lock_info("job/c")], -1, ""))) == [B]
        third = only(world.accept(B), List)
        assert (third.from_slot, third.after_name) == (0, "")
        [answer] = answers(world.say(B, ListReply(third.request, [lock_info("job/a")], -1, "")))
        assert answer.request is request
        assert [lock.name for lock in answer.answer] == ["job/a", "job/b", "job/c", "job/z"]

    def test_new_routes_start_a_list_over_so_that_moved_locks_are_not_missed(self) -> None:
        world = connected(first=routes(1, {5: 1}))
        list_locks(world)
        first = only(world.take(), List)
        world.say(A, routes(2))
        again = only(world.say(A, ListReply(first.request, [lock_info("x", 3)], -1, "")), List)
        assert (again.from_slot, again.after_name) == (0, "")
        [answer] = answers(world.say(A, ListReply(again.request, [lock_info("x", 4)], -1, "")))
        assert answer.answer == [lock_info("x", 4)]

    def test_of_two_views_of_a_lock_the_newer_counts(self) -> None:
        world = connected(first=routes(1, {5: 1}))
        list_locks(world)
        first = only(world.take(), List)
        world.say(A, ListReply(first.request, [lock_info("x", 3)], -1, ""))
        second = only(world.accept(B), List)
        [answer] = answers(world.say(B, ListReply(second.request, [lock_info("x", 2)], -1, "")))
        assert answer.answer == [lock_info("x", 3)]

    def test_a_list_waits_for_the_first_routes(self) -> None:
        world = World()
        list_locks(world)
        assert sent(world.accept(A), List) == []
        message = only(world.say(A, routes(1)), List)
        [answer] = answers(world.say(A, ListReply(message.request, [], -1, "")))
        assert answer.answer == []

    def test_a_member_that_leaves_meanwhile_is_passed_over(self) -> None:
        world = connected(first=routes(1, {5: 1}))
        list_locks(world)
        message = only(world.take(), List)
        for version in (2, 3, 4):
            world.say(A, routes(version, 0, [("a", 1, A)]))
        effects = world.say(A, ListReply(message.request, [lock_info("x")], -1, ""))
        while not answers(effects):
            message = only(effects, List)
            effects = world.say(A, ListReply(message.request, [lock_info("x")], -1, ""))
        assert [lock.name for lock in answers(effects)[0].answer] == ["x"]

    def test_an_unavailable_member_is_asked_again(self) -> None:
        world = connected()
        list_locks(world)
        message = only(world.take(), List)
        world.say(A, Refusal(message.request, "unavailable", "no lease"))
        assert only(world.pass_s(0.05), List).request > message.request


class TestWatch:
    def test_every_change_is_an_update(self) -> None:
        world = connected()
        world.core.watch("x", now_ns=world.now_ns)
        message = only(world.take(), Watch)
        assert updates(world.say(A, WatchNotice(message.request, lock_info("x", 1)))) == [lock_info("x", 1)]
        assert updates(world.say(A, WatchNotice(message.request, lock_info("x", 2)))) == [lock_info("x", 2)]

    def test_a_watch_goes_on_after_a_loss_and_after_a_move(self) -> None:
        world = connected()
        world.core.watch("x", now_ns=world.now_ns)
        world.take()
        world.cut(A)
        message = only(world.accept(A), Watch)
        world.say(A, routes(2, 1), Refusal(message.request, "moved", "", "x", 2))
        message = only(world.accept(B), Watch)
        assert len(updates(world.say(B, WatchNotice(message.request, lock_info("x"))))) == 1

    def test_the_end_of_a_watch_is_sent_to_the_node_and_later_updates_are_ignored(self) -> None:
        world = connected()
        watch = world.core.watch("x", now_ns=world.now_ns)
        message = only(world.take(), Watch)
        world.core.abandon(watch, now_ns=world.now_ns)
        unwatch = only(world.take(), Unwatch)
        assert unwatch.watch == message.request
        assert (
            world.say(A, WatchNotice(message.request, lock_info("x")), ReleaseReply(unwatch.request, True))
            == []
        )
        world.core.abandon(watch, now_ns=world.now_ns)
        assert world.take() == []

    def test_a_node_that_is_gone_is_noticed_by_asking_now_and_then(self) -> None:
        world = World()
        world.core.watch("x", now_ns=world.now_ns)
        world.accept(A, routes(1))
        assert disconnects(world.pass_s(20)) == [], "it answers whoever asks whether it is there"
        world.deaf.add(world.link_of[A])
        assert disconnects(world.pass_s(7.1)) != []
        assert only(world.accept(A), Watch).name == "x"

    def test_a_node_that_was_cut_off_silently_is_connected_to_a_second_time(self) -> None:
        world = World()
        world.core.watch("x", now_ns=world.now_ns)
        world.accept(A, routes(1))
        world.deaf.add(world.link_of[A])
        assert connects(world.pass_s((CHECK_FIRST_NS_MAX + DOUBT_NS) / NS_PER_S)) == [A]
        assert only(world.accept_rival(A, node="a"), Watch).name == "x"

    def test_a_watch_on_an_unreachable_cluster_ends_with_the_connect_timeout(self) -> None:
        world = World()
        world.core.watch("x", now_ns=world.now_ns)
        [answer] = answers(world.pass_s(10))
        assert isinstance(answer.error, Unavailable)


class TestOrders:
    def test_break_names_the_generation_and_is_repeated_after_a_loss(self) -> None:
        world = connected()
        request = world.core.break_lock(
            "x", 7, force=True, give_up_at_ns=world.now_ns + NS_PER_S * 9, now_ns=world.now_ns
        )
        message = only(world.take(), Break)
        assert (message.name, message.generation, message.force) == ("x", 7, True)
        world.cut(A)
        message = only(world.accept(A), Break)
        [answer] = answers(world.say(A, BreakReply(message.request, True, 0)))
        assert answer == CallResult(request, BreakReply(message.request, True, 0), None)

    def test_a_break_of_a_free_lock_fails(self) -> None:
        world = connected()
        world.core.break_lock("x", 7, force=False, give_up_at_ns=world.now_ns + NS_PER_S, now_ns=world.now_ns)
        message = only(world.take(), Break)
        [answer] = answers(world.say(A, Refusal(message.request, "not-held", "nobody holds it")))
        assert isinstance(answer.error, NotHeld)

    def test_any_server_is_asked_for_the_state(self) -> None:
        world = World([COORDINATOR])
        world.core.get_state(give_up_at_ns=world.now_ns + NS_PER_S, now_ns=world.now_ns)
        message = only(world.accept(COORDINATOR), GetState)
        [answer] = answers(world.say(COORDINATOR, StateReply(message.request, b"state", "waiting for nodes")))
        assert answer.answer.note == "waiting for nodes"

    def test_a_drain_goes_to_a_linked_coordinator_before_any_node(self) -> None:
        world = World([A, COORDINATOR])
        world.acquire()
        world.take()
        world.pass_s(0.25)
        world.accept(A, routes(1))
        world.accept(COORDINATOR)
        world.core.drain("b", give_up_at_ns=world.now_ns + NS_PER_S, now_ns=world.now_ns)
        message = only(world.take(), Drain)
        assert message.node == "b"
        assert len(answers(world.say(COORDINATOR, DrainReply(message.request, "b")))) == 1

    def test_a_node_takes_a_drain_where_no_coordinator_is_linked(self) -> None:
        world = connected()
        world.core.drain("b", give_up_at_ns=world.now_ns + NS_PER_S, now_ns=world.now_ns)
        message = only(world.take(), Drain)
        world.say(A, Refusal(message.request, "not-coordinator", "not now"))
        assert only(world.pass_s(0.05), Drain).node == "b"

    def test_the_end_of_a_drain_is_asked_for_again_while_the_coordinator_is_not_ready(self) -> None:
        world = connected()
        world.core.drain("b", undo=True, give_up_at_ns=world.now_ns + NS_PER_S, now_ns=world.now_ns)
        message = only(world.take(), Undrain)
        world.say(A, Refusal(message.request, "unavailable", "not in touch yet", "b"))
        message = only(world.pass_s(0.05), Undrain)
        assert len(answers(world.say(A, UndrainReply(message.request, "b")))) == 1


def test_the_status_counts_links_and_tickets() -> None:
    world = connected(first=routes(1, {slot_of("y"): None}))
    held = world.hold("x")
    world.acquire("x")
    world.acquire("y")
    world.take()
    status = world.core.status(now_ns=world.now_ns)
    assert (status.version, status.held, status.waiting, status.parked) == (1, 1, 2, 1)
    assert status.links == ((A, True),)
    assert "HELD" in repr(held)
