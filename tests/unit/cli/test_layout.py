"""How tables and sentences are fitted to a width."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.cli.layout import Column, cells, lay_out, shortened, wrapped
from lockring.cli.ls import _COLUMNS

TOKEN = "1795644956564914"
ROW = ["backups/of/the/warehouse/" + "x" * 60, "root@web-17.example.org:47110", "exclusive", TOKEN]
ROW += ["3 min 5 s", "8.25 s", "12", "node-1"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 200, 400])
def test_a_table_of_locks_fits_and_keeps_tokens_whole(width: int) -> None:
    table = lay_out(_COLUMNS, [ROW], width)
    assert all(cells(line) <= width for line in table.lines)
    assert TOKEN in table.lines[1]
    for column, text in zip(_COLUMNS, ROW, strict=True):
        if not column.least and column.heading not in table.left_out:
            assert text in table.lines[1], "what is not a name is whole or not there"


def test_columns_leave_by_their_importance() -> None:
    left_out = [lay_out(_COLUMNS, [ROW], width).left_out for width in range(400, 30, -1)]
    for wider, narrower in itertools.pairwise(left_out):
        assert set(wider) <= set(narrower)
    assert left_out[0] == []
    assert set(left_out[-1]) >= {"PRIMARY", "HELD FOR", "WAITERS", "TTL LEFT", "MODE"}
    assert not {"NAME", "TOKEN"} & set(left_out[-1])


def test_without_a_width_everything_is_there() -> None:
    table = lay_out(_COLUMNS, [ROW], None)
    assert table.left_out == []
    assert all(text in table.lines[1] for text in ROW)


def test_wide_characters_count_as_the_cells_that_they_take() -> None:
    columns = (Column("NAME", least=8), Column("TOKEN", True))
    table = lay_out(columns, [["倉庫の鍵", "7"], ["ab", "8"]], None)
    assert [cells(line) for line in table.lines] == [15, 15, 15]
    narrow = lay_out(columns, [["倉庫" * 20, "7"]], 30)
    assert cells(narrow.lines[1]) <= 30
    assert narrow.lines[1].endswith("7")


@given(st.text(max_size=40), st.integers(min_value=1, max_value=30))
def test_a_shortened_text_fits_and_keeps_both_of_its_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert cells(short) <= max(width, 1)
    if cells(text) <= width:
        assert short == text
    else:
        head, _, tail = short.partition("…")
        assert "…" in short
        assert text.startswith(head) or "…" in text
        assert text.endswith(tail) or "…" in text


def test_a_sentence_is_broken_at_blanks_only() -> None:
    sentence = f"2026-11-23T16:32:13.142+00:00  held by root@web1:4711 (token {TOKEN}), 1 waiter"
    lines = wrapped(sentence, 40)
    assert all(cells(line) <= 40 for line in lines)
    assert " ".join(lines).split() == sentence.split()
    assert wrapped(sentence, None) == wrapped(sentence, 200) == [sentence]


def test_a_word_that_is_longer_than_a_line_stays_whole() -> None:
    assert wrapped(f"token {'9' * 50} is it", 40) == ["token", "  " + "9" * 50, "  is it"]
