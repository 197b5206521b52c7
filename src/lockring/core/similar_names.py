"""Names that are like another name: as a person means it who has mistyped one."""

from __future__ import annotations

from typing import Final

EDITS_MAX: Final = 3
"""Letters by which a long name may differ; a short one by fewer."""
_LETTERS_PER_EDIT: Final = 4
_SEPARATORS: Final = str.maketrans(dict.fromkeys("-_./:+ ", "-"))
_NO_MATCH: Final = EDITS_MAX + 1


class NamePattern:
    """A name with which others are compared, one after the other, without looking at most of them closely."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain = _plain(name)
        self._edits = min(EDITS_MAX, max(1, len(name) // _LETTERS_PER_EDIT))

    def distance(self, other: str) -> int | None:
        """Return how unlike another name is, None if it is not alike; 0 if only case and separators differ.

        One that continues the name, or that it continues, behind a separator is alike too. The name itself is not.
        """
        if other == self._name:
            return None
        difference = len(other) - len(self._name)
        if -self._edits <= difference <= self._edits:
            plain = _plain(other)
            if plain == self._plain:
                return 0
            found = edits(self._plain, plain, self._edits)
            if found <= self._edits:
                return found
        if difference > 0:
            return _NO_MATCH if _continues(self._name, other) else None
        return _NO_MATCH if _continues(other, self._name) else None


def _plain(name: str) -> str:
    return name.casefold().translate(_SEPARATORS)


def _continues(short: str, long: str) -> bool:
    return len(short) > 1 and long.startswith(short) and long[len(short)].translate(_SEPARATORS) == "-"


def edits(one: str, other: str, limit: int) -> int:
    """Return how many letters must be put in, taken out, replaced or swapped with their neighbours, up to a limit.

    Args:
        one: a text.
        other: another one.
        limit: any greater number is given as one more than this.
    """
    start = 0
    while start < len(one) and start < len(other) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    end = 0
    while end < len(one) and end < len(other) and one[-1 - end] == other[-1 - end]:
        end += 1
    one_end, other_end = len(one) - end, len(other) - end
    one, other = one[:one_end], other[:other_end]
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    # Three rows of the usual table; only its columns near the diagonal can stay within the limit.
    above: list[int] = []
    last = list(range(len(other) + 1))
    for number, letter in enumerate(one, start=1):
        row = [number] + [limit + 1] * len(other)
        for column in range(max(1, number - limit), min(len(other), number + limit) + 1):
            replaced = last[column - 1] + (0 if other[column - 1] == letter else 1)
            best = min(last[column] + 1, row[column - 1] + 1, replaced)
            if (
                number > 1
                and column > 1
                and letter == other[column - 2]
                and one[number - 2] == other[column - 1]
            ):
                best = min(best, above[column - 2] + 1)
            row[column] = best
        if min(row) > limit:
            return limit + 1
        above, last = last, row
    return min(last[-1], limit + 1)
