"""The choices of the viewer of `lockring top`, and how each key changes them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from lockring.cli.top import keys
from lockring.cli.top.model import SORTS, Sort
from lockring.errors import InvalidRequest
from lockring.names import LOCK_NAME_BYTES_MAX, check_lock_name

Page = Literal["locks", "lock", "help", "search"]

_PAGE_ROWS: Final = 10
_STEPS: Final = {
    keys.UP: -1,
    "k": -1,
    keys.DOWN: 1,
    "j": 1,
    keys.PAGE_UP: -_PAGE_ROWS,
    keys.PAGE_DOWN: _PAGE_ROWS,
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The present choice.

    Attributes:
        page: which page is shown; "search" is the list of locks while a prefix is typed.
        prefix: how the names of locks begin, "" for all.
        sort: the order of locks.
        selected: the name of the selected lock, "" for the first.
        row: the place where it was last seen, for the time when it is gone.
        opened: the lock of the page "lock".
        first_waiter: the first row of its queue that is shown, from 0.
        typed: the prefix so far, while it is typed.
        fault: why it cannot be used, "" if it can.
        paused_at_s: when the picture was stopped, by the monotonic clock; None if it goes on.
        is_over: whether the viewer has had enough.
    """

    page: Page = "locks"
    prefix: str = ""
    sort: Sort = "waiters"
    selected: str = ""
    row: int = 0
    opened: str = ""
    first_waiter: int = 0
    typed: str = ""
    fault: str = ""
    paused_at_s: float | None = None
    is_over: bool = False


def place_of(choice: Choice, names: Sequence[str]) -> int:
    """Return the place of the selected lock among those that are shown; 0 if there is none."""
    if choice.selected in names:
        return names.index(choice.selected)
    return max(0, min(choice.row, len(names) - 1))


def after_key(choice: Choice, key: str, *, names: Sequence[str], waiters: int, now_s: float) -> Choice:
    """Return the choice after a key.

    Args:
        choice: the one before.
        key: a character, or a name of `keys`.
        names: of the locks that are shown, in their order.
        waiters: how many rows the queue of the opened lock has.
        now_s: the time, by the monotonic clock.
    """
    if choice.page == "search":
        return _typed(choice, key)
    if key == "q":
        return replace(choice, is_over=True)
    if key == " ":
        return replace(choice, paused_at_s=now_s if choice.paused_at_s is None else None)
    if key == "?":
        back: Page = "lock" if choice.opened else "locks"
        return replace(choice, page=back if choice.page == "help" else "help")
    if choice.page == "help":
        return replace(choice, page="lock" if choice.opened else "locks") if key == keys.ESCAPE else choice
    if choice.page == "lock":
        return _on_lock(choice, key, waiters)
    return _on_locks(choice, key, names)


def _on_locks(choice: Choice, key: str, names: Sequence[str]) -> Choice:
    if key == "/":
        return replace(choice, page="search", typed=choice.prefix, fault="")
    if key == "s":
        return replace(choice, sort=SORTS[(SORTS.index(choice.sort) + 1) % len(SORTS)])
    if key == keys.ESCAPE:
        return replace(choice, prefix="")
    if not names:
        return choice
    here = place_of(choice, names)
    if key == keys.ENTER:
        return replace(
            choice, page="lock", opened=names[here], selected=names[here], row=here, first_waiter=0
        )
    there = {keys.HOME: 0, keys.END: len(names) - 1}.get(key, here + _STEPS.get(key, 0))
    there = max(0, min(there, len(names) - 1))
    return replace(choice, selected=names[there], row=there)


def _on_lock(choice: Choice, key: str, waiters: int) -> Choice:
    if key in (keys.ESCAPE, keys.ENTER, keys.BACKSPACE):
        return replace(choice, page="locks", opened="", first_waiter=0)
    last = max(0, waiters - 1)
    first = {keys.HOME: 0, keys.END: last}.get(key, choice.first_waiter + _STEPS.get(key, 0))
    return replace(choice, first_waiter=max(0, min(first, last)))


def _typed(choice: Choice, key: str) -> Choice:
    if key == keys.ESCAPE:
        return replace(choice, page="locks", typed="", fault="")
    if key == keys.ENTER:
        try:
            if choice.typed:
                check_lock_name(choice.typed)
        except InvalidRequest as error:
            return replace(choice, fault=str(error))
        return replace(choice, page="locks", prefix=choice.typed, typed="", fault="", selected="", row=0)
    if key == keys.BACKSPACE:
        return replace(choice, typed=choice.typed[:-1], fault="")
    if key == keys.CLEAR:
        return replace(choice, typed="", fault="")
    if len(key) != 1 or len((choice.typed + key).encode(errors="replace")) > LOCK_NAME_BYTES_MAX:
        return choice
    return replace(choice, typed=choice.typed + key, fault="")
