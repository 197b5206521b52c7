"""Conversions between units of time.

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
"""Longest duration that is accepted: ten years, which keeps every sum within 64 bits."""

DURATION_MS_MAX: Final = int(DURATION_S_MAX) * 1000
"""The same in milliseconds, for durations from the wire."""

_MS: Final = timedelta(milliseconds=1)


def ms_to_ns(duration_ms: int) -> int:
    """Convert milliseconds to nanoseconds."""
    return duration_ms * NS_PER_MS


def ns_to_ms_floor(duration_ns: int) -> int:
    """Convert nanoseconds to whole milliseconds, rounded down: a promise never becomes longer on the way."""
    return max(0, duration_ns) // NS_PER_MS


def seconds_to_ns(duration_s: float) -> int:
    """Convert seconds to the nearest nanosecond, so that 0.1, which has no exact binary form, stays 100 ms."""
    return round(duration_s * NS_PER_S)


def seconds_to_ms(value: object, what: str) -> int:
    """Convert a caller's seconds to whole milliseconds, rounded up.

    Rounded up from the decimal number that was written: 16.1 is 16,100 ms, though as a binary fraction times 1000
        it is a little more.

    Args:
        value: seconds as a number, or a `timedelta`; finite, and from zero to ten years.
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
        raise InvalidRequest(f"{what} must be a number of seconds or a timedelta, got {value!r}")
    if not 0 <= value <= DURATION_S_MAX:  # also true of NaN
        raise InvalidRequest(f"{what} must be between 0 and {DURATION_S_MAX:.0f} s, got {value!r}")
    scaled = value * 1000
    nearest = round(scaled)
    # Division rounds to the last bit: if it leads back to `value`, that was written with at most three decimals.
    return nearest if nearest / 1000 == value else math.ceil(scaled)
