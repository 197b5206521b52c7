"""Keepalives, promises and local deadlines, against scripted nodes."""

from __future__ import annotations

import pytest

from lockring.core.client import not_held
from lockring.core.client.request_log import LOG_ENTRIES_MAX, RequestLog
from lockring.core.client.requests import LISTED_BYTES_MAX
from lockring.errors import LockLost
from lockring.ids import FIRST_SLOT
from lockring.protocol import (
    Acquire,
    AcquisitionVerdict,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    ListedAcquisition,
    Refusal,
    Release,
    ReleaseReply,
    SlotDigest,
    SlotList,
    SlotVerdict,
    Verdict,
)
from lockring.slots import slot_of
from lockring.units import NS_PER_MS, NS_PER_S
from tests.unit.core.client.world import (
    TTL_MS,
    TTL_NS,
    A,
    connected,
    digest_of,
    lost,
    next_keepalive,
    only,
    resolved,
    routes,
    same_slot_names,
    sent,
)


class TestKeepalives:
    def test_one_keepalive_each_third_of_the_ttl_speaks_of_all_locks_at_the_node(self) -> None:
        world = connected()
        for name in ("x", "y", "z"):
            world.hold(name)
        keepalive = only(world.pass_s(3), Keepalive)
        assert (keepalive.count, keepalive.digest) == (3, digest_of(2, 3, 4))
        assert (keepalive.through, keepalive.slots, keepalive.listed) == (4, [], [])
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert only(world.pass_s(3), Keepalive).digest == digest_of(2, 3, 4)

    def test_waiting_acquisitions_are_kept_alive_like_held_ones(self) -> None:
        world = connected()
        world.acquire()
        world.take()
        keepalive = only(world.pass_s(3), Keepalive)
        assert (keepalive.count, keepalive.digest) == (1, digest_of(2))

    def test_an_agreed_answer_renews_everything_it_covered_from_the_time_it_was_sent(self) -> None:
        world = connected()
        tickets = [world.hold("x"), world.hold("y")]
        keepalive = only(world.pass_s(3), Keepalive)
        sent_at = world.now_ns
        world.pass_s(1)
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        world.now_ns = sent_at + TTL_NS - 1
        assert all(world.believes(ticket) for ticket in tickets)
        world.now_ns += 1
        assert not any(world.believes(ticket) for ticket in tickets)

    def test_after_a_short_promise_the_next_keepalive_comes_after_a_third_of_it(self) -> None:
        world = connected()
        world.hold("x")
        promise_ms, keepalive = TTL_MS, only(world.pass_s(3), Keepalive)
        for _ in range(3):
            promise_ms //= 4
            world.say(A, KeepaliveReply(keepalive.request, promise_ms, True))
            said_at_ns = world.now_ns
            keepalive = next_keepalive(world)
            assert (world.now_ns - said_at_ns) / NS_PER_MS == pytest.approx(max(promise_ms / 3, 50), abs=10)
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert only(world.pass_s(3), Keepalive).count == 1

    def test_a_grant_with_a_short_promise_is_renewed_after_a_third_of_it(self) -> None:
        world = connected()
        ticket = world.acquire("x")
        world.take()
        world.say(A, GrantReply(ticket.exchange.request, 1, 900, ticket.exchange.request))
        said_at_ns = world.now_ns
        next_keepalive(world)
        assert (world.now_ns - said_at_ns) / NS_PER_MS == pytest.approx(300, abs=10)

    def test_a_lock_acquired_after_the_keepalive_was_sent_is_not_renewed_by_its_answer(self) -> None:
        world = connected()
        world.hold("x")
        keepalive = only(world.pass_s(3), Keepalive)
        young = world.acquire("y")
        world.take()
        world.say(
            A,
            GrantReply(young.exchange.request, 1, 100, young.exchange.request),
            KeepaliveReply(keepalive.request, TTL_MS, True),
        )
        assert world.believes(young)
        world.now_ns += 100 * NS_PER_MS
        assert not world.believes(young)

    def test_a_renewal_covers_a_ticket_that_waited_only_if_it_was_granted_before_the_keepalive(
        self,
    ) -> None:
        world = connected()
        world.hold("y")
        ticket = world.acquire("x")
        world.take()
        keepalive = only(world.pass_s(3), Keepalive)
        # Granted on the basis of this very keepalive, whose promise was cut short by then.
        world.say(
            A,
            KeepaliveReply(keepalive.request, TTL_MS, True),
            GrantReply(ticket.exchange.request, 1, 500, keepalive.request),
        )
        world.now_ns += 500 * NS_PER_MS
        assert not world.believes(ticket)

    def test_a_promise_that_ends_earlier_than_the_last_takes_nothing_back(self) -> None:
        world = connected()
        ticket = world.hold()
        first = only(world.pass_s(3), Keepalive)
        end = world.now_ns + TTL_NS
        world.say(A, KeepaliveReply(first.request, TTL_MS, True))
        second = only(world.pass_s(3), Keepalive)
        world.say(A, KeepaliveReply(second.request, 10, True))
        world.now_ns = end - 1
        assert world.believes(ticket)
        world.now_ns = end
        assert lost(world.take()) == [(ticket, "local-deadline")]

    def test_two_lost_keepalives_do_not_lose_the_lock(self) -> None:
        world = connected()
        ticket = world.hold()
        world.pass_s(6.5)
        if A not in world.link_of:
            world.take()
        keepalive = only(world.accept(A), Keepalive)
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        world.now_ns += 8 * NS_PER_S
        assert world.believes(ticket)

    def test_a_disagreement_is_narrowed_to_slots_and_then_to_acquisitions(self) -> None:
        world = connected()
        one, two = world.hold("x"), world.hold("y")
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        expected = {slot_of("x"): (1, digest_of(2)), slot_of("y"): (1, digest_of(3))}
        assert {each.slot: (each.count, each.digest) for each in per_slot.slots} == expected
        assert [each.slot for each in per_slot.slots] == sorted(expected)
        verdicts: list[SlotVerdict] = [
            SlotVerdict(slot_of("x"), Verdict.HELD),
            SlotVerdict(slot_of("y"), Verdict.DIFFERS),
        ]
        listed = only(world.say(A, KeepaliveReply(per_slot.request, TTL_MS, False, verdicts)), Keepalive)
        assert listed.listed == [SlotList(slot_of("y"), [ListedAcquisition(3, "y")])]
        effects = world.say(
            A, KeepaliveReply(listed.request, TTL_MS, False, [], [AcquisitionVerdict(3, Verdict.LOST, 0)])
        )
        assert lost(effects) == [(two, "expired")]
        world.now_ns += TTL_NS - 1
        assert world.believes(one)

    def test_a_slot_that_only_the_node_has_something_in_is_listed_as_empty(self) -> None:
        """So the node drops what a lost release left behind there."""
        world = connected()
        world.hold("x")
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        verdicts: list[SlotVerdict] = [
            SlotVerdict(slot_of("x"), Verdict.HELD),
            SlotVerdict(77, Verdict.DIFFERS),
        ]
        assert only(
            world.say(A, KeepaliveReply(per_slot.request, TTL_MS, False, verdicts)), Keepalive
        ).listed == [SlotList(77, [])]

    def test_tickets_that_are_expected_at_another_node_are_listed_too(self) -> None:
        """A node whose routes are older would drop, as given up, whatever it has there and is listed nowhere."""
        world = connected()
        world.hold("x")
        world.hold("y")
        keepalive = only(world.pass_s(3), Keepalive)
        world.say(A, routes(2, {slot_of("y"): 1}))
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        verdicts: list[SlotVerdict] = [
            SlotVerdict(slot_of("x"), Verdict.HELD),
            SlotVerdict(slot_of("y"), Verdict.DIFFERS),
        ]
        listed = only(world.say(A, KeepaliveReply(per_slot.request, TTL_MS, False, verdicts)), Keepalive)
        assert listed.listed == [SlotList(slot_of("y"), [ListedAcquisition(3, "y")])]
        assert (
            lost(
                world.say(
                    A,
                    KeepaliveReply(
                        listed.request, TTL_MS, False, [], [AcquisitionVerdict(3, Verdict.LOST, 0)]
                    ),
                )
            )
            == []
        )

    def test_a_client_with_nothing_left_still_compares_slots(self) -> None:
        world = connected()
        keepalive = only(world.pass_s(3), Keepalive)
        assert keepalive.count == 0
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        assert per_slot.slots == [SlotDigest(FIRST_SLOT, 0, 0)]

    def test_held_of_one_listed_acquisition_renews_just_that(self) -> None:
        world = connected()
        names = same_slot_names(2)
        one, two = world.hold(names[0]), world.hold(names[1])
        slot = slot_of("x")
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        listed = only(
            world.say(
                A, KeepaliveReply(per_slot.request, TTL_MS, False, [SlotVerdict(slot, Verdict.DIFFERS)])
            ),
            Keepalive,
        )
        verdicts: list[AcquisitionVerdict] = [
            AcquisitionVerdict(one.acquisition, Verdict.HELD, 7),
            AcquisitionVerdict(two.acquisition, Verdict.WAITING, 0),
            AcquisitionVerdict(99, Verdict.HELD, 1),
        ]
        world.say(A, KeepaliveReply(listed.request, TTL_MS, False, [], verdicts))
        world.now_ns += TTL_NS - 1
        assert world.believes(one)
        assert not world.believes(two)

    def test_a_lock_held_under_another_generation_is_lost(self) -> None:
        world = connected()
        ticket = world.hold(generation=7)
        keepalive = next_keepalive(world)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        listed = only(
            world.say(
                A, KeepaliveReply(per_slot.request, 1, False, [SlotVerdict(slot_of("x"), Verdict.DIFFERS)])
            ),
            Keepalive,
        )
        verdict = AcquisitionVerdict(ticket.acquisition, Verdict.HELD, 8)
        assert lost(world.say(A, KeepaliveReply(listed.request, TTL_MS, False, [], [verdict]))) == [
            (ticket, "expired")
        ]

    def test_a_waiter_that_the_node_does_not_know_is_sent_again_under_its_id(self) -> None:
        world = connected()
        ticket = world.acquire()
        first = only(world.take(), Acquire)
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        listed = only(
            world.say(
                A, KeepaliveReply(per_slot.request, 1, False, [SlotVerdict(slot_of("x"), Verdict.DIFFERS)])
            ),
            Keepalive,
        )
        kept = KeepaliveReply(listed.request, TTL_MS, False, [], [AcquisitionVerdict(2, Verdict.LOST, 0)])
        again = only(world.say(A, kept), Acquire)
        assert (again.acquisition, again.waited_ms) == (first.acquisition, 3_000)
        # An answer to what was asked before it was sent again says nothing of it.
        assert sent(world.say(A, kept), Acquire) == []
        assert resolved(world.say(A, GrantReply(again.request, 3, TTL_MS, again.request))) == [(ticket, None)]

    def test_a_waiter_that_turns_out_to_be_held_begins_with_the_keepalives_promise(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        listed = only(
            world.say(
                A, KeepaliveReply(per_slot.request, 1, False, [SlotVerdict(slot_of("x"), Verdict.DIFFERS)])
            ),
            Keepalive,
        )
        effects = world.say(
            A, KeepaliveReply(listed.request, TTL_MS, False, [], [AcquisitionVerdict(2, Verdict.HELD, 12)])
        )
        assert resolved(effects) == [(ticket, None)]
        assert ticket.generation == 12
        assert not ticket.exchange.link

    def test_where_the_node_may_not_serve_just_now_it_is_asked_again_soon_but_not_at_once(self) -> None:
        world = connected()
        world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        gaps = []
        for _ in range(5):
            per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
            effects = world.say(
                A,
                KeepaliveReply(
                    per_slot.request, TTL_MS, False, [SlotVerdict(slot_of("x"), int(Verdict.RETRY))]
                ),
            )
            assert sent(effects) == []
            before = world.now_ns
            keepalive = next_keepalive(world)
            gaps.append(round((world.now_ns - before) / NS_PER_S, 2))
        assert gaps == [0.1, 0.2, 0.4, 0.8, 1.5]  # and at last a third of what is left

    def test_a_refused_keepalive_is_repeated_after_a_pause(self) -> None:
        world = connected()
        world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        assert sent(world.say(A, Refusal(keepalive.request, "unavailable", "no lease"))) == []
        assert len(sent(world.pass_s(0.1), Keepalive)) == 1

    def test_an_empty_answer_does_not_make_the_client_ask_without_end(self) -> None:
        world = connected()
        world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        assert sent(world.say(A, KeepaliveReply(per_slot.request, TTL_MS, False))) == []
        assert len(sent(world.pass_s(0.1), Keepalive)) == 1

    def test_long_lists_are_split_into_keepalives_of_bounded_size(self) -> None:
        world = connected()
        for number in range(2_500):
            world.acquire(f"{number:04}" + "n" * 1_000)
        world.take()
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        verdicts = [SlotVerdict(each.slot, Verdict.DIFFERS) for each in per_slot.slots]
        parts = sent(world.say(A, KeepaliveReply(per_slot.request, TTL_MS, False, verdicts)), Keepalive)
        assert len(parts) > 2
        listed = [each for part in parts for listing in part.listed for each in listing.acquisitions]
        assert sorted(each.acquisition for each in listed) == list(range(2, 2_502))
        for part in parts:
            size = sum(len(each.name) for listing in part.listed for each in listing.acquisitions)
            assert size <= LISTED_BYTES_MAX

    def test_an_unknown_answer_is_ignored(self) -> None:
        world = connected()
        assert (
            world.say(A, KeepaliveReply(999, TTL_MS, True), ReleaseReply(998, True), GrantReply(997, 1, 1, 1))
            == []
        )


class TestDenials:
    @pytest.mark.parametrize("code", ["denied", "unauthenticated"])
    def test_a_keepalive_that_is_denied_is_repeated_at_its_usual_time(self, code: str) -> None:
        world = connected()
        ticket = world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        assert sent(world.say(A, Refusal(keepalive.request, code, "no right")), Keepalive) == []
        assert sent(world.pass_s(2.9), Keepalive) == []
        assert world.believes(ticket)
        assert len(sent(world.pass_s(0.2), Keepalive)) == 1

    @pytest.mark.parametrize("code", ["denied", "unauthenticated"])
    def test_the_loss_that_follows_says_that_the_lock_may_not_be_kept(self, code: str) -> None:
        world = connected()
        ticket = world.hold()
        for _ in range(2):
            world.say(A, Refusal(next_keepalive(world).request, code, "no right"))
        assert lost(world.pass_s(TTL_MS / 3000 + 0.1)) == [(ticket, code)]
        error = not_held(ticket)
        assert isinstance(error, LockLost)
        assert error.reason == code
        assert LockLost.explained(code) in str(error) != code

    def test_a_right_that_comes_back_in_time_keeps_the_lock(self) -> None:
        world = connected()
        ticket = world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        world.say(A, Refusal(keepalive.request, "denied", "no right"))
        keepalive = only(world.pass_s(3.1), Keepalive)
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert lost(world.pass_s(TTL_MS / 1000 - 0.2)) == []
        assert lost(world.pass_s(0.3)) == [(ticket, "local-deadline")]

    def test_a_client_that_is_not_let_in_again_loses_its_lock_for_that_reason(self) -> None:
        world = connected()
        ticket = world.hold()
        effects = world.cut(A) + world.pass_s(1)
        world.core.connected(world.link_of[A], now_ns=world.now_ns)
        effects += world.say(A, Refusal(0, "unauthenticated", "the token has expired"))
        effects += world.pass_s(TTL_MS / 1000)
        assert lost(effects) == [(ticket, "unauthenticated")]


class TestDeadlines:
    def test_a_lock_that_cannot_be_renewed_is_lost_at_its_deadline_and_released(self) -> None:
        world = connected()
        ticket = world.hold()
        asked_at = world.now_ns
        effects = world.pass_s(TTL_MS / 1000 - 0.001)
        assert lost(effects) == []
        effects = world.pass_s(0.001)
        assert lost(effects) == [(ticket, "local-deadline")]
        assert world.now_ns == asked_at + TTL_NS
        release = only(world.accept(A), Release)
        assert release.acquisition == ticket.acquisition

    def test_the_deadline_counts_from_the_sending_of_the_acquire_not_from_the_grant(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        world.pass_s(2)
        world.say(A, GrantReply(ticket.exchange.request, 1, TTL_MS, ticket.exchange.request))
        world.now_ns += TTL_NS - 2 * NS_PER_S - 1
        assert world.believes(ticket)
        world.now_ns += 1
        assert not world.believes(ticket)

    def test_an_answer_after_the_deadline_revives_nothing(self) -> None:
        world = connected()
        ticket = world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        world.now_ns += 6 * NS_PER_S
        effects = world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        assert lost(effects) == [(ticket, "local-deadline")]
        assert not world.believes(ticket)

    def test_a_late_per_slot_answer_revives_nothing(self) -> None:
        world = connected()
        ticket = world.hold()
        keepalive = only(world.pass_s(3), Keepalive)
        per_slot = only(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, False)), Keepalive)
        world.now_ns += 6 * NS_PER_S
        effects = world.say(
            A, KeepaliveReply(per_slot.request, TTL_MS, False, [SlotVerdict(slot_of("x"), Verdict.HELD)])
        )
        assert lost(effects) == [(ticket, "local-deadline")]

    def test_a_long_waiters_grant_counts_from_the_keepalive_it_names(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        keepalive, kept_at = next_keepalive(world), world.now_ns
        world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        for _ in range(3):
            keepalive = only(world.pass_s(3), Keepalive)
            kept_at = world.now_ns
            world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        world.pass_s(1)
        effects = world.say(A, GrantReply(ticket.exchange.request, 1, TTL_MS, keepalive.request))
        assert resolved(effects) == [(ticket, None)]
        world.now_ns = kept_at + TTL_NS - 1
        assert world.believes(ticket)
        world.now_ns += 1
        assert not world.believes(ticket)

    def test_a_grant_whose_promise_is_over_begins_only_when_the_node_confirms_it(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        for _ in range(4):
            keepalive = only(world.pass_s(3), Keepalive)
            world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True))
        effects = world.say(A, GrantReply(ticket.exchange.request, 5, TTL_MS, ticket.exchange.request))
        assert resolved(effects) == []
        listed = only(effects, Keepalive)
        assert listed.listed == [SlotList(slot_of("x"), [ListedAcquisition(2, "x")])]
        effects = world.say(
            A, KeepaliveReply(listed.request, TTL_MS, False, [], [AcquisitionVerdict(2, Verdict.HELD, 5)])
        )
        assert resolved(effects) == [(ticket, None)]
        assert ticket.generation == 5

    def test_a_late_grant_on_which_the_node_just_agrees_is_asked_for_again(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        world.pass_s(3)
        listed = only(
            world.say(A, GrantReply(ticket.exchange.request, 5, 100, ticket.exchange.request)), Keepalive
        )
        again = only(world.say(A, KeepaliveReply(listed.request, TTL_MS, True)), Acquire)
        assert again.acquisition == ticket.acquisition
        assert resolved(world.say(A, GrantReply(again.request, 5, TTL_MS, again.request))) == [(ticket, None)]

    def test_an_agreement_on_older_keepalives_says_nothing_of_a_late_grant(self) -> None:
        world = connected()
        world.hold("y")
        keepalive = only(world.pass_s(3), Keepalive)
        ticket = world.acquire()
        world.take()
        world.now_ns += 200 * NS_PER_MS
        listed = only(
            world.say(A, GrantReply(ticket.exchange.request, 5, 100, ticket.exchange.request)), Keepalive
        )
        assert sent(world.say(A, KeepaliveReply(keepalive.request, TTL_MS, True)), Acquire) == []
        assert len(sent(world.say(A, KeepaliveReply(listed.request, TTL_MS, True)), Acquire)) == 1

    def test_a_confirmation_that_is_late_itself_begins_nothing(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        world.now_ns += 200 * NS_PER_MS
        listed = only(
            world.say(A, GrantReply(ticket.exchange.request, 5, 100, ticket.exchange.request)), Keepalive
        )
        world.now_ns += 200 * NS_PER_MS
        kept = KeepaliveReply(listed.request, 100, False, [], [AcquisitionVerdict(2, Verdict.HELD, 5)])
        assert resolved(world.say(A, kept)) == []
        assert not world.believes(ticket)

    def test_a_basis_that_was_never_sent_or_is_forgotten_gives_no_promise(self) -> None:
        world = connected()
        ticket = world.acquire()
        world.take()
        assert resolved(world.say(A, GrantReply(ticket.exchange.request, 5, TTL_MS, 10**9))) == []
        assert resolved(world.say(A, GrantReply(ticket.exchange.request, 5, TTL_MS, 0))) == []

    def test_the_log_of_sending_times_is_bounded_and_never_late(self) -> None:
        log = RequestLog()
        sent_at = {}
        for step in range(3 * LOG_ENTRIES_MAX):
            now = step * 5 * NS_PER_MS
            sent_at[log.take_number(now)] = now
            sent_at[log.take_number(now + NS_PER_MS)] = now + NS_PER_MS
        assert len(log._numbers) <= 2 * LOG_ENTRIES_MAX
        for request, at in list(sent_at.items())[-4_000:]:
            known = log.sent_no_earlier_than_ns(request)
            assert known is not None
            assert at - 4 * NS_PER_MS <= known <= at
        assert log.sent_no_earlier_than_ns(1) is None

    def test_locks_acquired_at_different_times_end_at_different_times(self) -> None:
        world = connected()
        one = world.hold("x")
        world.pass_s(1)
        two = world.hold("y")
        effects = world.pass_s(8)
        assert lost(effects) == [(one, "local-deadline")]
        assert lost(world.pass_s(1)) == [(two, "local-deadline")]
