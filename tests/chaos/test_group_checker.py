"""The checker speaks up at everything that must not be with groups, and at nothing else: shown with histories that
are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.names import lock_of_group
from lockring.units import NS_PER_S
from tests.chaos.checker import Checker
from tests.chaos.history import AnyEvent, Entered, Leaving, Lost, Owned, Regrouped, Viewed, name_of_key
from tests.chaos.register import Register, Row
from tests.chaos.test_checker import TTL_S, ns

GROUP = "work"
KEY = "key-1"
LOCK = lock_of_group(GROUP)
TOKENS = {"c1": 1, "c2": 2, "c3": 3}
"""Each client's first membership."""


def joined(client: str, at_s: float = 0, *, token: int | None = None) -> Entered:
    return Entered(
        client=client, pid=1, lock=LOCK, token=token or TOKENS[client], ttl_ns=ns(TTL_S),
        asked_at_ns=ns(at_s - 0.01), at_ns=ns(at_s), left_ns=ns(TTL_S), shared=True,
    )  # fmt: skip


def owned(
    client: str,
    fence: int,
    at_s: float,
    *,
    left_s: float = TTL_S,
    took_s: float = 0.001,
    token: int | None = None,
    key: str = KEY,
) -> Owned:
    return Owned(
        client=client, group=GROUP, token=token or TOKENS[client], key=key, fence=fence,
        from_ns=ns(at_s - took_s), at_ns=ns(at_s), left_ns=ns(left_s),
    )  # fmt: skip


def taken(client: str, at_s: float, *, let_go_s: float | None = None, key: str = KEY) -> Regrouped:
    return Regrouped(
        client=client, group=GROUP, token=TOKENS[client], gained=(), lost=(key,),
        at_ns=ns(at_s), let_go_at_ns=ns(at_s + 0.001 if let_go_s is None else let_go_s),
    )  # fmt: skip


def left(client: str, at_s: float) -> Leaving:
    return Leaving(client=client, lock=LOCK, token=TOKENS[client], at_ns=ns(at_s), left_ns=ns(5))


def lost(client: str, at_s: float) -> Lost:
    return Lost(client=client, lock=LOCK, token=TOKENS[client], at_ns=ns(at_s), reason="local-deadline")


def viewed(client: str, version: int, at_s: float, *members: str, settled: bool = True) -> Viewed:
    return Viewed(
        client=client, group=GROUP, token=TOKENS[client], version=version, settled=settled,
        members=members, at_ns=ns(at_s),
    )  # fmt: skip


def rules(*events: AnyEvent) -> list[str]:
    """The rules that a history breaks in which c1 and c2 are members."""
    checker = Checker()
    checker.feed([joined("c1"), joined("c2"), *events])
    return [problem.rule for problem in checker.judge()]


def test_a_key_that_goes_from_one_to_the_other_and_back_is_fine() -> None:
    assert rules(
        owned("c1", 5, 1), owned("c1", 5, 2), taken("c1", 3), owned("c2", 6, 4), taken("c2", 5), owned("c1", 7, 6)
    ) == []  # fmt: skip


def test_two_who_own_a_key_at_once_are_found() -> None:
    assert rules(owned("c1", 5, 1), owned("c2", 6, 2)) == ["G1"]
    assert rules(owned("c2", 6, 2), owned("c1", 5, 1)) == ["G1"], "in whatever order files are read"


def test_two_who_own_different_keys_do_not_meet() -> None:
    assert rules(owned("c1", 5, 1), owned("c2", 5, 2, key="key-2")) == []


def test_one_who_owns_what_another_one_has_not_let_go_of_is_found() -> None:
    assert rules(owned("c1", 5, 1), taken("c1", 2, let_go_s=4), owned("c2", 6, 3)) == ["G1"]
    assert rules(owned("c1", 5, 1), taken("c1", 2, let_go_s=4), owned("c2", 6, 4.5)) == []


def test_one_who_owns_before_the_deadline_of_a_member_that_was_never_seen_again_is_found() -> None:
    assert rules(owned("c1", 5, 1, left_s=9), owned("c2", 6, 9.9)) == ["G1"]
    assert rules(owned("c1", 5, 1, left_s=9), owned("c2", 6, 10.1)) == []


