"""The picture of `lockring top` fits the terminal, says first how the cluster is, and shows names safely."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.text import Text

from lockring.cli.top.choice import Choice
from lockring.cli.top.model import CLUSTER, EVENTS, LOCK, LOCKS, Away, CoordinatorView, LocksSlice
from lockring.cli.top.pictures import Sight, picture, whole_picture
from lockring.errors import Denied, Unavailable
from tests.unit.cli.top.views import HOSTILE, TOKEN, WIDE, cluster, member, queue, row, top_view

SIZES = [(40, 12), (80, 24), (200, 60), (20, 5), (7, 3), (1, 1), (80, 2)]
PAGES = [
    Choice(),
    Choice(prefix="jobs/", sort="age", selected=HOSTILE),
    Choice(page="help"),
    Choice(page="search", typed="jobs/" + WIDE * 4),
    Choice(page="search", typed="x", fault="a name may not have a control character"),
    Choice(page="lock", opened="jobs/7"),
    Choice(page="lock", opened=HOSTILE),
]
SIGHTS = {
    "well": Sight(top_view(), now_s=100.0),
    "first": Sight(is_first=True),
    "first, no answer": Sight(no_answer=Unavailable("no node answers"), is_first=True, now_s=12.0),
    "outage": Sight(
        top_view(lock=queue("jobs/7", 50)),
        ((CLUSTER, Unavailable("x")),),
        Unavailable(f"no node answers {HOSTILE}"),
        88.0,
        now_s=100.0,
    ),
    "away": Sight(top_view(lock=queue(HOSTILE)), away=[Away(f"node {HOSTILE}", 90.0, "silent")], now_s=100.0),
    "denied": Sight(top_view(cluster=None, coordinator=None), ((CLUSTER, Denied("the right read *")),)),
    "many members": Sight(top_view(cluster=cluster([member(f"node-{each}") for each in range(200)]))),
    "nothing": Sight(top_view(locks=LocksSlice(), events=(), cluster=cluster([]))),
}


def text_of(lines: list[Text]) -> str:
    return "\n".join(each.plain for each in lines)


@pytest.mark.parametrize("name", SIGHTS)
@pytest.mark.parametrize("choice", PAGES, ids=lambda each: each.page)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_picture_fills_the_screen_and_not_more(name: str, choice: Choice, width: int, height: int) -> None:
    lines = picture(SIGHTS[name], choice, width=width, height=height)
    assert len(lines) == height
    assert all(cell_len(each.plain) == each.cell_len <= width for each in lines), text_of(lines)
    assert all(each.plain.isprintable() for each in lines), "no character of a name acts on the terminal"


@pytest.mark.parametrize(("width", "height"), [(40, 16), (80, 24), (200, 60)])
def test_each_size_shows_the_health_the_members_the_locks_and_the_keys(width: int, height: int) -> None:
    lines = picture(SIGHTS["well"], Choice(), width=width, height=height)
    text = text_of(lines)
    assert lines[0].plain == "Every slot is served and has a backup."
    assert "leader 10.0.0.9:9500" in text
    assert "4,095 of 4,096 slots served" in text
    assert "0 without primary" in text
    assert "0 without backup" in text
    for node in ("N1", "N2", "N3"):
        assert any(each.plain.startswith(f"{node} ") for each in lines)
    assert "> jobs/7" in text
    assert "q quit" in lines[-1].plain


def test_a_wide_screen_shows_standbys_store_moves_load_lag_leases_tokens_and_events() -> None:
    text = text_of(picture(SIGHTS["well"], Choice(), width=200, height=60))
    for each in ("standby 10.0.0.8:9500", "store SQLite", "N1 to N2: 34 slots on the way", "12 ms", "29 s"):
        assert each in text
    assert str(TOKEN) in text
    assert "root@web-1:4711" in text
    assert "node N4 joined" in text
    assert "1,234" in text, "it says that there are more locks than it shows"


def test_a_narrow_screen_keeps_numbers_whole_or_leaves_them_out() -> None:
    for width in range(30, 200):
        text = text_of(picture(SIGHTS["well"], Choice(), width=width, height=30))
        assert "TOKEN" not in text or str(TOKEN) in text, width


def test_locks_with_waiters_come_first_and_other_orders_can_be_had() -> None:
    rows = (
        row("a", held_s=9.0),
        row("b", waiters=1, wait_s=5.0),
        row("c", waiters=1, wait_s=8.0),
        row("d", held_s=99.0),
    )
    sight = Sight(top_view(locks=LocksSlice(rows)))

    def names(choice: Choice) -> list[str]:
        lines = [each.plain for each in picture(sight, choice, width=80, height=30)]
        start = next(number for number, each in enumerate(lines) if each.startswith("  NAME"))
        return [each[2] for each in lines[start + 1 : start + 5]]

    assert names(Choice(sort="waiters")) == ["c", "b", "a", "d"]
    assert names(Choice(sort="age"))[0] == "d"
    assert names(Choice(sort="name")) == ["a", "b", "c", "d"]


def test_the_selected_lock_is_always_on_the_screen() -> None:
    for number in (0, 17, 59):
        lines = picture(SIGHTS["well"], Choice(selected=f"jobs/x{number}"), width=80, height=24)
        (marked,) = (each.plain for each in lines if each.plain.startswith("> "))
        assert marked.startswith(f"> jobs/x{number} ")


def test_the_first_line_says_for_how_long_no_node_has_answered_and_the_rest_is_dim() -> None:
    lines = picture(SIGHTS["outage"], Choice(), width=80, height=24)
    assert lines[0].plain.startswith("NO ANSWER for 12 s: no node answers")
    assert "jobs/7" in text_of(lines), "the last picture stays"
    (lock,) = (each for each in lines if "jobs/7" in each.plain)
    assert lock.style.dim  # type: ignore[union-attr]


def test_the_first_line_names_the_servers_that_are_away() -> None:
    away = [Away("coordinator 10.0.0.9:9500", 40.0, "refused"), Away("node N2", 95.0, "silent")]
    silent = CoordinatorView(
        "10.0.0.9:9500", answers=False, problem="10.0.0.9:9500 cannot be reached: refused"
    )
    lines = picture(
        Sight(top_view(coordinator=silent), away=away, now_s=100.0), Choice(), width=120, height=24
    )
    expected = "Coordinator 10.0.0.9:9500 has not answered for 1 min; node N2 has not answered for 5.0 s."
    assert lines[0].plain == expected
    assert "standbys and store unknown" in text_of(lines)


def test_a_silence_that_was_just_found_has_no_length_yet() -> None:
    sight = Sight(top_view(), away=[Away("node N2", 100.0, "silent")], now_s=100.0)
    assert picture(sight, Choice(), width=120, height=24)[0].plain == "Node N2 does not answer."


def test_the_first_line_says_for_how_long_it_is_paused() -> None:
    lines = picture(SIGHTS["well"], Choice(paused_at_s=30.0), width=80, height=24)
    assert lines[0].plain.startswith("PAUSED for 1 min 10 s. Every slot")


def test_a_store_that_fails_is_in_the_first_line() -> None:
    view = top_view()
    assert view.coordinator is not None
    failing = replace(view.coordinator, store_problem="the disk is full")
    lines = picture(Sight(replace(view, coordinator=failing)), Choice(), width=80, height=24)
    assert lines[0].plain.startswith("The coordinator's store does not work.")
    assert "the disk is full" in text_of(lines)


def test_a_part_that_is_denied_names_the_missing_right_and_the_others_are_shown() -> None:
    text = text_of(picture(SIGHTS["denied"], Choice(), width=80, height=24))
    assert "The cluster cannot be shown: the right read *" in text
    assert "jobs/7" in text


def test_the_page_of_a_lock_shows_its_queue_from_the_chosen_place() -> None:
    sight = Sight(top_view(lock=queue("jobs/7", 50)))
    text = text_of(picture(sight, Choice(page="lock", opened="jobs/7"), width=80, height=24))
    assert "lock 'jobs/7'" in text
    assert str(TOKEN) in text
    assert "waiter-1@web:1" in text
    assert "(of 50 waiters)" in text
    assert "more: lockring why x" in text
    assert "was lost" in text
    scrolled = Choice(page="lock", opened="jobs/7", first_waiter=49)
    text = text_of(picture(sight, scrolled, width=80, height=24))
    assert "waiter-50@web:1" in text
    assert "waiter-49@web:1" not in text


def test_the_page_of_a_lock_shows_no_other_lock_and_says_why_it_is_missing() -> None:
    choice = Choice(page="lock", opened="other")
    text = text_of(picture(Sight(top_view(lock=queue("jobs/7"))), choice, width=80, height=24))
    assert "Looking for it" in text
    assert "waiter-1" not in text
    denied = Sight(top_view(), ((LOCK, Denied("no right to read other")),))
    text = text_of(picture(denied, choice, width=80, height=24))
    assert "no right to read other" in text
    assert "Looking for it" not in text


def test_a_picture_without_a_screen_has_every_lock_and_no_mark() -> None:
    text = text_of(whole_picture(SIGHTS["well"], Choice(), width=None))
    assert all(f"jobs/x{each}" in text for each in range(60))
    assert WIDE in text
    assert "> " not in text
    assert str(TOKEN) in text


def test_missing_locks_are_counted_by_their_slots() -> None:
    sight = Sight(top_view(locks=LocksSlice((row("a"),), unserved_slots=12)))
    text = text_of(picture(sight, Choice(), width=80, height=24))
    assert "the locks of 12 slots that no node serves are missing" in text


def test_a_prefix_without_locks_says_so() -> None:
    sight = Sight(
        top_view(locks=LocksSlice(), events=None), ((EVENTS, Unavailable("x")), (LOCKS, Unavailable("y")))
    )
    text = text_of(picture(sight, Choice(prefix="no/"), width=80, height=24))
    assert "no lock whose name begins with 'no/' is held or waited for" in text
