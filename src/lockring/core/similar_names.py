"""Names that are like another name: as a person means it who has mistyped one."""

from __future__ import annotations

from typing import Final, NamedTuple

EDITS_MAX: Final = 3
"""Letters by which a long name may differ; a short one by fewer."""
CLOSE_LOOK_MAX: Final = 256
"""Letters of the longest name whose edits are counted; longer ones are not typed by hand."""
_LETTERS_PER_EDIT: Final = 4
_SEPARATORS: Final = str.maketrans(dict.fromkeys("-_./:+ ", "-"))
_NO_MATCH: Final = EDITS_MAX + 1

# Effort, in places of the table of `edits`.
_EFFORT_OF_NAME: Final = 2
_LETTERS_PER_EFFORT: Final = 4


class Comparison(NamedTuple):
    """How unlike a name is, and the effort that it took to find out.

    Attributes:
        distance: see `NamePattern.distance`.
        effort: in places of a table of edits: one takes some 0.5 µs.
    """

    distance: int | None
    effort: int


_UNLIKE: Final = Comparison(None, _EFFORT_OF_NAME)


class NamePattern:
    """A name with which others are compared, one after the other, without looking at most of them closely."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain = _plain(name)
        self._edits = min(EDITS_MAX, max(1, len(name) // _LETTERS_PER_EDIT))
        self._pieces = _pieces(self._plain, self._edits)

    def distance(self, other: str) -> int | None:
        """Return how unlike another name is, None if it is not alike; 0 if only case and separators differ.

        One that continues the name, or that it continues, behind a separator is alike too. The name itself is not.
        """
        return self.compare(other).distance

    def compare(self, other: str) -> Comparison:
        """Return how unlike another name is, and the effort that it took.

        The effort is bounded by that for two names of `CLOSE_LOOK_MAX` letters, or for the letters of longer ones.
        """
        if other == self._name:
            return _UNLIKE
        difference = len(other) - len(self._name)
        effort = _EFFORT_OF_NAME
        if -self._edits <= difference <= self._edits:
            plain = _plain(other)
            effort += len(other) // (_LETTERS_PER_EFFORT if other.isascii() else 1)
            if plain == self._plain:
                return Comparison(0, effort)
            if max(len(plain), len(self._plain)) <= CLOSE_LOOK_MAX and self._has_a_piece_of(plain):
                found, places = _edits(self._plain, plain, self._edits)
                effort += places
                if found <= self._edits:
                    return Comparison(found, effort)
        short, long = (self._name, other) if difference > 0 else (other, self._name)
        if _continues(short, long):
            return Comparison(_NO_MATCH, effort)
        return _UNLIKE if effort == _EFFORT_OF_NAME else Comparison(None, effort)

    def _has_a_piece_of(self, plain: str) -> bool:
        return any(piece in plain for piece in self._pieces)


def _plain(name: str) -> str:
    return name.casefold().translate(_SEPARATORS)


def _pieces(plain: str, edits_max: int) -> list[str]:
    """Cut a name into one piece more than so many edits can touch: each touches one, or swaps the ends of two."""
    number, length = 2 * edits_max + 1, len(plain)
    return [plain[length * at // number : length * (at + 1) // number] for at in range(number)]


def _continues(short: str, long: str) -> bool:
    return (
        1 < len(short) < len(long)
        and long.startswith(short)
        and long[len(short)].translate(_SEPARATORS) == "-"
    )


def edits(one: str, other: str, limit: int) -> int:
    """Return how many letters must be put in, taken out, replaced or swapped with their neighbours, up to a limit.

    Args:
        one: a text.
        other: another one.
        limit: any greater number is given as one more than this.
    """
    return _edits(one, other, limit)[0]


def _edits(one: str, other: str, limit: int) -> tuple[int, int]:
    """Return the edits as `edits` does, and the effort."""
    start, most = 0, min(len(one), len(other))
    while start < most and one[start] == other[start]:
        start += 1
    end, most = 0, most - start
    while end < most and one[-1 - end] == other[-1 - end]:
        end += 1
    one_end, other_end = len(one) - end, len(other) - end
    one, other = one[start:one_end], other[start:other_end]
    effort = (start + end) // 2
    rows, columns = len(one), len(other)
    too_many = limit + 1
    if abs(rows - columns) > limit:
        return too_many, effort
    # Three rows of the usual table; only its places near the diagonal can stay within the limit, so a row has only
    # those: the place `at` of the row `number` is in the column `number - limit + at`.
    width = 2 * limit + 1
    above = [too_many] * width
    last = [max(0, at - limit) if at >= limit else too_many for at in range(width)]
    for number in range(1, rows + 1):
        letter = one[number - 1]
        row = [too_many] * width
        least = too_many
        for at in range(max(0, limit - number), min(width, columns - number + limit + 1)):
            column = number - limit + at
            if column == 0:
                best = number
            else:
                best = last[at] if other[column - 1] == letter else last[at] + 1
                if at + 1 < width and last[at + 1] + 1 < best:
                    best = last[at + 1] + 1
                if at > 0 and row[at - 1] + 1 < best:
                    best = row[at - 1] + 1
                if (
                    number > 1
                    and column > 1
                    and above[at] + 1 < best
                    and letter == other[column - 2]
                    and one[number - 2] == other[column - 1]
                ):
                    best = above[at] + 1
            row[at] = best
            if best < least:
                least = best
        effort += width
        if least > limit:
            return too_many, effort  # the row above has the limit at best, and a swap from there is one more
        above, last = last, row
    return min(last[columns - rows + limit], too_many), effort
