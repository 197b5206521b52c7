"""The last line of a node's log, and its exit code."""

from __future__ import annotations

import logging

import pytest

from lockring import exits
from lockring.core.effects import Depart, DepartureEnd
from lockring.server.departure import report_departure
from lockring.units import NS_PER_S

LAST_LINES = [
    (Depart(DepartureEnd.DRAINED), False, "the other nodes have what it had", exits.OK),
    (Depart(DepartureEnd.DRAINED), True, "it is the last one, and held no lock", exits.OK),
    (Depart(DepartureEnd.DRAINED, 3), True, "the 3 locks that were held here", exits.OK),
    (Depart(DepartureEnd.ONLY_SPARE_COPIES), False, "drained but for copies", exits.OK),
    (Depart(DepartureEnd.NOTHING_HERE), False, "it stops without the coordinator", exits.OK),
    (Depart(DepartureEnd.KEPT), True, "3 locks are kept in the data directory", exits.OK),
    (Depart(DepartureEnd.NEW_LIFE), False, "a new life of this node has nothing to hand over", exits.OK),
    (Depart(DepartureEnd.TIMED_OUT), False, "still serves 4 slots", exits.NOT_DRAINED),
    (
        Depart(DepartureEnd.COORDINATOR_AWAY, 0, 5 * NS_PER_S),
        False,
        "the coordinator has been away for 5 s; this node serves 4 slots",
        exits.NOT_DRAINED,
    ),
]


@pytest.mark.parametrize(
    ("depart", "is_last", "part", "code"), LAST_LINES, ids=[part for _, _, part, _ in LAST_LINES]
)
def test_a_node_says_why_it_stops_and_whether_it_is_drained(
    depart: Depart, is_last: bool, part: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lockring.node")
    assert report_departure(depart, left="serves 4 slots", locks=3, is_last=is_last) == code
    (line,) = caplog.messages
    assert part in line


def test_each_end_of_a_departure_has_a_line() -> None:
    assert {depart.end for depart, *_ in LAST_LINES} == set(DepartureEnd)


@pytest.mark.parametrize("end", [DepartureEnd.KEPT, DepartureEnd.TIMED_OUT, DepartureEnd.COORDINATOR_AWAY])
def test_a_journal_that_has_failed_is_named_where_locks_remain(
    end: DepartureEnd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lockring.node")
    report_departure(
        Depart(end), left="serves 4 slots", locks=3, is_last=True, journal_trouble="the disk is full"
    )
    ((_, level, line),) = caplog.record_tuples
    assert level == logging.WARNING
    assert "the disk is full" in line
    assert "3 locks are kept" not in line
