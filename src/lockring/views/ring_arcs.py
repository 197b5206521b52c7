"""The ring as the arcs of a drawing: a band with the primaries, one with the backups, and one with the copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from lockring.cluster_state import ClusterState
from lockring.slots import SLOTS
from lockring.views.cluster import ClusterView

CELLS: Final = 256
"""Runs of neighbouring slots that have an arc of their own if their member differs."""

_SIZE: Final = 200.0
_BANDS: Final = {"primary": (96.0, 76.0), "backup": (72.0, 64.0), "moving": (60.0, 56.0)}
"""The outer and the inner radius of each band."""


@dataclass(frozen=True, slots=True)
class Arc:
    """A part of a band.

    Attributes:
        band: "primary", "backup" or "moving".
        path: its outline, as the `d` of an SVG path in a square of 200 units.
        colour: the number of its member's colour, -1 where there is no member.
        node: its member's id, "" where there is none.
    """

    band: str
    path: str
    colour: int
    node: str


def ring_arcs(state: ClusterState, view: ClusterView) -> list[Arc]:
    """Return the arcs of a cluster's ring. Each cell shows the member that has most of its slots."""
    colours = {each.node: each.colour for each in view.members}
    present = {member.replica for member in state.members.values()}
    width = SLOTS // CELLS
    bands: dict[str, list[str]] = {band: [] for band in _BANDS}
    for cell in range(CELLS):
        slots = state.slots[cell * width : (cell + 1) * width]
        bands["primary"].append(
            _most([slot.primary.node if slot.primary in present else "" for slot in slots if slot.primary])
        )
        copies = [slot.backup.replica for slot in slots if slot.backup is not None]
        bands["backup"].append(_most([each.node for each in copies if each in present]))
        learners = [slot.learner.replica.node for slot in slots if slot.learner is not None]
        bands["moving"].append(_most(learners))
    arcs: list[Arc] = []
    for band, nodes in bands.items():
        start = 0
        for node, cells in groupby(nodes):
            end = start + len(list(cells))
            if node or band == "primary":
                arcs.append(Arc(band, _sector(band, start, end), colours.get(node, -1), node))
            start = end
    return arcs


def _most(nodes: Sequence[str]) -> str:
    return max(set(nodes), key=lambda each: (nodes.count(each), each)) if nodes else ""


def _sector(band: str, start: int, end: int) -> str:
    outer, inner = _BANDS[band]
    if end - start == CELLS:  # an arc cannot end where it begins
        return _sector(band, 0, CELLS // 2) + _sector(band, CELLS // 2, CELLS)
    large = 1 if (end - start) * 2 > CELLS else 0
    (x1, y1), (x2, y2) = _point(outer, start), _point(outer, end)
    (x3, y3), (x4, y4) = _point(inner, end), _point(inner, start)
    return (
        f"M{x1:.2f} {y1:.2f}A{outer:g} {outer:g} 0 {large} 1 {x2:.2f} {y2:.2f}"
        f"L{x3:.2f} {y3:.2f}A{inner:g} {inner:g} 0 {large} 0 {x4:.2f} {y4:.2f}Z"
    )


def _point(radius: float, cell: int) -> tuple[float, float]:
    angle = 2 * math.pi * cell / CELLS
    return _SIZE / 2 + radius * math.sin(angle), _SIZE / 2 - radius * math.cos(angle)
