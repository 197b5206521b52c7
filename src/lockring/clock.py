"""The clocks. Cores read none: their shells read one here and pass the time in.

Monotonic time includes time spent suspended (`CLOCK_BOOTTIME`). Otherwise a laptop or a virtual machine would wake
from sleep and still trust leases that ended in the meantime.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial

# Called several times per request: a partial costs no Python frame.
monotonic_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic_ns
)
"""Return nanoseconds on a clock that never goes back and, if possible, counts suspension. Local to the machine."""


wall_ns: Callable[[], int] = time.time_ns
"""Return nanoseconds since 1970 by the wall clock, which may jump: for labels and versions only."""


def boot_id() -> str:
    """Return the id of this machine's current boot, "" if unknown.

    Within one boot, an instant of `monotonic_ns` means the same in every process of the machine.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        # Without /proc the id is unknown, which is a valid answer.
        # `open`, since every client imports this module, and `pathlib` would be its only use: several milliseconds.
        with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    return ""
