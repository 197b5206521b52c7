"""When a coordinator's store counts as working, how long it is left alone, and what the log says of it."""

from __future__ import annotations

from lockring.core.coordinator.store_health import PAUSE_NS_MAX, PAUSE_NS_MIN, StoreHealth
from lockring.units import NS_PER_S

S = NS_PER_S


def told(health: StoreHealth) -> list[tuple[bool, str]]:
    return [(each.is_trouble, each.text) for each in health.take_news()]


def test_the_pause_doubles_up_to_a_bound_and_begins_small_again_after_a_write_that_worked() -> None:
    health = StoreHealth()
    assert health.pause_ns == 0
    pauses = [health.failed("full", is_write=True, now_ns=n * S) for n in range(8)]
    assert pauses == [PAUSE_NS_MIN << n for n in range(5)] + [PAUSE_NS_MAX] * 3
    health.worked(is_write=True, now_ns=8 * S)
    assert health.pause_ns == 0
    assert health.failed("full", is_write=True, now_ns=9 * S) == PAUSE_NS_MIN


def test_a_read_that_works_does_not_end_trouble_with_writes() -> None:
    health = StoreHealth()
    health.failed("full", is_write=True, now_ns=0)
    health.failed("full", is_write=True, now_ns=S)
    health.worked(is_write=False, now_ns=S)
    assert health.pause_ns == 2 * PAUSE_NS_MIN
    assert told(health) == [(True, "full")]
    health.worked(is_write=True, now_ns=90 * S)
    assert told(health) == [(False, "the store works again: a write has worked (2 failures in 90 s)")]


def test_a_read_that_works_ends_trouble_with_reads() -> None:
    health = StoreHealth()
    health.failed("unreadable", is_write=False, now_ns=0)
    health.worked(is_write=False, now_ns=2 * S)
    assert health.pause_ns == 0
    assert told(health) == [(True, "unreadable"), (False, "the store can be read again (1 failure in 2 s)")]


def test_trouble_that_lasts_is_logged_at_once_and_then_once_a_minute() -> None:
    health = StoreHealth()
    lines = []
    for second in range(181):
        health.failed("full", is_write=True, now_ns=second * S)
        lines += [(second, text) for _, text in told(health)]
    assert lines == [
        (0, "full"),
        (60, "full (61 failures in 60 s)"),
        (120, "full (121 failures in 120 s)"),
        (180, "full (181 failures in 180 s)"),
    ]


def test_another_reason_is_logged_at_once_and_reasons_that_alternate_fill_no_log() -> None:
    health = StoreHealth()
    for second in range(50):
        health.failed(f"reason {second % 3}", is_write=second % 2 == 0, now_ns=second * S)
    assert told(health) == [(True, f"reason {number}") for number in range(3)]
    for second in range(50):
        health.failed(f"always another: {second}", is_write=True, now_ns=second * S)
    assert len(told(health)) == 2


def test_a_refused_write_is_not_trouble_and_only_several_in_a_row_make_a_pause() -> None:
    health = StoreHealth()
    assert health.refused() == 0
    health.worked(is_write=False, now_ns=0)
    assert health.refused() == PAUSE_NS_MIN
    assert health.refused() == 2 * PAUSE_NS_MIN
    health.worked(is_write=True, now_ns=0)
    assert health.refused() == 0
    assert told(health) == []
