"""Durations, numbers and times in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400


def duration(seconds: float) -> str:
    """Return a duration for people, in at most two units: "0.4 s", "12 s", "3 min 5 s", "2 h 10 min", "4 d 3 h"."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return _two(whole, _MINUTE_S, "min", 1, "s")
    if whole < _DAY_S:
        return _two(whole, _HOUR_S, "h", _MINUTE_S, "min")
    return _two(whole, _DAY_S, "d", _HOUR_S, "h")


def _two(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = whole % large // small
    return f"{whole // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 waiter", "1,200 waiters"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clock_time(wall_s: float, age_s: float = 0.0) -> str:
    """Return the time `age_s` before `wall_s` (seconds since 1970) as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(wall_s - age_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
