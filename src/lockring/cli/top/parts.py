"""The parts of pictures: lines, facts beside each other, and tables. Pure functions, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.style import Style
from rich.text import Text

from lockring.cli.layout import Column, cells, lay_out
from lockring.terminals import shown

PLAIN: Final = Style()
HEADING: Final = Style(bold=True)
SELECTED: Final = Style(reverse=True)
QUIET: Final = Style(dim=True)
WARN: Final = Style(color="yellow")
BAD: Final = Style(color="red", bold=True)

OF_HEALTH: Final[Mapping[str, Style]] = {"ok": Style(color="green"), "warn": WARN, "bad": BAD}
"""The style of a line that says how something is."""

OF_ROW: Final[Mapping[str, Style]] = {"ok": PLAIN, "warn": WARN, "bad": BAD}
"""The style of a row of a table: one that is well is not coloured."""

_SEPARATOR: Final = " · "


def line(text: str, style: Style = PLAIN) -> Text:
    """Return a line of text from elsewhere, made harmless."""
    return Text(shown(text), style)


def fitted(text: Text, width: int) -> Text:
    """Return a line in at most `width` cells: its end is cut off if it is longer."""
    if text.cell_len > width:
        text = text.copy()
        text.truncate(width, overflow="ellipsis")
    return text


def joined(parts: Sequence[str], width: int) -> list[str]:
    """Return short texts beside each other, on as many lines as it takes; none of them is broken."""
    lines: list[str] = []
    for each in parts:
        if lines and cells(lines[-1]) + len(_SEPARATOR) + cells(each) <= width:
            lines[-1] += _SEPARATOR + each
        else:
            lines.append(each)
    return lines


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Sequence[Style], width: int
) -> list[Text]:
    """Return a table with its headings, its texts made harmless.

    Args:
        columns: of the table.
        rows: of as many texts each.
        styles: of the rows.
        width: cells of a line.
    """
    heading, *lines = lay_out(columns, [[shown(cell) for cell in row] for row in rows], width).lines
    return [Text(heading, HEADING), *(Text(each, style) for each, style in zip(lines, styles, strict=True))]
