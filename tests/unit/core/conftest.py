"""Parts of the coordinator that are measured by their own tests alone: each of the others goes through all slots."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockring.core.coordinator import invariants, reconciler_runs
from tests.unit.untraced import untraced


@pytest.fixture(scope="session", autouse=True)
def slots_are_measured_by_their_own_tests() -> Iterator[None]:
    """Let `test_reconciler` alone, which calls both itself, show that plans and the checks of states are covered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconciler_runs, "plan", untraced(reconciler_runs.plan))
        patch.setattr(invariants, "check_state", untraced(invariants.check_state))
        yield
