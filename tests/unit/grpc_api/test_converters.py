"""Requests of gRPC clients are checked before they have any effect."""

from __future__ import annotations

import pytest

from lockring.core.node.validation import SESSION_BYTES_MAX
from lockring.errors import InvalidRequest
from lockring.grpc_api.acquire_call import lease_ms
from lockring.grpc_api.converters import generation_of, listed_of, lock_of, wanted_of, wire_session
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.protocol import HolderRecord, LockRecord, Mode, WaiterRecord
from lockring.units import NS_PER_MS

TTL_MS_MAX = 30_000


def request(**fields: object) -> pb.LockRequest:
    values: dict[str, object] = {"name": "x", "session": "s", "idempotency_key": "k"} | fields
    return pb.LockRequest(**values)  # type: ignore[arg-type]


def test_what_is_left_out_has_its_default() -> None:
    wanted = wanted_of(request(), ttl_ms_max=TTL_MS_MAX)
    assert (wanted.ttl_ms, wanted.wait_ms, wanted.waited_ms) == (10_000, None, 0)
    assert (wanted.mode, wanted.permits, wanted.owner) == (Mode.EXCLUSIVE, 1, "")
    assert wanted_of(request(), ttl_ms_max=4_000).ttl_ms == 4_000


def test_no_wait_is_another_thing_than_a_wait_without_end() -> None:
    assert wanted_of(request(wait_ms=0), ttl_ms_max=TTL_MS_MAX).wait_ms == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x" * 1025},
        {"session": ""},
        {"session": "a b"},
        {"session": "s" * 65},
        {"idempotency_key": ""},
        {"idempotency_key": "a/b"},
        {"idempotency_key": "k" * 51},
        {"ttl_ms": 99},
        {"ttl_ms": -1},
        {"ttl_ms": TTL_MS_MAX + 1},
        {"owner": "o" * 257},
        {"wait_ms": -1},
        {"wait_ms": 2**62},
        {"waited_ms": -1},
        {"mode": 77},
        {"permits": 2**32 - 1},
        {"payload": b"x" * 1025},
    ],
)
def test_what_is_not_of_its_form_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        wanted_of(request(**fields), ttl_ms_max=TTL_MS_MAX)


def test_sessions_of_the_longest_form_fit_the_wire() -> None:
    assert len(wire_session("s" * 64, "k" * 50, "x")) <= SESSION_BYTES_MAX


def test_a_key_means_something_for_one_lock_only() -> None:
    assert wire_session("s", "k", "x") == wire_session("s", "k", "x") != wire_session("s", "k", "y")


def test_a_keepalive_of_too_many_locks_or_a_wrong_one_is_refused() -> None:
    one = pb.HeldLock(name="x", session="s", idempotency_key="k")
    assert len(listed_of(pb.KeepAliveRequest(locks=[one] * 1000), ttl_ms_max=TTL_MS_MAX)) == 1000
    for locks in ([one] * 1001, [pb.HeldLock(name="x", session="s")]):
        with pytest.raises(InvalidRequest):
            listed_of(pb.KeepAliveRequest(locks=locks), ttl_ms_max=TTL_MS_MAX)


@pytest.mark.parametrize("number", [0, 2**53])
def test_a_token_that_cannot_be_is_refused(number: int) -> None:
    with pytest.raises(InvalidRequest):
        generation_of(number)


def test_a_long_queue_is_counted_and_not_told_whole() -> None:
    holders = [HolderRecord("o", f"s/{number}/abc", 1, 9, 1, 2, 3) for number in range(150)]
    waiters = [WaiterRecord("o", "other", 1, 5)] * 250
    lock = LockRecord("x", 7, "N1", Mode.SHARED, 1, 9, 4, holders, waiters)
    found = lock_of(lock)
    assert (found.holder_count, len(found.holders), found.waiter_count, len(found.waiters)) == (
        150,
        100,
        250,
        100,
    )
    assert (found.holders[1].session, found.holders[1].idempotency_key) == ("s", "1")
    assert (found.waiters[0].session, found.waiters[0].idempotency_key) == ("other", "")
    in_list = lock_of(lock, in_list=True)
    assert (len(in_list.holders), len(in_list.waiters)) == (10, 0)


def test_a_lease_counts_what_the_wait_took_by_the_slowest_clock() -> None:
    arrived_ns = 5_000 * NS_PER_MS
    deadline_ns = arrived_ns + 12_100 * NS_PER_MS
    assert lease_ms(deadline_ns, arrived_ns, arrived_ns) == 12_100
    assert lease_ms(deadline_ns, arrived_ns, arrived_ns + 2_100 * NS_PER_MS) == 12_000


def test_a_lease_that_is_over_when_the_answer_leaves_never_counts_below_nothing() -> None:
    assert lease_ms(0, 0, 2_100 * NS_PER_MS) == 0
