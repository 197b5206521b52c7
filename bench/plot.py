"""The figures of a run as a picture: one panel for each workload that compares peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.figures import Summary
from bench.peers import OURS, PEERS
from bench.results import Results
from bench.workloads.base import ONE_CORE

_OURS: Final = "#1f5fa8"
_THEIRS: Final = "#b9b4aa"


class Panel(NamedTuple):
    """One part of the picture.

    Attributes:
        title: the heading.
        workload: the workload of the figures.
        variant: its variant.
        name: name of the figure.
        scale: the factor from figure to bar.
        format: format of the number beside a bar.
    """

    title: str
    workload: str
    variant: str
    name: str
    scale: float = 1.0
    format: str = "{:,.0f}"


PANELS: Final = (
    Panel(
        "One blocking client, one core:\nµs per acquire and release (less is better)",
        "single",
        ONE_CORE,
        "median_us",
    ),
    Panel("128 overlapping:\npairs per second (more is better)", "overlap", "128", "pairs_per_s"),
    Panel(
        "8 processes on one lock:\nhand-overs to another, per second (more is better)",
        "fight",
        "8",
        "to_another_per_s",
    ),
    Panel(
        title="Two processes taking turns:\nms from release to the other's grant (less is better)",
        workload="relay",
        variant="2",
        name="median_us",
        scale=1e-3,
        format="{:.2f}",
    ),
)


def draw(results: Results, path: Path) -> bool:
    """Write the picture as PNG.

    Returns:
        Whether there was anything to draw.
    """
    import matplotlib  # here, since tables alone do not need it

    matplotlib.use("Agg")
    from matplotlib import pyplot

    summary = Summary(results.measurements)
    panels = [panel for panel in PANELS if summary.peers(panel.workload, panel.variant)]
    if not panels:
        return False
    rows = (len(panels) + 1) // 2
    figure, axes = pyplot.subplots(rows, 2, figsize=(12, 3.1 * rows), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, panel, summary)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return True


def _panel(axis: Any, panel: Panel, summary: Summary) -> None:
    """Draw bars on a logarithmic scale, with the range of the rounds as whiskers."""
    bars = [
        (peer, found)
        for peer in PEERS
        if (found := summary.get(panel.workload, panel.variant, peer, panel.name)) is not None
        and found.low > 0
    ]
    bars.reverse()
    medians = [found.median * panel.scale for _, found in bars]
    whiskers = [
        [(found.median - found.low) * panel.scale for _, found in bars],
        [(found.high - found.median) * panel.scale for _, found in bars],
    ]
    axis.barh(
        [PEERS[peer].title.replace("`", "") for peer, _ in bars],
        medians,
        xerr=whiskers,
        color=[_OURS if peer in OURS else _THEIRS for peer, _ in bars],
        error_kw={"ecolor": "#444444", "elinewidth": 0.8, "capsize": 2},
    )
    axis.set_xscale("log")
    # A decade of room on the left keeps the shortest bar visible.
    axis.set_xlim(
        min((found.low for _, found in bars), default=1.0) * panel.scale / 10,
        max((found.high for _, found in bars), default=1.0) * panel.scale * 4,
    )
    for row, (_, found) in enumerate(bars):
        axis.annotate(
            panel.format.format(found.median * panel.scale),
            (found.high * panel.scale, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
