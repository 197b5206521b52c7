"""The coordinator as a machine without I/O: members, slots, and the term in which it may decide."""

from __future__ import annotations

from lockring.core.coordinator.candidate import CandidateCore
from lockring.core.coordinator.core import CoordinatorCore
from lockring.core.coordinator.status import CoordinatorStatus
from lockring.core.coordinator.store_health import StoreNews
from lockring.core.coordinator.store_operations import OPERATION_TIMEOUT_NS, SILENT
from lockring.core.coordinator.transitions import VERSION_MAX, check_state, forgotten

__all__ = [
    "OPERATION_TIMEOUT_NS",
    "SILENT",
    "VERSION_MAX",
    "CandidateCore",
    "CoordinatorCore",
    "CoordinatorStatus",
    "StoreNews",
    "check_state",
    "forgotten",
]
