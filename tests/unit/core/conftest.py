"""Parts of the coordinator that a few tests show to be covered: each of the others goes through all slots again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockring.core import state_history
from lockring.core.coordinator import invariants, reconciler_runs
from lockring.core.events import EventMemory
from lockring.core.farewells import Farewells
from tests.unit.untraced import untraced

MEASURED = ("test_reconciler", "test_slots", "test_events", "test_farewells", "test_state_differences")
"""Tests that lead through nearly all of these parts."""


@pytest.fixture(scope="module", autouse=True)
def all_slots_are_measured_by_few_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the other tests go through all slots without a trace."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.endswith(MEASURED):
            patch.setattr(reconciler_runs, "plan", untraced(reconciler_runs.plan))
            patch.setattr(invariants, "check_state", untraced(invariants.check_state))
            patch.setattr(state_history, "difference_of", untraced(state_history.difference_of))
            patch.setattr(EventMemory, "_compare_slots", untraced(EventMemory._compare_slots))
            patch.setattr(Farewells, "learn", untraced(Farewells.learn))
        yield