def test_a_renewal_that_was_seen_by_a_look_at_another_key_moves_the_deadline() -> None:
    assert rules(owned("c1", 5, 1, left_s=9), owned("c1", 5, 8, key="key-2"), owned("c2", 6, 12)) == ["G1"]


def test_a_callback_that_ends_after_the_lease_keeps_no_member_out() -> None:
    assert rules(owned("c1", 5, 1, left_s=9), taken("c1", 2, let_go_s=20), owned("c2", 6, 11)) == []


@pytest.mark.parametrize("end", [left, lost])
def test_a_member_that_has_left_or_lost_owns_nothing_any_more(end: type) -> None:
    assert rules(owned("c1", 5, 1), end("c1", 3), owned("c2", 6, 4)) == []
    assert rules(owned("c1", 5, 1), end("c1", 3), owned("c1", 5, 3.5)) == ["G1"]


def test_a_member_that_goes_on_owning_after_its_deadline_is_found() -> None:
    frozen: list[AnyEvent] = [owned("c1", 5, 1, left_s=9), owned("c2", 6, 12)]
    assert rules(*frozen) == []
    assert set(rules(*frozen, owned("c1", 5, 13, left_s=0))) == {"G1", "G2"}


def test_a_first_look_that_says_yes_of_what_another_one_owns_is_found_though_the_lease_had_ended() -> None:
    assert set(rules(owned("c2", 6, 12), owned("c1", 7, 13, left_s=0, took_s=0.5))) == {"G1"}


def test_a_look_that_was_stopped_on_its_way_shows_no_more_than_one_moment() -> None:
    """It began at 1, said yes at some time until 13, and the other one had the key from 12 on."""
    assert rules(owned("c2", 6, 12), owned("c1", 5, 13, left_s=0, took_s=12)) == []


def test_a_look_during_which_the_key_was_taken_away_shows_nothing() -> None:
    look = owned("c1", 5, 6, took_s=4)
    assert rules(taken("c1", 3), owned("c2", 6, 4), look) == []
    assert rules(look, taken("c1", 3), owned("c2", 6, 4)) == []
    assert rules(taken("c1", 1), owned("c2", 6, 4), look) == ["G1"], "of one that was taken before, it does"


def test_a_later_owner_with_no_greater_fence_is_found() -> None:
    assert rules(owned("c1", 5, 1), taken("c1", 2), owned("c2", 5, 3)) == ["G2"]
    assert rules(owned("c1", 5, 1), taken("c1", 2), owned("c2", 4, 3)) == ["G2"]


def test_a_fence_is_above_that_of_an_owner_before_the_last_one() -> None:
    first: list[AnyEvent] = [joined("c3"), owned("c3", 9, 0.5), taken("c3", 0.8)]
    assert set(rules(*first, owned("c1", 10, 1), taken("c1", 2), owned("c2", 9, 3))) == {"G2"}


def test_a_later_membership_of_the_same_client_needs_a_greater_fence() -> None:
    first: list[AnyEvent] = [owned("c1", 5, 1), left("c1", 2), joined("c1", 3, token=8)]
    assert rules(*first, owned("c1", 5, 4, token=8)) == ["G2"]
    assert rules(*first, owned("c1", 6, 4, token=8)) == []


def test_a_members_own_fence_may_grow_and_must_not_fall() -> None:
    assert rules(owned("c1", 5, 1), owned("c1", 7, 2), owned("c1", 7, 3)) == []
    assert rules(owned("c1", 5, 1), owned("c1", 4, 2)) == ["G2"]


def test_one_who_owns_without_a_membership_is_found() -> None:
    assert rules(owned("c3", 5, 1)) == ["G1"]


def test_a_version_that_falls_and_one_that_is_known_with_two_lists_of_members_are_found() -> None:
    assert rules(viewed("c1", 5, 1, "c1"), viewed("c1", 6, 2, "c1", "c2")) == []
    assert rules(viewed("c1", 6, 1, "c1"), viewed("c1", 5, 2, "c1", "c2")) == ["G2"]
    assert rules(viewed("c1", 6, 1, "c1"), viewed("c2", 6, 2, "c1", "c2")) == ["G2"]


