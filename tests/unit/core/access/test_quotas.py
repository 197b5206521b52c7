"""The use of one identity is bounded, and its requests have a rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.core.access import Limits, Quota
from lockring.errors import Overloaded
from lockring.units import NS_PER_MS, NS_PER_S


def test_without_limits_nothing_is_refused() -> None:
    quota = Quota("token web-1")
    for _ in range(1000):
        quota.add_session()
        quota.acquisitions += 2
        quota.waiters += 1
        quota.check_lock()
        quota.check_waiter()
        assert quota.take_request(0) == 0


def test_one_session_more_than_the_limit_is_refused_until_one_ends() -> None:
    quota = Quota("token web-1", Limits(sessions=2))
    quota.add_session()
    quota.add_session()
    with pytest.raises(Overloaded, match=r"token web-1 has 2 sessions at this server, and may have 2"):
        quota.add_session()
    quota.drop_session()
    quota.add_session()
    assert quota.sessions == 2


def test_locks_are_the_acquisitions_that_do_not_wait() -> None:
    quota = Quota("token web-1", Limits(locks=2, waiters=3))
    quota.acquisitions, quota.waiters = 4, 3
    quota.check_lock()
    with pytest.raises(Overloaded, match="token web-1 has 3 waiting requests"):
        quota.check_waiter()
    quota.acquisitions, quota.waiters = 4, 2
    quota.check_waiter()
    with pytest.raises(Overloaded, match="token web-1 has 2 locks"):
        quota.check_lock()


def test_lower_limits_take_nothing_away() -> None:
    quota = Quota("x", Limits(locks=3))
    quota.acquisitions = 3
    quota.limits = Limits(locks=1)
    with pytest.raises(Overloaded):
        quota.check_lock()
    assert quota.acquisitions == 3


def test_a_burst_of_one_second_passes_and_then_one_request_at_a_time() -> None:
    quota = Quota("x", Limits(requests_per_s=10))
    assert [quota.take_request(0) for _ in range(10)] == [0] * 10
    wait_ns = quota.take_request(0)
    assert wait_ns == NS_PER_S // 10
    assert quota.take_request(wait_ns - 1) == 1
    assert quota.take_request(wait_ns) == 0
    assert quota.take_request(wait_ns) == NS_PER_S // 10


def test_a_throttled_request_says_when_to_come_again() -> None:
    quota = Quota("token web-1", Limits(requests_per_s=1))
    quota.check_request(0)
    with pytest.raises(Overloaded) as caught:
        quota.check_request(250 * NS_PER_MS)
    assert caught.value.retry_after_s == 0.75
    assert "token web-1 may send 1 requests per second" in str(caught.value)


@given(
    st.integers(1, 1000),
    st.lists(st.integers(0, NS_PER_S), min_size=1, max_size=300),
)
def test_the_rate_is_kept_but_for_one_burst_and_a_wait_is_exact(rate: int, pauses: list[int]) -> None:
    quota = Quota("x", Limits(requests_per_s=rate))
    now_ns, taken = 0, []
    for pause_ns in pauses:
        now_ns += pause_ns
        wait_ns = quota.take_request(now_ns)
        if wait_ns:
            assert wait_ns <= NS_PER_S
            assert quota.take_request(now_ns + wait_ns - 1) == 1
            now_ns += wait_ns
            assert quota.take_request(now_ns) == 0
        taken.append(now_ns)
    span_s = (taken[-1] - taken[0]) / NS_PER_S
    assert len(taken) <= rate * (span_s + 1) * 1.001 + 1
