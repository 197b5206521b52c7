"""The checker speaks up at everything that must not be, and at nothing else: shown with histories that are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.units import NS_PER_S
from tests.chaos.checker import Checker, Interval
from tests.chaos.history import (
    AnyEvent,
    Checked,
    Complaint,
    Entered,
    Gone,
    Leaving,
    Lost,
    Outage,
    Pen,
    Stalled,
    Tail,
    Verified,
    Wrote,
)
from tests.chaos.register import Register
from tests.chaos.report import CALM, Done, unavailable

LOCK = "shared/1"
TTL_S = 10


def ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def entered(
    client: str,
    token: int,
    at_s: float,
    *,
    left_s: float = TTL_S,
    asked_s: float | None = None,
    shared: bool = False,
) -> Entered:
    asked_at_ns = ns(at_s - 0.01 if asked_s is None else asked_s)
    return Entered(
        client=client, pid=1, lock=LOCK, token=token, ttl_ns=ns(TTL_S),
        asked_at_ns=asked_at_ns, at_ns=ns(at_s), left_ns=ns(left_s), shared=shared,
    )  # fmt: skip


def checked(client: str, token: int, at_s: float, left_s: float) -> Checked:
    return Checked(client=client, lock=LOCK, token=token, at_ns=ns(at_s), left_ns=ns(left_s))


def leaving(client: str, token: int, at_s: float) -> Leaving:
    return Leaving(client=client, lock=LOCK, token=token, at_ns=ns(at_s), left_ns=ns(5))


def lost(client: str, token: int, at_s: float) -> Lost:
    return Lost(client=client, lock=LOCK, token=token, at_ns=ns(at_s), reason="local-deadline")


def wrote(client: str, token: int, at_s: float, verdict: str, *, left_s: float) -> Wrote:
    return Wrote(
        client=client, lock=LOCK, token=token, at_ns=ns(at_s), verdict=verdict,
        looked_at_ns=ns(at_s + 0.001), left_ns=ns(left_s),
    )  # fmt: skip


def rules(*events: AnyEvent) -> list[str]:
    """The rules that a history breaks."""
    checker = Checker()
    checker.feed(events)
    return [problem.rule for problem in checker.judge()]


def test_turns_that_follow_each_other_are_fine() -> None:
    events: list[AnyEvent] = []
    for turn in range(5):
        client = f"c{turn % 2}"
        events += [entered(client, turn + 1, turn), leaving(client, turn + 1, turn + 0.5)]
    assert rules(*events) == []


def test_two_who_hold_at_once_are_found() -> None:
    assert rules(entered("c1", 1, 0), entered("c2", 2, 1), leaving("c1", 1, 1.5)) == ["P1"]


def test_an_overlap_is_found_in_whatever_order_the_files_are_read() -> None:
    assert rules(entered("c2", 2, 1), entered("c1", 1, 0), leaving("c1", 1, 1.5)) == ["P1"]


def test_one_who_entered_before_the_deadline_of_a_holder_that_was_never_seen_again_is_found() -> None:
    assert rules(entered("c1", 1, 0), entered("c2", 2, 9.9)) == ["P1"]
    assert rules(entered("c1", 1, 0), entered("c2", 2, 10.1)) == []


def test_a_renewal_that_was_seen_moves_the_deadline() -> None:
    assert rules(entered("c1", 1, 0), checked("c1", 1, 6, 9), entered("c2", 2, 12)) == ["P1"]


def test_an_overlap_is_found_behind_a_short_turn_inside_of_a_long_one() -> None:
    long_turn: list[AnyEvent] = [entered("c1", 1, 0), checked("c1", 1, 8, 9)]
    inside: list[AnyEvent] = [entered("c2", 2, 1), leaving("c2", 2, 2)]
    assert rules(*long_turn, *inside, entered("c3", 3, 10)) == ["P1", "P1"]


def test_those_who_share_may_hold_at_once_and_hear_of_it_in_either_order() -> None:
    one, two = entered("c1", 2, 0, shared=True), entered("c2", 1, 0.001, shared=True, asked_s=-0.01)
    assert rules(one, two) == []
    assert rules(one, two, leaving("c1", 2, 1), leaving("c2", 1, 2), entered("c3", 3, 3)) == []


@pytest.mark.parametrize("first_shares", [True, False])
def test_one_who_shares_and_one_who_holds_alone_do_not_go_together(first_shares: bool) -> None:
    first = entered("c1", 1, 0, shared=first_shares)
    assert rules(first, entered("c2", 2, 1, shared=not first_shares)) == ["P1"]


def test_a_writer_is_found_that_overlaps_any_of_several_readers() -> None:
    readers: list[AnyEvent] = [entered("c1", 1, 0, shared=True), entered("c2", 2, 0.5, shared=True)]
    assert rules(*readers, leaving("c2", 2, 1), entered("c3", 3, 2)) == ["P1"]
    assert rules(*readers, leaving("c1", 1, 1), entered("c3", 3, 2)) == ["P1"]
    assert rules(*readers, leaving("c1", 1, 1), leaving("c2", 2, 1), entered("c3", 3, 2)) == []


def test_a_reader_whose_token_is_below_that_of_a_writer_before_it_is_found() -> None:
    writer: list[AnyEvent] = [entered("c1", 7, 0), leaving("c1", 7, 1)]
    assert set(rules(*writer, entered("c2", 6, 2, shared=True, asked_s=-1))) == {"P2"}
    two: list[AnyEvent] = [entered("c2", 8, 2, shared=True), entered("c3", 6, 2.1, shared=True, asked_s=-1)]
    assert set(rules(*writer, *two)) == {"P2"}


def test_a_client_that_learned_of_the_loss_no_longer_holds_the_lock() -> None:
    assert rules(entered("c1", 1, 0), lost("c1", 1, 3), entered("c2", 2, 4)) == []


def test_a_grant_that_had_run_out_when_acquire_returned_excludes_no_client() -> None:
    late = entered("c1", 1, 20, left_s=0, asked_s=1)
    assert rules(entered("c2", 2, 15), late) == []


def test_a_token_that_falls_is_found() -> None:
    events: list[AnyEvent] = [entered("c1", 7, 0), leaving("c1", 7, 1), entered("c2", 6, 2)]
    assert set(rules(*events)) == {"P2"}


def test_a_token_that_falls_is_found_though_the_grant_had_run_out_at_once() -> None:
    assert rules(entered("c1", 7, 0, left_s=0), entered("c2", 6, 2)) == ["P2"]


def test_a_token_that_is_given_twice_is_found() -> None:
    events: list[AnyEvent] = [entered("c1", 7, 0), leaving("c1", 7, 1), entered("c2", 7, 2)]
    assert set(rules(*events)) == {"P2"}


def test_a_holder_that_is_refused_is_found_and_one_that_held_no_more_is_fenced_off() -> None:
    assert rules(entered("c1", 1, 0), wrote("c1", 1, 1, "refused", left_s=5)) == ["P2"]
    checker = Checker()
    checker.feed([entered("c1", 1, 0), wrote("c1", 1, 15, "refused", left_s=0)])
    assert checker.judge() == []
    assert checker.counts["fenced off"] == 1


def test_a_complaint_of_a_client_is_a_problem() -> None:
    assert rules(Complaint(client="c1", at_ns=1, text="a hand broke off")) == ["P2"]


def test_a_holder_that_the_cluster_does_not_know_in_the_end_is_found() -> None:
    said = Verified(client="c1", lock=LOCK, token=1, at_ns=ns(1), is_holder=False)
    assert rules(entered("c1", 1, 0), said) == ["P3"]


def test_while_the_run_goes_on_only_what_was_surely_read_is_judged() -> None:
    checker = Checker()
    checker.feed([entered("c1", 1, 0), entered("c2", 2, 5)])
    assert checker.judge(ns(4)) == []
    checker.feed([leaving("c1", 1, 4.5)])
    assert checker.judge() == []


# --------------------------------------------------------------------------- losses


def losses(*, own: Interval | None = None, stalls: tuple[Stalled, ...] = ()) -> list[tuple[str, bool]]:
    """Events that excuse the loss, at 12 s, of a grant whose lease was last renewed at 2 s."""
    checker = Checker()
    checker.feed([entered("c1", 1, 0), checked("c1", 1, 2, 10), lost("c1", 1, 12), *stalls])
    if own is not None:
        checker.own_faults["c1"].append(own)
    return [(each.excuse, each.is_starved) for each in checker.losses()]


def test_a_lost_grant_is_found_once_and_has_no_excuse() -> None:
    assert losses() == [("", False)]


def test_a_client_that_was_stopped_for_most_of_its_lease_is_excused() -> None:
    ((excuse, is_starved),) = losses(own=Interval(ns(3), ns(15)))
    assert "stopped" in excuse
    assert not is_starved


def test_a_client_that_was_stopped_shortly_is_not_excused() -> None:
    assert losses(own=Interval(ns(3), ns(6))) == [("", False)]


def test_a_stop_of_another_time_or_another_client_excuses_nothing() -> None:
    assert losses(own=Interval(ns(20), ns(40))) == [("", False)]
    checker = Checker()
    checker.feed([entered("c1", 1, 0), lost("c1", 1, 10)])
    checker.own_faults["c2"].append(Interval(0, ns(10)))
    assert [each.excuse for each in checker.losses()] == [""]


@pytest.mark.parametrize(
    ("process", "waited_s", "starved"), [("N2", 2.5, True), ("N2", 1.5, False), ("c1", 2.5, False)]
)
def test_a_machine_that_stops_a_process_for_longer_than_a_lease_is_recognized(
    process: str, waited_s: float, starved: bool
) -> None:
    stall = Stalled(process=process, from_ns=ns(4), until_ns=ns(8), waited_ns=ns(waited_s))
    ((excuse, is_starved),) = losses(stalls=(stall,))
    assert is_starved == starved
    assert (process in excuse) == starved


@pytest.mark.parametrize(("until_s", "excused"), [(17, True), (13, False)])
def test_a_grant_whose_beginning_is_unknown_is_excused_if_no_node_was_there_for_most_of_a_lease(
    until_s: float, excused: bool
) -> None:
    checker = Checker(ttl_ns=ns(TTL_S))
    checker.feed([lost("prober", 3, 20)])
    checker.own_faults["prober"].append(Interval(ns(9), ns(until_s)))
    ((_, excuse, is_starved),) = checker.losses()
    assert (bool(excuse), is_starved) == (excused, False)


def test_a_loss_by_a_client_whose_grants_are_not_known_one_by_one_counts() -> None:
    checker = Checker()
    checker.feed([lost("prober", 3, 1)])
    assert [each.excuse for each in checker.losses()] == [""]


# --------------------------------------------------------------------------- the register


@pytest.fixture
def database(tmp_path: Path) -> Path:
    Register.create(tmp_path / "register.db")
    return tmp_path / "register.db"


def test_the_register_refuses_an_older_token_and_writes_both_down(database: Path) -> None:
    register = Register(database)
    verdicts = [register.write(LOCK, token, "c1", 1, "work").verdict for token in (5, 5, 6, 5, 7)]
    assert verdicts == ["accepted", "accepted", "accepted", "refused", "accepted"]
    assert [(row.token, row.highest, row.verdict) for row in register.rows()][3] == (5, 6, "refused")
    register.close()


def test_registers_of_different_locks_do_not_know_each_other(database: Path) -> None:
    register = Register(database)
    assert register.write("a", 5, "c1", 1, "work").verdict == "accepted"
    assert register.write("b", 4, "c1", 1, "work").verdict == "accepted"
    register.close()


def test_a_write_is_given_up_while_another_one_does_not_end(database: Path) -> None:
    stuck, other = Register(database), Register(database)
    with stuck.transaction():
        assert other.write(LOCK, 1, "c1", 1, "work").verdict == "busy"
    assert other.write(LOCK, 1, "c1", 1, "work").verdict == "accepted"
    stuck.close()
    other.close()


def test_the_register_finds_who_was_refused_while_holding_and_who_wrote_without_a_grant(
    database: Path,
) -> None:
    register = Register(database)
    first = register.write(LOCK, 5, "c1", 1, "work")
    second = register.write(LOCK, 4, "c2", 2, "work")
    assert (first.verdict, second.verdict) == ("accepted", "refused")
    at_s = second.at_ns / NS_PER_S
    holding, gone = Checker(), Checker()
    holding.feed([entered("c1", 5, at_s - 30), leaving("c1", 5, at_s - 20), entered("c2", 4, at_s - 1)])
    assert [each.rule for each in holding.judge_register(register.rows())] == ["P2"]
    gone.feed([entered("c1", 5, at_s - 30), entered("c2", 4, at_s - 60)])
    assert gone.judge_register(register.rows()) == []
    unknown = Checker().judge_register(register.rows())
    assert ["without a grant" in each.text for each in unknown] == [True, True]
    register.close()


# --------------------------------------------------------------------------- history and report


def test_what_was_written_down_is_read_once_and_in_order(tmp_path: Path) -> None:
    pen, tail = Pen(tmp_path / "c1.history"), Tail(tmp_path / "c1.history")
    assert tail.read() == []
    first, second = entered("c1", 1, 0), Gone(client="c1", lock=LOCK, token=1, at_ns=5, outcome="released")
    pen.write(first)
    assert tail.read() == [first]
    pen.write(second)
    with (tmp_path / "c1.history").open("ab") as file:
        file.write(b'{"what":"gone",')
    assert tail.read() == [second]
    assert tail.read() == []
    pen.close()


def test_the_longest_outage_counts_for_the_fault_that_it_overlaps() -> None:
    done = [Done("kill", "", ns(10), ns(12), ns(15)), Done("kill", "", ns(20), ns(21), ns(22))]
    outages = [
        Outage(lock="a", from_ns=ns(9.9), until_ns=ns(12)),
        Outage(lock="b", from_ns=ns(11), until_ns=ns(11.5)),
        Outage(lock="a", from_ns=ns(16), until_ns=ns(16.1)),
        Outage(lock="a", from_ns=ns(21), until_ns=ns(21.3)),
    ]
    found = unavailable(done, outages, ns(30))
    assert (found["kill"].faults, found["kill"].max_ms, found["kill"].median_ms) == (2, 2100, 1200)
    assert (found[CALM].faults, found[CALM].max_ms) == (2, 100)
    assert unavailable([], outages, ns(30)) == {}
