"""A run becomes tables, and these a part of a page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.beside import FLOOR
from bench.figures import Spread
from bench.peers import PEERS
from bench.report import (
    COLUMNS,
    PARTS,
    TITLES,
    Column,
    NoMarkers,
    cell,
    insert,
    number,
    tables,
    write,
)
from bench.workloads.table import WORKLOADS
from tests.unit.bench.canned import measurement, results

FIGURES = PARTS[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567.8, "1,234,568"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.6, "0.60"),
        (0.0123, "0.012"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_a_cell_has_the_range_only_where_there_were_several_rounds() -> None:
    column = Column("ms", "median_us", 1e-3, has_range=True)
    assert cell(Spread(2000, 1000, 3000, 3), column) == "2.00 (1.00–3.00)"
    assert cell(Spread(2000, 2000, 2000, 1), column) == "2.00"
    assert cell(None, column) == "–"


def test_peers_stand_beside_lockring_with_their_ratio_to_it_in_the_same_order_always() -> None:
    text = tables(
        results(
            measurement(peer=FLOOR, median_us=10.0),
            measurement(peer="redis", median_us=150.0),
            measurement(peer="lockring", median_us=100.0),
        )
    )
    ours, theirs = (line for line in text.splitlines() if line.startswith(("| lockring,", "| redis-py")))
    assert ours == "| lockring, one node | 100 | 10.0 | – |"
    assert theirs == "| redis-py `Lock` | 150 | 15.0 | 1.50 |"
    assert text.index(ours) < text.index(theirs)


def test_every_table_has_a_cell_for_every_column() -> None:
    run = results(
        *(
            measurement(workload, variant, peer, figures={column.name: 1.0 for column in COLUMNS[workload]})
            for workload, kind in WORKLOADS.items()
            for variant, peers in kind.peers.items()
            for peer in peers
        )
    )
    rows: list[int] = []
    for line in tables(run).splitlines():
        if not line.startswith("|"):
            assert len(set(rows)) <= 1
            rows.clear()
        else:
            rows.append(line.count("|"))


def test_notes_and_omissions_are_printed() -> None:
    text = tables(
        results(
            measurement("many", "100,000", "etcd", note="stopped early", held=7.0), left_out=("Redis: no.",)
        )
    )
    assert "- etcd: stopped early." in text
    assert "- Redis: no." in text


def test_there_are_columns_for_every_workload_and_a_title_for_every_peer() -> None:
    assert set(COLUMNS) == set(WORKLOADS)
    assert set(PEERS) <= set(TITLES)


BEGIN, END = FIGURES.begin, FIGURES.end


def test_figures_replace_those_that_stood_between_the_markers_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = insert(page, FIGURES, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert insert(once, FIGURES, "new") == once


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END} {BEGIN}"])
def test_a_page_without_a_place_for_figures_is_refused(page: str) -> None:
    with pytest.raises(NoMarkers):
        insert(page, FIGURES, "new")


def test_a_page_shows_the_picture_above_the_figures_if_there_is_one(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}{END}")
    run = results(measurement(median_us=1.0))
    write(run, page, picture="page.png")
    assert "](page.png)" in page.read_text()
    write(run, page)
    assert "page.png" not in page.read_text()
    assert tables(run) in page.read_text()


def test_a_part_that_was_not_measured_is_neither_shown_nor_replaced(tmp_path: Path) -> None:
    durable = results(measurement("durability", "32", "lockring", median_us=10.0))
    assert "durability, 32 overlapping" in tables(durable)
    assert "one blocking client" not in tables(durable)
    others = results(measurement(median_us=1.0))
    assert "durability" not in tables(others)
    page = tmp_path / "page.md"
    page.write_text("".join(f"{part.begin}old{part.end}\n" for part in PARTS))
    write(durable, page)
    first, second = (part.begin for part in PARTS)
    assert f"{first}old" in page.read_text() and f"{second}old" not in page.read_text()


def test_the_disk_is_named_where_durability_was_measured() -> None:
    run = results(measurement("durability", "32", "lockring", median_us=10.0), measurement(median_us=1.0))
    on_disk = msgspec.structs.replace(
        run, environment=msgspec.structs.replace(run.environment, disk="ext4 on /dev/vda")
    )
    assert tables(on_disk).count("The servers' files: ext4 on /dev/vda.") == 1
    assert "servers' files" not in tables(run)
