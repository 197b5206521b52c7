"""The demo's ledger: it takes writes under tokens that do not fall."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lockring.cli.demo.ledger import Entry, Ledger


def test_a_write_under_a_lower_token_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.read() == Entry()
    assert [ledger.write(token) for token in (5, 5, 4, 6, 5)] == [True, True, False, True, False]
    assert ledger.read() == Entry(token=6, writes=3, refused=2, writers=2)


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_it_takes_exactly_the_writes_that_are_not_below_the_highest(
    tmp_path_factory, tokens: list[int]
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger")
    highest = writes = 0
    for token in tokens:
        assert ledger.write(token) == (token >= highest)
        writes += token >= highest
        highest = max(highest, token)
    taken = [token for place, token in enumerate(tokens) if token >= max(tokens[:place], default=0)]
    assert ledger.read() == Entry(highest, writes, len(tokens) - writes, len(set(taken)))
