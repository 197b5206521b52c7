"""The picture is drawn from whatever was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.plot import PANELS, draw
from bench.workloads.table import WORKLOADS
from tests.unit.bench.canned import measurement, results


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="installed by `make bench`")
    path = tmp_path / "figures.png"
    run = results(
        measurement(median_us=10.0),
        measurement(round_=1, median_us=14.0),
        measurement(peer="redis", median_us=20.0),
        measurement("fight", "8", "redis", to_another_per_s=0.0),
    )
    assert draw(run, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_figures_there_is_no_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="installed by `make bench`")
    assert not draw(results(), tmp_path / "figures.png")
    assert list(tmp_path.iterdir()) == []


def test_every_panel_shows_something_that_is_measured() -> None:
    for panel in PANELS:
        assert panel.variant in WORKLOADS[panel.workload].peers
