"""The picture of a cluster as lines of text, for a terminal of any size. Pure functions, no I/O.

The first line says how the cluster is, or for how long it has not answered. The least important rows go first where
there is no room. No line is wider than the terminal, and no character of a name can act on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rich.style import Style
from rich.text import Text

from lockring.cli.layout import Column, cells, wrapped
from lockring.cli.top.choice import Choice, place_of
from lockring.cli.top.lock_page import lock_lines
from lockring.cli.top.model import Away, CoordinatorView, TopView, ordered
from lockring.cli.top.parts import (
    BAD,
    OF_HEALTH,
    OF_ROW,
    PLAIN,
    QUIET,
    SELECTED,
    WARN,
    fitted,
    joined,
    line,
    table,
)
from lockring.errors import LockringError
from lockring.terminals import shown
from lockring.views.cluster import ClusterView
from lockring.views.locks import LockRow
from lockring.views.words import count, duration

_REMARKS_MAX: Final = 3
_EVENTS_MAX: Final = 5
_SILENCE_S_MIN: Final = 0.5
"""A silence is found by a look, and may be older: its first moments are no news."""
_MARK, _NO_MARK = "> ", "  "

_MEMBERS: Final = (
    Column("NODE", least=6),
    Column("CONDITION", leaves=4),
    Column("PRIMARY", True),
    Column("SERVES", True, leaves=6),
    Column("BACKUP", True, leaves=3),
    Column("LOCKS", True, leaves=9),
    Column("WAITERS", True, leaves=8),
    Column("SESSIONS", True, leaves=2),
    Column("LAG", True, leaves=7),
    Column("LEASE LEFT", True, leaves=5),
    Column("AWAY", True, leaves=1),
)
_LOCKS: Final = (
    Column("NAME", least=8),
    Column("HOLDER", least=8, leaves=5),
    Column("HELD FOR", True, leaves=4),
    Column("WAITERS", True, leaves=6),
    Column("WAITED", True, leaves=2),
    Column("TOKEN", True, leaves=3),
    Column("PRIMARY", leaves=1),
)
_EVENTS: Final = (Column("AGO", True), Column("EVENT", least=10))

_HELP: Final = (
    ("q", "quit"),
    ("up, down", "select a lock; k and j do the same; also page up, page down, home, end"),
    ("Enter", "show the queue of the selected lock; Enter or Escape goes back"),
    ("/", "show the locks whose names begin with a text; Escape shows all"),
    ("s", "sort by waiters, by the age of the holder, or by name"),
    ("space", "pause, go on"),
    ("Ctrl-L", "draw the screen again"),
    ("?", "this help"),
)
_KEYS: Final = {
    "locks": "q quit  / search  s sort  Enter queue  space pause  ? help",
    "lock": "q quit  Esc back  up/down scroll  space pause  ? help",
    "help": "q quit  Esc back",
}


class Sight(NamedTuple):
    """All that a picture is made of, besides the viewer's choice.

    Attributes:
        view: the cluster.
        errors: why parts of it are missing, by the name of the part.
        no_answer: the reason for which no node answers, None if one does.
        no_answer_since_s: since when, by the monotonic clock.
        away: the servers that do not answer.
        is_first: whether nothing has been answered yet.
        now_s: the time, by the monotonic clock.
    """

    view: TopView = TopView()
    errors: Sequence[tuple[str, LockringError]] = ()
    no_answer: LockringError | None = None
    no_answer_since_s: float = 0.0
    away: Sequence[Away] = ()
    is_first: bool = False
    now_s: float = 0.0


def picture(sight: Sight, choice: Choice, *, width: int, height: int) -> list[Text]:
    """Return the lines of a screen.

    Args:
        sight: the cluster.
        choice: the viewer's choice.
        width: cells of a line, 1 or more.
        height: most lines, 1 or more.
    """
    head = [first_line(sight, choice)]
    if choice.page == "help":
        body = _help(width)
    elif choice.page == "lock":
        room = max(1, height - 2)
        body = lock_lines(sight.view.lock, choice, _errors_of(sight), width=width, height=room)
    else:
        head += _about_cluster(sight, width, max(3, height // 5))
        head = head[: max(1, height - 4)]
        body = _tables(sight, choice, width, height - len(head) - 1)
    if sight.no_answer is not None:
        body = [Text(each.plain, QUIET) for each in body]
    foot = _foot(choice, width)
    lines = [*head, *body]
    if height == 1:
        return [fitted(lines[0], width)]
    blanks = [Text()] * max(0, height - 1 - len(lines))
    return [fitted(each, width) for each in (*lines[: height - 1], *blanks, foot)]


def whole_picture(sight: Sight, choice: Choice, *, width: int | None) -> list[Text]:
    """Return the lines of a picture that need not fit a screen.

    Args:
        sight: the cluster.
        choice: the viewer's choice.
        width: cells of a line, None for as many as it takes.
    """
    wide = width or 10_000
    lines = [first_line(sight, choice), *_about_cluster(sight, wide, None)]
    lines += _tables(sight, choice, wide, None)
    return [fitted(each, wide) for each in lines]


def first_line(sight: Sight, choice: Choice) -> Text:
    """Return how the cluster is, in one sentence, with for how long something has been missing."""
    paused = (
        "" if choice.paused_at_s is None else f"PAUSED for {duration(sight.now_s - choice.paused_at_s)}. "
    )
    if sight.no_answer is not None:
        since = duration(sight.now_s - sight.no_answer_since_s)
        return line(f"{paused}NO ANSWER for {since}: {sight.no_answer}", BAD)
    if sight.is_first:
        return line("Looking for the cluster…", QUIET)
    if sight.away:
        texts = [_about_silence(each, sight.now_s) for each in sight.away]
        return line(paused + _capital("; ".join(texts)) + ".", BAD)
    cluster = sight.view.cluster
    if cluster is None:
        return line(f"{paused}The cluster's state cannot be shown.", WARN)
    text, health = cluster.summary, cluster.health
    if sight.view.coordinator is not None and sight.view.coordinator.store_problem:
        text, health = f"The coordinator's store does not work. {text}", "bad"
    return line(paused + text, OF_HEALTH[health])


def _about_silence(away: Away, now_s: float) -> str:
    silent_s = now_s - away.since_s
    if silent_s < _SILENCE_S_MIN:
        return f"{away.server} does not answer"
    return f"{away.server} has not answered for {duration(silent_s)}"


def _about_cluster(sight: Sight, width: int, facts_max: int | None) -> list[Text]:
    """Return the facts of a cluster, in so many lines at most, and the remarks on it."""
    cluster = sight.view.cluster
    lines: list[Text] = []
    if cluster is not None:
        lines += [line(each) for each in joined(_facts(cluster, sight.view.coordinator), width)[:facts_max]]
    remarks = [f"{_capital(part)} cannot be shown: {error}" for part, error in _missing(sight)]
    if sight.no_answer is not None:
        remarks.append(str(sight.no_answer))
    remarks += [each.reason for each in sight.away if each.server.startswith("coordinator")]
    if sight.view.coordinator is not None and sight.view.coordinator.store_problem:
        remarks.append(f"Store: {sight.view.coordinator.store_problem}")
    remarks += cluster.remarks if cluster is not None else []
    more = len(remarks) - _REMARKS_MAX
    for each in remarks[:_REMARKS_MAX]:
        lines += [line(part, WARN) for part in wrapped(shown(each), width)]
    if more > 0:
        lines.append(line(f"({count(more, 'more remark')}: lockring status shows all)", QUIET))
    return lines


def _missing(sight: Sight) -> Iterable[tuple[str, LockringError]]:
    """Return the parts that are missing though nodes answer."""
    return () if sight.no_answer is not None else sight.errors


def _errors_of(sight: Sight) -> dict[str, LockringError]:
    return dict(sight.errors)


def _facts(cluster: ClusterView, coordinator: CoordinatorView | None) -> list[str]:
    served = sum(each.serving_slots or 0 for each in cluster.members)
    facts = [
        f"{min(served, cluster.slots):,} of {count(cluster.slots, 'slot')} served",
        f"{cluster.vacant_slots:,} without primary",
        f"{cluster.single_slots:,} without backup",
    ]
    if coordinator is not None:
        facts.append(f"leader {coordinator.address or 'unknown'}")
    facts += [
        f"{each.source} to {each.target}: {count(each.slots, 'slot')} on the way" for each in cluster.moves
    ]
    if coordinator is not None and coordinator.answers:
        names = ", ".join(coordinator.standbys)
        facts.append(f"standby {names}" if names else "no standby")
        facts.append(f"store {coordinator.store}" if coordinator.store else "no store")
    elif coordinator is not None:
        facts.append("standbys and store unknown")
    facts += [
        count(cluster.locks, "lock"),
        count(cluster.waiters, "waiter"),
        count(cluster.sessions, "session"),
    ]
    return [shown(each) for each in facts]


def _tables(sight: Sight, choice: Choice, width: int, height: int | None) -> list[Text]:
    """Return members, locks and events, in at most `height` lines; None for as many as there are."""
    members = _members(sight.view, width)
    events = _events(sight.view, width)
    gap = [Text()] if height is None or height >= 16 else []
    if height is not None:
        members = _cut(members, max(4, height // 3), "member")
        events = events[: min(_EVENTS_MAX + 1, height // 4)]
        events = events if len(events) > 1 else []
    fixed = len(members) + len(events) + len(gap) * (bool(members) + bool(events))
    locks = _locks(sight.view, choice, width, None if height is None else max(2, height - fixed))
    blocks = [each for each in (members, locks, events) if each]
    lines: list[Text] = []
    for block in blocks:
        lines += (gap if lines else []) + block
    return lines if height is None else lines[: max(0, height)]


def _cut(rows: list[Text], most: int, noun: str) -> list[Text]:
    """Return a table in at most so many lines; the last one then says how many rows are missing."""
    if len(rows) <= most:
        return rows
    missing = len(rows) - (most - 1)
    return [*rows[: most - 1], line(f"({count(missing, f'more {noun}')})", QUIET)]


def _members(view: TopView, width: int) -> list[Text]:
    if view.cluster is None:
        return []
    rows = [
        (
            each.node,
            each.condition,
            f"{each.primary_slots:,}",
            _number(each.serving_slots),
            f"{each.backup_slots:,}",
            _number(each.locks),
            _number(each.waiters),
            _number(each.sessions),
            "no answer" if each.answered_s is None else f"{each.answered_s * 1000:,.0f} ms",
            _duration(each.lease_left_s),
            _duration(each.away_s),
        )
        for each in view.cluster.members
    ]
    styles = [OF_ROW[each.health] for each in view.cluster.members]
    return table(_MEMBERS, rows, styles, width)


def _locks(view: TopView, choice: Choice, width: int, height: int | None) -> list[Text]:
    """Return the locks around the selected one, in `height` lines."""
    found = view.locks
    if found is None:
        return []
    rows = ordered(found.rows, choice.sort)
    if not rows:
        which = f"no lock whose name begins with '{choice.prefix}'" if choice.prefix else "no lock"
        return [line(f"({which} is held or waited for)", QUIET)]
    here = place_of(choice, [each.name for each in rows])
    notes = [line(f"({text})", QUIET) for text in _about_slice(view)]
    is_list = height is not None
    first, last = 0, len(rows)
    if height is not None:
        room = max(1, height - 1 - len(notes))
        first = max(0, min(here - room // 2, len(rows) - room))
        last = first + room
    styles = [SELECTED if is_list and number == here else _style_of(each) for number, each in enumerate(rows)]
    texts = [
        (
            (_MARK if number == here else _NO_MARK) + each.name if is_list else each.name,
            _holder(each),
            "" if each.holder is None else duration(each.holder.held_s),
            f"{each.waiters:,}" if each.waiters else "",
            _duration(each.longest_wait_s),
            "" if each.holder is None else str(each.holder.fencing_token),
            each.primary,
        )
        for number, each in enumerate(rows)
    ]
    columns = (_LOCKS[0]._replace(heading=_NO_MARK + "NAME"), *_LOCKS[1:]) if is_list else _LOCKS
    return [*table(columns, texts[first:last], styles[first:last], width), *notes]


def _about_slice(view: TopView) -> list[str]:
    found = view.locks
    if found is None:
        return []
    notes = []
    if found.has_more:
        total = "" if found.matched is None else f" of {found.matched:,}"
        notes.append(f"the first by name, {len(found.rows):,}{total}; / shows others")
    if found.unserved_slots:
        notes.append(f"the locks of {count(found.unserved_slots, 'slot')} that no node serves are missing")
    return notes


def _holder(row: LockRow) -> str:
    if row.holder is None:
        return "(free)"
    others = f" +{row.holders - 1}" if row.holders > 1 else ""
    return row.holder.owner + others


def _style_of(row: LockRow) -> Style:
    return WARN if row.waiters else PLAIN


def _events(view: TopView, width: int) -> list[Text]:
    if not view.events:
        return []
    rows = [(duration(each.age_s), each.text) for each in view.events]
    styles = [OF_ROW[each.weight] for each in view.events]
    return table(_EVENTS, rows, styles, width)


def _help(width: int) -> list[Text]:
    lines = [Text()]
    for key, meaning in _HELP:
        lines += [line(each) for each in wrapped(f"{key}: {meaning}", width)]
    about = (
        "WAITERS counts requests that wait for a lock, WAITED is how long the first of them has waited, TOKEN is the"
        " fencing token of the holder. LAG is how long a node took to answer, and AWAY how long it has been without the"
        " coordinator."
    )
    return [*lines, Text(), *(line(each, QUIET) for each in wrapped(about, width, hang=""))]


def _foot(choice: Choice, width: int) -> Text:
    if choice.page == "search":
        if choice.fault:
            return fitted(line(choice.fault, BAD), width)
        typed = f"/{shown(choice.typed)}"
        while cells(typed) >= width and len(typed) > 1:
            typed = typed[1:]  # the end is where one types
        return Text(typed + "_")
    text = _KEYS[choice.page]
    if choice.page == "locks":
        chosen = f"by {choice.sort}" + (f", '{shown(choice.prefix)}…'" if choice.prefix else "")
        text = f"{text}  [{chosen}]" if cells(text) + cells(chosen) + 4 <= width else f"[{chosen}]  {text}"
    return Text(text, QUIET)


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
