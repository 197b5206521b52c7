"""Measurements come back from their file as they were."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.results import failed, load, merged, save
from tests.unit.bench.canned import measurement, results


def test_a_run_that_was_saved_is_loaded_as_it_was(tmp_path: Path) -> None:
    run = results(
        measurement(slices=[{"at_s": 1.0, "median_us": 1.5}], note="a note", median_us=1.5),
        left_out=("nobody",),
    )
    path = tmp_path / "not yet there" / "run.json"
    save(run, path)
    assert load(path) == run
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"measurements": 7}')
    with pytest.raises(msgspec.DecodeError):
        load(path)


def test_of_runs_that_measured_the_same_the_last_one_counts_with_all_its_rounds() -> None:
    old = results(measurement(median_us=1.0), measurement(peer="redis", median_us=2.0), version="1")
    new = results(measurement(median_us=7.0), measurement(round_=1, median_us=8.0), version="2")
    both = merged([old, new])
    assert [(each.peer, each.values["median_us"]) for each in both.measurements] == [
        ("redis", 2.0),
        ("lockring", 7.0),
        ("lockring", 8.0),
    ]
    assert both.environment.versions == {"lockring": "2"}


def test_a_later_run_makes_up_for_a_measurement_that_has_failed_and_for_no_other() -> None:
    sentences = tuple(
        f"{failed('redis', 'single', variant)} 1: a reason" for variant in ("unpinned", "one core")
    )
    old = results(measurement(), left_out=sentences)
    new = results(measurement(peer="redis", variant="one core"), left_out=sentences)
    assert merged([old, new]).left_out == list(sentences), "the later run has failed too, in another round"
    again = results(measurement(peer="redis", variant="one core"))
    assert merged([old, again]).left_out == [sentences[0]]
    assert merged([again, old]).left_out == list(sentences)
