"""The page of one lock: its holders, its queue and its last events, as lines. Pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from lockring.cli.layout import Column, wrapped
from lockring.cli.top.choice import Choice
from lockring.cli.top.model import LOCK
from lockring.cli.top.parts import BAD, HEADING, OF_ROW, PLAIN, QUIET, line, table
from lockring.errors import LockringError
from lockring.terminals import shown
from lockring.views.locks import LockView
from lockring.views.words import count, duration

_HOLDERS_MAX: Final = 3
_EVENTS_MAX: Final = 4
_TALL: Final = 14
"""From this height on, there is room for more than holders and queue."""

_HOLDERS: Final = (
    Column("HOLDER", least=8),
    Column("HELD FOR", True, leaves=4),
    Column("RENEWED", True, leaves=2),
    Column("LEASE LEFT", True, leaves=3),
    Column("TOKEN", True),
    Column("SESSION", least=6, leaves=1),
)
_QUEUE: Final = (
    Column("#", True),
    Column("WAITER", least=8),
    Column("MODE", leaves=2),
    Column("WAITED", True),
    Column("SESSION", least=6, leaves=1),
)
_EVENTS: Final = (Column("AGO", True), Column("EVENT", least=10))


def lock_lines(
    lock: LockView | None,
    choice: Choice,
    errors: Mapping[str, LockringError],
    *,
    width: int,
    height: int,
) -> list[Text]:
    """Return the lines of a lock's page.

    Args:
        lock: the lock; None or another one while there is no answer about it.
        choice: the viewer's choice.
        errors: why parts of the picture are missing.
        width: cells of a line.
        height: most lines.
    """
    head = [Text(shown(f"lock '{choice.opened}'"), HEADING)]
    error = errors.get(LOCK)
    if error is not None:
        head += [line(each, BAD) for each in wrapped(shown(str(error)), width)]
    if lock is None or lock.name != choice.opened:
        return head if error is not None else [*head, line("Looking for it…", QUIET)]
    head += [line(each) for each in wrapped(shown(lock.summary), width)]
    about = [f"{lock.mode}", f"slot {lock.slot}", f"primary {lock.primary or 'none'}"]
    about += [f"{lock.permits} permits"] if lock.mode == "semaphore" else []
    head.append(line(", ".join(about), QUIET))
    if lock.commands and height >= _TALL:
        head.append(line(f"more: {lock.commands[0]}", QUIET))
    holders = _holders(lock, width)
    events = _events(lock, width) if height >= _TALL else []
    room = max(2, height - len(head) - len(holders) - len(events))
    return [*head, *holders, *_queue(lock, choice, width, room), *events][:height]


def _holders(lock: LockView, width: int) -> list[Text]:
    if not lock.holders:
        return []
    rows = [
        (
            each.owner,
            duration(each.held_s),
            f"{duration(each.renewed_s)} ago",
            duration(each.ttl_left_s),
            str(each.fencing_token),
            each.session,
        )
        for each in lock.holders[:_HOLDERS_MAX]
    ]
    more = lock.holder_count - len(rows)
    notes = [line(f"({count(more, 'more holder')})", QUIET)] if more > 0 else []
    return [*table(_HOLDERS, rows, [PLAIN] * len(rows), width), *notes]


def _queue(lock: LockView, choice: Choice, width: int, height: int) -> list[Text]:
    if not lock.waiters:
        return [line("(nothing waits for it)", QUIET)]
    first = min(choice.first_waiter, len(lock.waiters) - 1)
    rows = lock.waiters[first:]
    is_cut = first + max(1, height - 1) < lock.waiter_count
    rows = rows[: max(1, height - (2 if is_cut else 1))]
    texts = [
        (str(each.position), each.owner, each.mode, duration(each.waited_s), each.session) for each in rows
    ]
    notes = [line(f"(of {count(lock.waiter_count, 'waiter')})", QUIET)] if is_cut else []
    return [*table(_QUEUE, texts, [PLAIN] * len(texts), width), *notes]


def _events(lock: LockView, width: int) -> list[Text]:
    if not lock.events:
        return []
    shown_events = lock.events[:_EVENTS_MAX]
    rows = [(duration(each.age_s), each.text) for each in shown_events]
    return table(_EVENTS, rows, [OF_ROW[each.weight] for each in shown_events], width)
