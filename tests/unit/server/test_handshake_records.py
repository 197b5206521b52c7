"""Records of the audit log on TLS handshakes that failed: all are counted, and few are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockring.security.audit import AuditLog
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.handshake_records import REASONS_MAX, HandshakeRecords
from lockring.units import NS_PER_MS, NS_PER_S

WRONG = "its certificate is refused: unable to get local issuer certificate"
NOW_NS = 5 * NS_PER_S


class Book:
    """The records of a server, and the file in which they are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._audit = AuditLog(str(path), server="n1")
        self.records = HandshakeRecords(self._audit)

    def note(self, at_ns: int, reason: str = WRONG, *, port: str = "lock port", source: int = 1) -> None:
        self.records.note(port, f"10.0.0.7:{source}", reason, now_ns=at_ns)

    def lines(self) -> list[dict[str, Any]]:
        self.records.close()
        assert self._audit.close()
        return [json.loads(line) for line in self._path.read_text().splitlines()]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "audit.log")


def test_a_failed_handshake_is_an_act_denied_with_its_origin_and_its_reason(book: Book) -> None:
    book.note(NOW_NS)
    (line,) = book.lines()
    del line["at"]
    assert line == {
        "server": "n1",
        "act": "denied",
        "from": "10.0.0.7:1",
        "outcome": "refused",
        "reason": f"a TLS handshake at the lock port failed: {WRONG}",
    }


def test_a_crowd_of_one_reason_has_one_record_a_second_and_none_of_it_is_uncounted(book: Book) -> None:
    for number in range(10_000):
        at_ns = NOW_NS + number * NS_PER_MS // 4  # for two and a half seconds
        book.note(at_ns, source=number)
        book.records.look(at_ns)
    found = book.lines()
    assert [each["from"].rpartition(":")[2] for each in found] == ["0", "4000", "8000", "9999"]
    assert sum(1 + each.get("left_out", 0) for each in found) == 10_000


def test_the_last_of_a_crowd_are_recorded_a_second_later_though_no_more_come(book: Book) -> None:
    for number in range(5):
        book.note(NOW_NS, source=number)
    book.records.look(NOW_NS + NS_PER_S - 1)
    book.records.look(NOW_NS + NS_PER_S)
    book.records.look(NOW_NS + 2 * NS_PER_S)
    assert [(each["from"], each.get("left_out", 0)) for each in book.lines()] == [
        ("10.0.0.7:0", 0),
        ("10.0.0.7:4", 3),
    ]


def test_each_port_and_each_reason_has_records_of_its_own(book: Book) -> None:
    for port in ("lock port", "gRPC port"):
        for reason in (WRONG, "it has shown no certificate"):
            book.note(NOW_NS, reason, port=port)
    assert len({each["reason"] for each in book.lines()}) == 4


def test_invented_reasons_share_a_record_a_second_and_make_room_once_they_are_quiet(book: Book) -> None:
    for number in range(1_000):
        book.note(NOW_NS, f"invented {number}")
    book.records.look(NOW_NS + NS_PER_S)
    book.records.look(NOW_NS + 3 * NS_PER_S)
    book.note(NOW_NS + 4 * NS_PER_S)
    found = book.lines()
    assert len(found) == REASONS_MAX + 3, (
        "those with their own, two for all others, and the one that came later"
    )
    assert sum(1 + each.get("left_out", 0) for each in found) == 1_001


@pytest.mark.parametrize("end", [AccessGate.look, lambda gate: None])
def test_a_server_that_checks_no_rights_records_them_at_its_looks_and_at_its_end(
    tmp_path: Path, end: Callable[[AccessGate], None]
) -> None:
    path = tmp_path / "audit.log"
    gate = AccessGate(AccessSettings(audit_log=str(path)), server="n1")
    report = gate.handshakes_at("HTTP port")
    assert report is not None
    for _ in range(3):
        report("10.0.0.7:1", WRONG)
    end(gate)
    gate.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert {each["act"] for each in found} == {"denied"}
    assert sum(1 + each.get("left_out", 0) for each in found) == 3


def test_a_server_without_an_audit_log_records_none() -> None:
    assert AccessGate(OPEN, server="n1").handshakes_at("lock port") is None
