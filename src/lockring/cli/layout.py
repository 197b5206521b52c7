"""Fits text to the width of a terminal, counted in its cells: tables, and sentences over several lines.

Values that people copy (tokens, times, modes) are never broken: less important columns are dropped first, and names,
whose ends tell most, are shortened in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

GAP: Final = 2
"""Blanks between two columns."""

COMFORT: Final = 24
"""Number of cells to which a column is shortened before another column is dropped for it."""

ELLIPSIS: Final = "…"


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        heading: its name.
        is_number: whether it is right-aligned.
        least: cells to which its texts may be shortened in the middle, 0 if they must stay whole.
        leaves: its turn to be dropped if the width does not suffice: 1 goes first, 0 stays.
    """

    heading: str
    is_number: bool = False
    least: int = 0
    leaves: int = 0


class Table(NamedTuple):
    """A table that fits.

    Attributes:
        lines: the headings, then the rows.
        left_out: the headings of the dropped columns.
    """

    lines: list[str]
    left_out: list[str]


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # slow to load, and rarely needed

    return cell_len(text)


def shortened(text: str, width: int) -> str:
    """Return a text in at most `width` cells, 1 or more: without its middle if it is longer."""
    if cells(text) <= width:
        return text
    room = width - 1
    head, tail = _start(text, room - room // 2), _end(text, room // 2)
    return f"{head}{ELLIPSIS}{tail}"


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Table:
    """Lay a table out.

    Args:
        columns: of the table.
        rows: of as many texts each.
        width: cells of a line, None for as many as it takes.
    """
    kept = list(range(len(columns)))
    needed = [
        max([cells(column.heading), *(cells(row[number]) for row in rows)])
        for number, column in enumerate(columns)
    ]
    wide = needed[:]
    if width is not None:
        _shrink(columns, kept, wide, width, COMFORT)
        leaving = sorted(
            (each for each in kept if columns[each].leaves), key=lambda each: columns[each].leaves
        )
        for each in leaving:
            if _total(kept, wide) <= width:
                break
            kept.remove(each)
        wide = needed[:]
        _shrink(columns, kept, wide, width, 0)
    lines = []
    for texts in ([column.heading for column in columns], *rows):
        parts = [_fitted(texts[each], wide[each], columns[each].is_number) for each in kept]
        lines.append((" " * GAP).join(parts).rstrip())
    left_out = [column.heading for number, column in enumerate(columns) if number not in kept]
    return Table(lines, left_out)


def wrapped(text: str, width: int | None, *, hang: str = "  ") -> list[str]:
    """Break a sentence into lines, at blanks only.

    Args:
        text: one line of text; blanks at its start stay.
        width: cells of a line, None for one line of any length.
        hang: prefix of the second and later lines.
    """
    if width is None or cells(text) <= width:
        return [text]
    start = text[: len(text) - len(text.lstrip(" "))]
    lines, line = [], ""
    for word in text.split():
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else f"{start if not lines else start + hang}{word}"
    return [*lines, line]


def _total(kept: Sequence[int], wide: Sequence[int]) -> int:
    return sum(wide[each] for each in kept) + GAP * (len(kept) - 1)


def _shrink(columns: Sequence[Column], kept: Sequence[int], wide: list[int], width: int, floor: int) -> None:
    """Shorten the widest of the columns that may be shortened, as long as the table is too wide."""
    least = {
        each: max(columns[each].least, cells(columns[each].heading), floor)
        for each in kept
        if columns[each].least
    }
    while _total(kept, wide) > width:
        widest = max(
            (each for each in least if wide[each] > least[each]), key=lambda each: wide[each], default=None
        )
        if widest is None:
            return
        wide[widest] -= 1


def _fitted(text: str, width: int, is_number: bool) -> str:
    text = shortened(text, width)
    blanks = " " * (width - cells(text))
    return blanks + text if is_number else text + blanks


def _start(text: str, width: int) -> str:
    end = taken = 0
    while end < len(text) and (taken := taken + cells(text[end])) <= width:
        end += 1
    return text[:end]


def _end(text: str, width: int) -> str:
    return _start(text[::-1], width)[::-1]
