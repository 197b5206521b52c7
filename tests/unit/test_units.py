"""The one place that converts durations."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.errors import InvalidRequest
from lockring.units import (
    DURATION_S_MAX,
    NS_PER_MS,
    NS_PER_S,
    ms_to_ns,
    ns_to_ms_floor,
    seconds_to_ms,
    seconds_to_ns,
)


@given(st.integers(min_value=0, max_value=2**53))
def test_milliseconds_survive_the_way_to_nanoseconds_and_back(duration_ms: int) -> None:
    assert ns_to_ms_floor(ms_to_ns(duration_ms)) == duration_ms


@given(st.integers(min_value=-(2**63), max_value=2**63))
def test_nanoseconds_become_no_more_milliseconds_than_there_are(duration_ns: int) -> None:
    duration_ms = ns_to_ms_floor(duration_ns)
    assert duration_ms >= 0
    assert ms_to_ns(duration_ms) <= max(0, duration_ns) < ms_to_ns(duration_ms + 1)


def test_a_duration_that_is_over_is_zero_milliseconds() -> None:
    assert ns_to_ms_floor(-1) == 0
    assert ns_to_ms_floor(-5 * NS_PER_S) == 0
    assert ns_to_ms_floor(NS_PER_MS - 1) == 0


@pytest.mark.parametrize(
    ("seconds", "duration_ms"),
    [
        (0, 0),
        (1, 1000),
        (1.5, 1500),
        (0.0001, 1),
        (0.1, 100),
        (timedelta(milliseconds=2.5), 3),
        (DURATION_S_MAX, 315_360_000_000),
    ],
)
def test_seconds_become_milliseconds_rounded_up(seconds: float | timedelta, duration_ms: int) -> None:
    assert seconds_to_ms(seconds, "ttl") == duration_ms


@given(st.floats(min_value=0, max_value=DURATION_S_MAX))
def test_rounding_never_shortens_a_wait(seconds: float) -> None:
    assert seconds_to_ms(seconds, "timeout") >= math.floor(seconds * 1000)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        -1,
        -0.001,
        timedelta(seconds=-1),
        timedelta.max,
        DURATION_S_MAX + 1,
        10**400,
        True,
        False,
        "5",
        "",
        None,
        b"5",
        5j,
        [5],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_an_invalid_duration_is_refused_and_named(value: object) -> None:
    with pytest.raises(InvalidRequest, match="ttl must be"):
        seconds_to_ms(value, "ttl")  # type: ignore[arg-type]


@given(st.integers(min_value=0, max_value=int(DURATION_S_MAX) * 1000))
def test_a_number_with_three_decimals_is_the_milliseconds_that_were_written(duration_ms: int) -> None:
    text = f"{duration_ms // 1000}.{duration_ms % 1000:03}"
    assert seconds_to_ms(float(text), "ttl") == duration_ms


@given(st.decimals(min_value=0, max_value=10**6, places=6))
def test_a_number_with_more_decimals_is_rounded_up(written: Decimal) -> None:
    expected = int((written * 1000).to_integral_value(ROUND_CEILING))
    assert seconds_to_ms(float(written), "ttl") == expected


@given(st.integers(min_value=0, max_value=10**14))
def test_a_timedelta_is_rounded_up_from_its_microseconds(duration_us: int) -> None:
    assert seconds_to_ms(timedelta(microseconds=duration_us), "timeout") == -(-duration_us // 1000)


def test_sixteen_point_one_seconds_are_not_a_millisecond_more() -> None:
    assert 16.1 * 1000 > 16_100, "as a binary fraction"
    assert seconds_to_ms(16.1, "ttl") == 16_100


@given(st.integers(min_value=0, max_value=10**12))
def test_nanoseconds_are_those_that_were_written(duration_us: int) -> None:
    text = f"{duration_us // 10**6}.{duration_us % 10**6:06}"
    assert seconds_to_ns(float(text)) == duration_us * 1000
