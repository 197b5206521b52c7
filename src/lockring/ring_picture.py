"""A picture of the circle's owners: as plain data (`picture`), and drawn for a terminal (`draw`).

The circle is drawn unrolled, in four rows. Each cell is a run of neighbouring slots and bears the letter of the
member that is primary of most of them. A legend lists the members.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise
from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState
from lockring.ids import NodeId
from lockring.slots import SLOTS

ROWS: Final = 4
WIDTH_MIN: Final = 8
WIDTH_MAX: Final = SLOTS // ROWS
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
"""Letters for the members, in their order; reused from the start if there are more members."""

_MARGIN: Final = 7
"""Columns before the cells of a row: the number of its first slot."""

_COLOURS: Final = (
    75,
    114,
    221,
    209,
    176,
    80,
    180,
    147,
    71,
    203,
    110,
    150,
    222,
    175,
    44,
    137,
    105,
    185,
    167,
    247,
)
"""Backgrounds for the members, bright enough for black letters; reused if there are more members."""

_NUMBERS: Final = frozenset({2, 3, 4, 5})
"""Columns of the legend that are right-aligned."""

_LEAVING: Final = (7, 5, 6, 4, 3)
"""Columns of the legend that are dropped, in this order, if the width does not suffice."""

VACANT: Final = "."
"""Sign for slots without a primary."""


class LegendRow(NamedTuple):
    """One member in the legend.

    Attributes:
        letter: its sign in the cells.
        node: its id.
        primary: number of slots that it is primary of.
        share: the same as a fraction of all slots, 0 to 1.
        backup: number of slots that it has the backup of.
        weight: its share relative to the others.
        condition: "joining", "active" or "draining".
        address: HOST:PORT.
    """

    letter: str
    node: NodeId
    primary: int
    share: float
    backup: int
    weight: int
    condition: str
    address: str


class Picture(NamedTuple):
    """The owners of the circle; `str()` of it is the text without colour.

    Attributes:
        rows: for each row and cell, the index in `legend` of the member that has most of the cell's slots; None if
            most are vacant. All rows have the same number of cells, and each row covers an equal share of the slots.
        legend: the members, in the natural order of their ids (n2 before n10).
        vacant: number of slots whose primary is not a member in its present life, or that have none.
        single: number of slots with a primary but without such a backup.
        moving: number of slots with a copy that is catching up.
    """

    rows: tuple[tuple[int | None, ...], ...]
    legend: tuple[LegendRow, ...]
    vacant: int
    single: int
    moving: int

    def letter(self, cell: int | None) -> str:
        """Return the sign for a cell's owner."""
        return VACANT if cell is None else self.legend[cell].letter

    def table(self) -> list[tuple[str, ...]]:
        """Return the legend as rows of text, headings first; the columns are not yet aligned."""
        return [
            ("", "node", "slots", "share", "backups", "weight", "condition", "address"),
            *[
                (
                    row.letter,
                    row.node,
                    str(row.primary),
                    f"{row.share:.1%}",
                    str(row.backup),
                    str(row.weight),
                    row.condition,
                    row.address,
                )
                for row in self.legend
            ],
        ]

    def remarks(self) -> list[str]:
        """Return sentences on what is wrong or under way, none if all is well."""
        remarks: list[str] = []
        if not self.legend:
            remarks.append("The cluster has no members.")
        if self.vacant:
            remarks.append(f"{_slots(self.vacant)} without a primary ({VACANT}).")
        if self.single:
            remarks.append(f"{_slots(self.single)} without a backup.")
        if self.moving:
            remarks.append(f"{_slots(self.moving)} being copied.")
        return remarks

    def __str__(self) -> str:
        return self.text(colour=False)

    def text(self, *, colour: bool, width: int | None = None) -> str:
        """Return the picture as lines of text.

        Args:
            colour: whether to use the escape sequences of a 256-colour terminal.
            width: columns that the legend may take; it drops the least important ones. None for all of it.
        """
        slots_per_row = SLOTS // len(self.rows)
        lines = [
            f"{number * slots_per_row:>{_MARGIN - 2}}  {self._drawn(row, colour=colour)}"
            for number, row in enumerate(self.rows)
        ]
        if self.legend:
            heading, *rows = self._legend(width)
            if colour:
                rows = [_painted(row[0], place) + row[1:] for place, row in enumerate(rows)]
            lines += ["", heading, *rows]
        remarks = self.remarks()
        if remarks:
            lines += ["", *remarks]
        return "\n".join(lines)

    def _legend(self, width: int | None) -> list[str]:
        table = self.table()
        columns = list(range(len(table[0])))
        for leaving in _LEAVING:
            lines = _columns_of(table, columns)
            if width is None or max(map(len, lines)) <= width:
                return lines
            columns.remove(leaving)
        return _columns_of(table, columns)

    def _drawn(self, row: tuple[int | None, ...], *, colour: bool) -> str:
        drawn: list[str] = []
        for owner, cells in groupby(row):
            text = self.letter(owner) * len(list(cells))
            drawn.append(_painted(text, owner) if colour and owner is not None else text)
        return "".join(drawn)


