"""The clocks of the shells. No core reads a clock: shells read one here and pass it in.

Monotonic time counts time spent suspended (`CLOCK_BOOTTIME`), so that a laptop or a virtual machine
that slept does not wake up believing in leases that ended meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Read several times for each request: a partial has no frame of its own.
monotonic_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic_ns
)
"""Nanoseconds on a clock that never goes back and, where the system can, counts suspension; local to the machine."""


wall_ns: Callable[[], int] = time.time_ns
"""Nanoseconds since 1970 by the wall clock, which may jump; good for labels and versions only."""


def boot_id() -> str:
    """Which boot of this machine it is: instants of `monotonic_ns` mean the same in all its processes. "" where that is unknown."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        with contextlib.suppress(
            OSError
        ):  # another system, or no /proc: then nothing is known, which is a valid answer
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
