"""Parts of the coordinator that a few tests show to be covered: each of the others goes through all slots again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockring.core.coordinator import invariants, reconciler_runs
from tests.unit.untraced import untraced

MEASURED = ("test_reconciler", "test_slots")
"""Tests that lead through nearly all of the plans and of the checks of states."""


@pytest.fixture(scope="module", autouse=True)
def all_slots_are_measured_by_few_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the other tests plan and check without a trace."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.module.__name__.endswith(MEASURED):
            patch.setattr(reconciler_runs, "plan", untraced(reconciler_runs.plan))
            patch.setattr(invariants, "check_state", untraced(invariants.check_state))
        yield