def test_while_the_run_goes_on_only_what_was_surely_read_is_judged() -> None:
    checker = Checker()
    checker.feed([joined("c1"), joined("c2"), owned("c1", 5, 1), owned("c2", 6, 5)])
    assert checker.judge(ns(4)) == []
    checker.feed([taken("c1", 4.5)])
    assert checker.judge() == []


# --------------------------------------------------------------------------- the end


def unsettled(*events: AnyEvent) -> list[str]:
    """Return what is missing, by the looks since 10 s, until c1 and c2 share the key."""
    checker = Checker()
    checker.feed([joined("c1"), joined("c2"), *events])
    return checker.unsettled({GROUP: {"c1", "c2"}}, [KEY], ns(10))


BOTH = ("c1", "c2")


def test_a_group_with_all_its_members_and_an_owner_for_each_key_is_settled() -> None:
    assert unsettled(viewed("c1", 5, 11, *BOTH), viewed("c2", 5, 11, *BOTH), owned("c2", 5, 11)) == []


@pytest.mark.parametrize(
    ("first", "second", "look", "what"),
    [
        (viewed("c1", 5, 9, *BOTH), viewed("c2", 5, 11, *BOTH), owned("c2", 5, 11), "c1 is no member"),
        (viewed("c1", 5, 11, *BOTH), viewed("c2", 6, 11, *BOTH), owned("c2", 5, 11), "versions"),
        (viewed("c1", 5, 11, "c1"), viewed("c2", 5, 11, "c1"), owned("c1", 5, 11), "knows the members c1"),
        (viewed("c1", 5, 11, *BOTH), viewed("c2", 5, 11, *BOTH, settled=False), owned("c2", 5, 11), "settled"),
        (viewed("c1", 5, 11, *BOTH), viewed("c2", 5, 11, *BOTH), owned("c2", 5, 9), "no owner"),
    ],
)  # fmt: skip
def test_what_a_group_still_lacks_is_named(first: Viewed, second: Viewed, look: Owned, what: str) -> None:
    missing = unsettled(first, second, look)
    assert missing
    assert all(what in each for each in missing)


# --------------------------------------------------------------------------- the register


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """c1 has written with fence 6, c2 was refused with fence 5."""
    Register.create(tmp_path / "register.db")
    register = Register(tmp_path / "register.db")
    for fence, client in ((6, "c1"), (5, "c2")):
        register.write(name_of_key(GROUP, KEY), fence, client, 1, "work")
    found = register.rows()
    register.close()
    return found


def judged(rows: list[Row], *events: AnyEvent) -> list[str]:
    checker = Checker()
    checker.feed(events)
    return [problem.text for problem in checker.judge_register(rows)]


def test_a_rightful_owner_that_is_refused_is_found_and_a_late_one_is_fenced_off(rows: list[Row]) -> None:
    at_s = rows[1].at_ns / NS_PER_S
    first: list[AnyEvent] = [joined("c1", at_s - 60), joined("c2", at_s - 60), owned("c1", 6, at_s - 1)]
    (text,) = judged(rows, *first, owned("c2", 5, at_s - 5))
    assert "was refused while it owned the key" in text
    late = Checker()
    late.feed([*first, owned("c2", 5, at_s - 30)])
    assert late.judge_register(rows) == []
    assert late.counts["fenced off"] == 1


def test_one_who_writes_with_a_fence_that_it_was_never_given_is_found(rows: list[Row]) -> None:
    texts = judged(rows)
    assert ["without owning the key" in text for text in texts] == [True, True]


def test_an_old_fence_that_is_accepted_after_a_newer_one_is_found(rows: list[Row]) -> None:
    at_s = rows[1].at_ns / NS_PER_S
    late = [rows[0], rows[1]._replace(verdict="accepted")]
    members: list[AnyEvent] = [joined("c1", at_s - 60), joined("c2", at_s - 60)]
    (text,) = judged(late, *members, owned("c2", 5, at_s - 30), owned("c1", 6, at_s - 1))
    assert "has written after fence 6" in text
