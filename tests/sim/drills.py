"""Situations made for one rule each: with the rule all holds, without it a checker speaks up.

Random seeds reach them too, but rarely; see `mutants` for the rules.
"""

from __future__ import annotations

from tests.sim import (
    drills_clients,
    drills_coordinator,
    drills_copies,
    drills_groups,
    drills_modes,
    drills_rights,
)
from tests.sim.switches import DRILLS

__all__ = ["DRILLS"]

FILES = (drills_rights, drills_copies, drills_coordinator, drills_clients, drills_modes, drills_groups)
"""Where the drills are, by what their rules are about."""
