"""Keys of `lockring top`: the bytes that make them, and their effect on the viewer's choice."""

from __future__ import annotations

import pytest

from lockring.cli.top import keys
from lockring.cli.top.choice import Choice, after_key, place_of
from lockring.cli.top.keys import KeyReader
from lockring.names import LOCK_NAME_BYTES_MAX

NAMES = [f"n{each}" for each in range(30)]


def pressed(choice: Choice, *typed: str, names: list[str] = NAMES, waiters: int = 0) -> Choice:
    for key in typed:
        choice = after_key(choice, key, names=names, waiters=waiters, now_s=5.0)
    return choice


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"qs?", ["q", "s", "?"]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[6~", [keys.UP, keys.DOWN, keys.PAGE_UP, keys.PAGE_DOWN]),
        (b"\r\n\x7f\x08\x15", [keys.ENTER, keys.ENTER, keys.BACKSPACE, keys.BACKSPACE, keys.CLEAR]),
        ("倉é".encode(), ["倉", "é"]),
        (b"\x1b[1;5C\x1bOPx", ["x"]),
        (b"\x1bq", [keys.ESCAPE, "q"]),
        (b"\x00\x01\xffx", ["\ufffd", "x"]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_bytes_make_the_same_keys_whole_or_in_pieces(data: bytes, expected: list[str], at_once: bool) -> None:
    reader = KeyReader()
    pieces = [data] if at_once else [data[place : place + 1] for place in range(len(data))]
    assert [key for each in pieces for key in reader.feed(each)] == expected
    assert not reader.is_waiting


def test_an_escape_alone_counts_once_nothing_follows() -> None:
    reader = KeyReader()
    assert reader.feed(b"\x1b") == []
    assert reader.is_waiting
    assert reader.flush() == [keys.ESCAPE]
    assert not reader.is_waiting


def test_a_sequence_without_an_end_does_not_wait_for_ever() -> None:
    reader = KeyReader()
    reader.feed(b"\x1b[" + b"1" * 10_000)
    assert not reader.is_waiting


def test_the_selection_moves_and_stays_within_the_list() -> None:
    assert pressed(Choice(), keys.DOWN, keys.DOWN, keys.UP).selected == "n1"
    assert pressed(Choice(), keys.UP).selected == "n0"
    assert pressed(Choice(), keys.END, keys.DOWN).selected == "n29"
    assert pressed(Choice(), keys.PAGE_DOWN, "j", "k", keys.PAGE_DOWN, keys.HOME, "j").selected == "n1"


def test_the_selection_follows_its_lock_and_keeps_its_place_when_the_lock_is_gone() -> None:
    choice = pressed(Choice(), keys.DOWN, keys.DOWN)
    assert place_of(choice, ["n2", "n0"]) == 0
    assert place_of(choice, ["a", "b", "c", "d"]) == 2
    assert place_of(choice, ["a"]) == 0
    assert place_of(choice, []) == 0


def test_an_empty_list_has_nothing_to_select_or_open() -> None:
    choice = pressed(Choice(), keys.DOWN, keys.ENTER, names=[])
    assert (choice.page, choice.selected) == ("locks", "")


def test_enter_opens_the_queue_of_the_selected_lock_and_escape_goes_back_to_it() -> None:
    choice = pressed(Choice(), keys.DOWN, keys.ENTER)
    assert (choice.page, choice.opened) == ("lock", "n1")
    assert pressed(choice, *[keys.DOWN] * 9, waiters=4).first_waiter == 3
    assert pressed(choice, keys.END, keys.HOME, waiters=4).first_waiter == 0
    back = pressed(choice, keys.ESCAPE)
    assert (back.page, back.opened, back.selected) == ("locks", "", "n1")


def test_a_prefix_is_typed_and_taken_or_left() -> None:
    choice = pressed(Choice(), "/", "j", "q", " ", keys.BACKSPACE, "?")
    assert (choice.page, choice.typed, choice.is_over, choice.prefix) == ("search", "jq?", False, "")
    assert pressed(choice, keys.ENTER).prefix == "jq?"
    assert pressed(choice, keys.ESCAPE) == Choice()
    assert pressed(choice, keys.CLEAR, keys.ENTER).prefix == ""
    assert pressed(choice, keys.ENTER, "/").typed == "jq?", "the next search begins with it"
    assert pressed(choice, keys.ENTER, keys.ESCAPE).prefix == "", "and escape shows all again"


def test_a_prefix_that_no_name_has_is_refused_with_the_reason_and_can_be_mended() -> None:
    choice = pressed(Choice(page="search", typed="\ud800"), keys.ENTER)
    assert choice.page == "search"
    assert choice.fault
    assert pressed(choice, keys.BACKSPACE).fault == ""


def test_a_prefix_has_the_bound_of_a_name() -> None:
    choice = pressed(Choice(), "/", *"é" * LOCK_NAME_BYTES_MAX)
    assert len(choice.typed.encode()) == LOCK_NAME_BYTES_MAX // 2 * 2


def test_sorting_goes_round_pausing_goes_on_and_help_goes_back() -> None:
    assert pressed(Choice(), "s").sort == "age"
    assert pressed(Choice(), "s", "s", "s").sort == "waiters"
    assert pressed(Choice(), " ").paused_at_s == 5.0
    assert pressed(Choice(), " ", " ").paused_at_s is None
    assert pressed(Choice(), "?").page == "help"
    assert pressed(Choice(), "?", "?").page == "locks"
    assert pressed(Choice(), keys.ENTER, "?", keys.ESCAPE).page == "lock"
    assert pressed(Choice(), "?", "q").is_over


def test_keys_that_mean_nothing_change_nothing() -> None:
    choice = pressed(Choice(), keys.DOWN)
    assert pressed(choice, "x", "é", keys.BACKSPACE, keys.CLEAR) == choice
