"""The one place that knows how durations are converted.

Cores count integer nanoseconds (`_ns`), the wire carries integer milliseconds (`_ms`), people write
seconds (`_s`, float or `timedelta`). Instants are local to one process and never leave it.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from lockring.errors import InvalidRequest

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000

DURATION_S_MAX: Final = 10 * 365 * 86_400.0
"""The longest wait that anything accepts: ten years, which keeps every sum within 64 bits."""

DURATION_MS_MAX: Final = int(DURATION_S_MAX) * 1000
"""The same in milliseconds, for what comes from the wire."""

_MS: Final = timedelta(milliseconds=1)


def ms_to_ns(duration_ms: int) -> int:
    """Turn milliseconds into nanoseconds."""
    return duration_ms * NS_PER_MS


def ns_to_ms_floor(duration_ns: int) -> int:
    """Turn nanoseconds into whole milliseconds, never promising more than there is."""
    return max(0, duration_ns) // NS_PER_MS


def seconds_to_ns(duration_s: float) -> int:
    """Turn seconds into the nearest nanosecond; what is no whole number of them in binary, such as 0.1, stays what was meant."""
    return round(duration_s * NS_PER_S)


def seconds_to_ms(value: float | timedelta, what: str) -> int:
    """Turn what a caller wrote, in seconds, into whole milliseconds, rounded up.

    Up from the number that was written: 16.1 is 16,100 ms, though as a binary fraction times 1000 it is a little more.

    Args:
        value: seconds as a number, or a `timedelta`; zero or more, finite, ten years at most.
        what: the argument's name, for the error.

    Raises:
        InvalidRequest: not a number, NaN, infinite, negative, or longer than ten years.
    """
    if isinstance(value, timedelta):
        whole_ms, rest = divmod(value, _MS)
        if 0 <= whole_ms <= DURATION_MS_MAX:
            return whole_ms + bool(rest)
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequest(f"{what} must be a number of seconds or a timedelta, not {value!r}")
    if not 0 <= value <= DURATION_S_MAX:  # also true of NaN
        raise InvalidRequest(f"{what} must be between 0 s and {DURATION_S_MAX:.0f} s, not {value!r}")
    scaled = value * 1000
    nearest = round(scaled)
    # Division is exact to the last bit: where it leads back, the number was written with three decimals at the most.
    return nearest if nearest / 1000 == value else math.ceil(scaled)
