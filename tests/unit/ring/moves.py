"""The differences between two rings, for tests."""

from __future__ import annotations

from typing import NamedTuple

from lockring.ring.hash_ring import HashRing


class Move(NamedTuple):
    """One role of one slot changing hands; None stands for no member."""

    slot: int
    before: str | None
    after: str | None


class Moves(NamedTuple):
    """All that differs.

    Attributes:
        primaries: the slots whose primary changes, ascending.
        backups: the slots whose backup changes, ascending.
    """

    primaries: tuple[Move, ...]
    backups: tuple[Move, ...]

    def __str__(self) -> str:
        return f"{len(self.primaries)} primaries and {len(self.backups)} backups move"


def moves(before: HashRing, after: HashRing) -> Moves:
    """Compare two rings slot by slot."""
    return Moves(
        _differing(before.primaries, after.primaries),
        _differing(before.backups, after.backups),
    )


def _differing(before: tuple[str | None, ...], after: tuple[str | None, ...]) -> tuple[Move, ...]:
    return tuple(
        [
            Move(slot, old, new)
            for slot, (old, new) in enumerate(zip(before, after, strict=True))
            if old != new
        ]
    )
