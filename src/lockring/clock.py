"""The clocks of the shells. No core reads a clock: shells read one here and pass it in.

Monotonic time counts time spent suspended (`CLOCK_BOOTTIME`), so that a laptop or a virtual machine
that slept does not wake up believing in leases that ended meanwhile.
"""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def monotonic_ns() -> int:
        """Nanoseconds on a clock that never goes back and counts suspension; local to the machine."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:

    def monotonic_ns() -> int:
        """Nanoseconds on a clock that never goes back; local to the machine."""
        return time.monotonic_ns()


def wall_ns() -> int:
    """Nanoseconds since 1970 by the wall clock, which may jump; good for labels and versions only."""
    return time.time_ns()
