"""The audit log: one line per act, and a server that never waits for it."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lockring.errors import ConfigError
from lockring.protocol.identities import Claim, Identity
from lockring.security import audit
from lockring.security.audit import AuditLog

WEB = Identity("token", "web-1", (Claim("x", "secret-claim"),))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_act_is_a_line_with_who_how_where_and_what(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path), server="n1")
    log.write(
        "acquire", "ok", identity=WEB, origin="10.0.0.7:51234", name="jobs/7", fencing_token=7, right="acquire",
        rule="acquire jobs/*",
    )  # fmt: skip
    log.write("denied", "refused", origin="10.0.0.9:1", via="n2", reason="no\nnewline")
    assert log.close()
    acquired, denied = lines(path)
    at = acquired.pop("at")
    assert at[10] == "T"
    assert at.endswith("Z")
    assert len(at) == 24
    assert acquired == {
        "server": "n1",
        "act": "acquire",
        "who": "web-1",
        "how": "token",
        "from": "10.0.0.7:51234",
        "name": "jobs/7",
        "fencing_token": 7,
        "right": "acquire",
        "outcome": "ok",
        "rule": "acquire jobs/*",
    }
    assert {key: denied[key] for key in denied if key != "at"} == {
        "server": "n1",
        "act": "denied",
        "from": "10.0.0.9:1",
        "via": "n2",
        "outcome": "refused",
        "reason": "no\nnewline",
    }
    assert "secret-claim" not in path.read_text()


def test_only_the_owner_may_read_the_file_and_former_lines_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(2):
        log = AuditLog(str(path), server="n1")
        log.write("reload", "ok")
        assert log.close()
    assert len(lines(path)) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_acts_come_in_order_however_many_they_are(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path), server="n1")
    for number in range(5000):
        log.write("acquire", "ok", fencing_token=number + 1)
    assert log.close()
    assert [each["fencing_token"] for each in lines(path)] == list(range(1, 5001))
    assert log.dropped == 0


def test_a_log_that_cannot_keep_up_drops_and_says_so_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path), server="n1", waiting_max=10)
    entered, goes_on = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, data: Any) -> int:
        entered.set()
        assert goes_on.wait(20)
        return write(descriptor, data)

    monkeypatch.setattr(audit.os, "write", slow)
    log.write("connect", "ok", fencing_token=1)
    assert entered.wait(20)
    for number in range(2, 40):
        log.write("connect", "ok", fencing_token=number)
    assert log.dropped == 28
    goes_on.set()
    assert log.close()
    found = lines(path)
    assert [each.get("fencing_token") for each in found if each["act"] == "connect"] == list(range(1, 12))
    (gap,) = [each for each in found if each["act"] == "dropped"]
    assert (gap["count"], gap["outcome"]) == (28, "failed")


def await_dropped(log: AuditLog, count: int) -> None:
    until_s = time.monotonic() + 20
    while log.dropped < count:
        assert time.monotonic() < until_s
        time.sleep(0.001)


def test_a_disk_that_is_full_loses_lines_and_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path), server="n1")
    write, calls = os.write, 0
    is_full = True

    def fails(descriptor: int, data: Any) -> int:
        nonlocal calls
        if not is_full:
            return write(descriptor, data)
        calls += 1
        if calls == 1:
            return write(descriptor, bytes(data)[:10])  # half of a line still fits
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit.os, "write", fails)
    with caplog.at_level(logging.INFO, "lockring.audit"):
        for number in range(3):
            log.write("connect", "ok", fencing_token=number + 1)
            await_dropped(log, number + 1)
        is_full = False
        log.write("connect", "ok", fencing_token=4)
        assert log.close()
    text = path.read_text().splitlines()
    whole = [json.loads(each) for each in text if each.endswith("}")]
    assert [each.get("fencing_token") for each in whole] == [4, None]
    assert whole[1]["count"] == 3
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert errors == [
        "the audit log cannot be written, and records are missing in it: no space left on device"
    ]


def test_a_file_that_was_moved_away_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.log"
    monkeypatch.setattr(audit, "_REOPEN_NS", 0)
    log = AuditLog(str(path), server="n1")
    path.rename(tmp_path / "audit.log.1")
    log.write("connect", "ok", name="second")
    assert log.close()
    assert [each["name"] for each in lines(path)] == ["second"]
    assert lines(tmp_path / "audit.log.1") == []


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: no such file or directory"):
        AuditLog(str(tmp_path / "no" / "audit.log"), server="n1")


def test_a_dash_stands_for_standard_error() -> None:
    code = (
        "from lockring.security.audit import AuditLog\n"
        "log = AuditLog('-', server='n1'); log.write('connect', 'ok'); log.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["act"] == "connect"


def test_after_the_end_records_are_counted_as_dropped(tmp_path: Path) -> None:
    log = AuditLog(str(tmp_path / "audit.log"), server="n1")
    assert log.close()
    log.write("connect", "ok")
    assert log.dropped == 1
