"""The rules of one verb, compiled: one binary search finds the rule that decides about a name.

Names are ordered by their code points. A prefix stands for one interval of that order, and so does a single name. Two
such intervals are nested or have nothing in common. So the rules cut the order into pieces, each decided by one rule,
and a name's piece is found by a search among the cuts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from lockring.core.access.rules import Rule

_LAST: Final = "\U0010ffff"


class NameTable:
    """The rules of one verb. Immutable, so that threads may share it.

    Args:
        rules: all of one verb; of two about the same names, the earlier one is named.

    Attributes:
        cuts: the first name of each piece but the first, in order.
        rules: the rule that decides in each piece, None where none matches.
        allowed: whether that rule allows, in the same order.
    """

    __slots__ = ("allowed", "cuts", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.cuts: list[str] = []
        self.rules: list[Rule | None] = [None]
        for cut, rule in _pieces(rules):
            if cut and rule is not self.rules[-1]:
                self.cuts.append(cut)
                self.rules.append(rule)
            elif not cut:
                self.rules[0] = rule
        self.allowed = [rule is not None and not rule.denies for rule in self.rules]

    def allows(self, name: str) -> bool:
        """Return whether a name is allowed."""
        return self.allowed[bisect_right(self.cuts, name)]

    def rule_for(self, name: str) -> Rule | None:
        """Return the rule that decides about a name, None if no rule matches."""
        return self.rules[bisect_right(self.cuts, name)]

    def allows_some(self, prefix: str) -> bool:
        """Return whether some name with this prefix is allowed; a look at a list begins with that."""
        return any(self._allowed_with(prefix))

    def allows_all(self, prefix: str) -> bool:
        """Return whether every name with this prefix is allowed, so that a list of them needs no filter."""
        return all(self._allowed_with(prefix))

    def _allowed_with(self, prefix: str) -> list[bool]:
        end = end_of_prefix(prefix)
        last = len(self.cuts) if end is None else bisect_left(self.cuts, end)
        return self.allowed[bisect_right(self.cuts, prefix) : last + 1]


class _Piece(NamedTuple):
    """An interval of names that a pattern stands for: its end, None for never, and the rule that decides in it."""

    end: str | None
    rule: Rule | None


def _pieces(rules: Iterable[Rule]) -> list[tuple[str, Rule | None]]:
    """Return the pieces in order: the first name of each, and the rule that decides there."""
    # A prefix before the single name that it equals: outer intervals come before those inside of them.
    ordered = sorted(enumerate(rules), key=lambda each: (each[1].pattern, not each[1].is_prefix, each[0]))
    pieces: list[tuple[str, Rule | None]] = [("", None)]
    open_pieces: list[_Piece] = [_Piece(None, None)]

    def begin(cut: str, rule: Rule | None) -> None:
        if pieces[-1][0] == cut:
            pieces[-1] = (cut, rule)
        else:
            pieces.append((cut, rule))

    def close_before(cut: str | None) -> None:
        while (end := open_pieces[-1].end) is not None and (cut is None or end <= cut):
            open_pieces.pop()
            begin(end, open_pieces[-1].rule)

    for _, rule in ordered:
        close_before(rule.pattern)
        outer = open_pieces[-1].rule
        inner = _stronger(outer, rule)
        open_pieces.append(
            _Piece(end_of_prefix(rule.pattern) if rule.is_prefix else rule.pattern + "\0", inner)
        )
        begin(rule.pattern, inner)
    close_before(None)
    return pieces


def _stronger(outer: Rule | None, inner: Rule) -> Rule:
    """Return the rule that decides where both match: one that denies, or else the more specific one."""
    if outer is None:
        return inner
    if outer.denies and not inner.denies:
        return outer
    is_same = outer.denies == inner.denies and (outer.pattern, outer.is_prefix) == (
        inner.pattern,
        inner.is_prefix,
    )
    return outer if is_same else inner


def end_of_prefix(prefix: str) -> str | None:
    """Return the first name behind all that have this prefix, None if there is none."""
    stem = prefix.rstrip(_LAST)
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None