def picture(state: ClusterState, width: int) -> Picture:
    """Return the owners of the circle at present.

    Args:
        state: the cluster state to draw.
        width: cells per row, brought within `WIDTH_MIN` to `WIDTH_MAX`.
    """
    width = max(WIDTH_MIN, min(WIDTH_MAX, width))
    members = sorted(state.members.values(), key=lambda member: _natural(member.replica.node))
    number = {member.replica: place for place, member in enumerate(members)}
    owners: list[int | None] = []
    backups = [0] * len(members)
    single = moving = 0
    for slot in state.slots:
        owner = None if slot.primary is None else number.get(slot.primary)
        backup = None if slot.backup is None else number.get(slot.backup.replica)
        owners.append(owner)
        if backup is not None:
            backups[backup] += 1
        elif owner is not None:
            single += 1
        moving += slot.learner is not None
    primaries = Counter(owners)
    legend = [
        LegendRow(
            letter=LETTERS[place % len(LETTERS)],
            node=member.replica.node,
            primary=primaries[place],
            share=primaries[place] / SLOTS,
            backup=backups[place],
            weight=member.weight,
            condition=member.condition,
            address=member.address,
        )
        for place, member in enumerate(members)
    ]
    cells = width * ROWS
    bounds = [cell * SLOTS // cells for cell in range(cells + 1)]
    drawn = [_most(owners[start:end]) for start, end in pairwise(bounds)]
    return Picture(
        rows=tuple([tuple(drawn[row * width : (row + 1) * width]) for row in range(ROWS)]),
        legend=tuple(legend),
        vacant=primaries[None],
        single=single,
        moving=moving,
    )


def draw(state: ClusterState, *, width: int, colour: bool = False) -> str:
    """Draw the owners of the circle as text, without a line end after the last line.

    Args:
        state: the cluster state to draw.
        width: columns that it may take; node ids are never shortened.
        colour: whether to colour it, for a terminal of 256 colours.
    """
    return picture(state, width - _MARGIN).text(colour=colour, width=width)


def _painted(text: str, owner: int) -> str:
    return f"\x1b[38;5;16;48;5;{_COLOURS[owner % len(_COLOURS)]}m{text}\x1b[0m"


def _most(owners: list[int | None]) -> int | None:
    """Return the most frequent owner, the first of those if there are several."""
    counted: dict[int | None, int] = {}
    for owner in owners:
        counted[owner] = counted.get(owner, 0) + 1
    return max(counted, key=counted.__getitem__)


def _natural(node: str) -> list[tuple[int, str]]:
    """Return a key that sorts the numbers within ids by value."""
    parts = [(is_number, "".join(letters)) for is_number, letters in groupby(node, str.isdecimal)]
    return [(int(part), "") if is_number else (-1, part) for is_number, part in parts]


def _columns_of(table: list[tuple[str, ...]], columns: list[int]) -> list[str]:
    numbers = tuple([place for place, column in enumerate(columns) if column in _NUMBERS])
    return _aligned([tuple([row[column] for column in columns]) for row in table], numbers=numbers)


def _aligned(table: list[tuple[str, ...]], *, numbers: tuple[int, ...]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            [
                text.rjust(width) if column in numbers else text.ljust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ]
        ).rstrip()
        for line in table
    ]


def _slots(count: int) -> str:
    return "1 slot is" if count == 1 else f"{count} slots are"
