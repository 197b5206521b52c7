"""The findings of the doctor, and the line for monitoring."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.cli import status as status_command
from lockring.cli.checkup import (
    TimedStatus,
    about_certificates_of,
    about_clock,
    about_http,
    about_no_http,
    about_rights,
    about_versions,
)
from lockring.cli.health import Health, ServerAnswer
from lockring.cli.http_ports import HttpAnswer, HttpLook
from lockring.cli.status import Look, faults, say_line
from lockring.protocol import CertificateInfo, ServerStatus
from lockring.protocol.infos import HTTP_OFF
from lockring.slots import SLOTS
from tests.unit.core.states import first_state

S = 1_000_000_000
DAY = 86_400


def looked(up_ms: int, at_ns: int, took_ns: int = 0, *, incarnation: int = 1) -> TimedStatus:
    status = ServerStatus("node", "a", incarnation, 7, up_ms=up_ms)  # type: ignore[arg-type]
    return TimedStatus(status, at_ns, at_ns + took_ns)


@pytest.mark.parametrize(
    ("up_ms", "took_ns", "level"),
    [
        (12_000, 0, "ok"),
        (12_015, 0, "ok"),  # 0.75 %
        (12_050, 0, "warn"),
        (11_950, 0, "warn"),
        (12_200, 0, "bad"),
        (11_800, 0, "bad"),
        (12_200, S // 5, "ok"),  # the answers took so long that nothing is proven
    ],
)
def test_the_rate_of_a_clock_is_judged_by_what_the_answers_prove(
    up_ms: int, took_ns: int, level: str
) -> None:
    found = about_clock("a", looked(10_000, S, took_ns), looked(up_ms, 3 * S, took_ns))
    assert found.level == level
    assert bool(found.advice) == (level != "ok")


def test_a_clock_that_cannot_be_compared_is_a_warning() -> None:
    assert about_clock("a", looked(-1, S), looked(-1, 3 * S)).text.startswith("its version does not say")
    restarted = about_clock("a", looked(50_000, S), looked(1_000, 3 * S, incarnation=2))
    assert (restarted.level, restarted.text) == ("warn", "it was started again meanwhile")


def test_versions_that_differ_are_named_with_their_servers() -> None:
    def runs(version: str) -> ServerStatus:
        return ServerStatus("node", "a", 1, 7, software=version)  # type: ignore[arg-type]

    assert about_versions({"a": runs("1.0"), "b": runs("1.0")}, "1.0").level == "ok"
    found = about_versions({"a": runs("1.0"), "b": runs("0.9"), "c": runs("")}, "1.0")
    assert found.level == "warn"
    assert "the servers run 0.9 on b; 1.0 on a; an unknown version on c" in found.text


@pytest.mark.parametrize(
    ("left_days", "level", "text"),
    [
        (30.5, "ok", "the certificate /n.pem for clients ends in 30 days"),
        (1.5, "warn", "the certificate /n.pem for clients ends in 1 day"),
        (-2, "bad", "the certificate /n.pem for clients ended 2 d ago"),
    ],
)
def test_certificates_are_judged_by_their_days(left_days: float, level: str, text: str) -> None:
    certificates = [
        CertificateInfo("clients", "/n.pem", int(1_000 * DAY + left_days * DAY)),
        CertificateInfo("peer", "b", 0),
    ]
    status = ServerStatus("node", "a", 1, 7, certificates=certificates)  # type: ignore[arg-type]
    (found,) = about_certificates_of("a", status, 1_000 * DAY)
    assert (found.level, found.text) == (level, text)


@pytest.mark.parametrize(
    ("live", "ready", "left_days", "level", "text"),
    [
        (200, 200, None, "ok", "h:1: /livez and /readyz answer in 30.0 ms"),
        (200, 200, 80.5, "ok", "h:1: /livez and /readyz answer in 30.0 ms; its certificate ends in 80 days"),
        (200, 200, 3, "warn", "h:1: /livez and /readyz answer in 30.0 ms; its certificate ends in 3 days"),
        (200, 503, None, "warn", "h:1: /readyz answers 503: [-] node slots: none"),
        (421, 503, None, "warn", "h:1: /livez answers 421, /readyz answers 503: [-] node slots: none"),
    ],
)
def test_an_http_port_is_judged_by_its_answers_and_its_certificate(
    live: int, ready: int, left_days: float | None, level: str, text: str
) -> None:
    ends_at_s = None if left_days is None else (1_000 + left_days) * DAY
    look = HttpLook(
        HttpAnswer(live, "live", 0.02, ends_at_s), HttpAnswer(ready, "[-] node slots: none", 0.03, ends_at_s)
    )
    found = about_http("s:1", "h:1", look, 1_000 * DAY)
    assert (found.level, found.check, found.subject, found.text) == (level, "HTTP port", "s:1", text)
    assert bool(found.advice) == (level == "warn")


@pytest.mark.parametrize(
    ("place", "part"),
    [("", "does not say"), (HTTP_OFF, "HTTP is off"), ("127.0.0.1:9701", "on that machine alone")],
)
def test_http_that_cannot_be_asked_is_a_warning_with_advice(place: str, part: str) -> None:
    found = about_no_http("10.0.0.1:9501", place)
    assert found.level == "warn"
    assert part in found.text
    assert found.advice


@pytest.mark.parametrize(
    ("rights", "identity", "level", "part"),
    [
        (None, "", "warn", "does not say"),
        (("read", "acquire"), "", "ok", "identities are not checked"),
        (("read", "acquire"), "token w", "ok", "you are token w, and may do this with 'x': read, acquire"),
        ((), "token w", "warn", "nothing"),
    ],
)
def test_rights_are_named(rights: tuple[str, ...] | None, identity: str, level: str, part: str) -> None:
    found = about_rights(rights, identity, "x")
    assert found.level == level
    assert part in found.text


def look(*names: str, **health: Any) -> Look:
    facts: dict[str, Any] = {
        "condition": "serving",
        "slots_served": SLOTS,
        "since_s": None,
        "reasons": [],
        "remarks": [],
        "lease_left_s": None,
    } | health
    return Look(first_state(*names), "", {}, ServerAnswer(None), None, Health(**facts), {})


def test_one_node_alone_without_backups_is_not_wrong_and_two_are() -> None:
    single = {"remarks": ["no backup"], "single": "no backup"}
    assert faults(look("a", **single)) == []
    assert faults(look("a", "b", **single)) == ["no backup"]
    assert faults(look("a", "b", reasons=["r"], remarks=["s"])) == ["r", "s"]
    assert faults(look("a", slots_served=5)) == [look("a", slots_served=5).health.heading]


def test_the_line_for_monitoring_is_one_line_with_one_bar(capsys: pytest.CaptureFixture[str]) -> None:
    say_line("LOCKRING WARNING - a | b\nc | slots=1")
    assert capsys.readouterr().out == "LOCKRING WARNING - a / b c | slots=1\n"
    say_line("LOCKRING CRITICAL - nothing answers")
    assert capsys.readouterr().out == "LOCKRING CRITICAL - nothing answers\n"
    assert status_command.status.name == "status"
