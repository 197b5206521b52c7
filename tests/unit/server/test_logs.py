"""The lines of the servers' logs."""

from __future__ import annotations

import json
import logging
import re
import warnings

import pytest

from lockring.log_events import event
from lockring.server.logs import LogStyle, name_cluster, set_up_logging

TEXT = LogStyle("info", "text")
JSON = LogStyle("info", "json")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


@pytest.fixture(autouse=True)
def logging_as_before():
    root, ours = logging.getLogger(), logging.getLogger("lockring")
    before, level = (root.handlers[:], root.level), ours.level
    yield
    root.handlers[:], root.level = before
    ours.setLevel(level)  # which also forgets the levels that other loggers remember
    logging.captureWarnings(False)


def test_an_event_is_one_line_whatever_a_stranger_has_put_into_it(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(TEXT, "N1")
    logging.getLogger("lockring.net").info("refused %s", "a\n12:00:00.000 error: forged\r\x1b[2J\u2028é")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"{TIME} info    N1: refused a\\n12:00:00\.000 error: forged\\r\\x1b\[2J\\u2028é", line
    )


def test_a_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(TEXT, "N1")
    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("lockring.server").exception("this is a bug")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(" error   N1: this is a bug")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: reason"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_line_has_date_time_zone_level_and_the_name_of_its_server(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(LogStyle("debug", "text"), "N1", {"lockring.coordinator": "coordinator"})
    for logger in ("node", "coordinator", "net"):
        getattr(logging.getLogger(f"lockring.{logger}"), level)("a client has left")
    names = [re.fullmatch(rf"{TIME} {level} *(\S+): a client has left", line) for line in lines_of(capsys)]
    assert [found and found[1] for found in names] == ["N1", "coordinator", "N1"]


def test_as_json_a_line_has_the_event_its_fields_and_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(JSON, "N1", {"lockring.coordinator": "coordinator"})
    log = logging.getLogger("lockring.node")
    log.info("node %s listens at %s", "N1", "here:1", extra=event("node-listens", address="here:1"))
    name_cluster("cluster-1")
    logging.getLogger("lockring.coordinator").critical("gone\n{}\u2028", extra=event("coordinator-stopped"))
    first, second = [json.loads(line) for line in lines_of(capsys)]
    assert re.fullmatch(TIME, first.pop("at"))
    assert first == {
        "level": "info", "server": "N1", "logger": "lockring.node", "event": "node-listens",
        "message": "node N1 listens at here:1", "address": "here:1",
    }  # fmt: skip
    assert second["cluster"] == "cluster-1"
    assert second["server"] == "coordinator"
    assert second["level"] == "error"
    assert second["message"] == "gone\n{}\u2028"


def test_as_json_a_traceback_is_a_field_and_no_field_takes_the_place_of_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(JSON, "N1")
    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("lockring.node").exception("a bug", extra=event("bug", level="none", slots=3))
    (line,) = [json.loads(each) for each in lines_of(capsys)]
    assert line["exception"].endswith("ValueError: reason")
    assert (line["level"], line["event"], line["slots"]) == ("error", "bug", 3)


def test_a_line_of_json_without_a_name_has_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(JSON, "N1")
    logging.getLogger("lockring.node").warning("plain")
    (line,) = [json.loads(each) for each in lines_of(capsys)]
    assert line["message"] == "plain"
    assert "event" not in line


@pytest.mark.parametrize("logger", ["asyncio", "grpc._server", "opentelemetry.exporter", "uvicorn.error"])
def test_the_lines_of_libraries_have_the_same_format_from_warnings_on(
    logger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(LogStyle("debug", "json"), "N1")
    name_cluster("cluster-1")
    logging.getLogger(logger).info("chatter")
    logging.getLogger(logger).warning("a library's\ntrouble")
    (line,) = [json.loads(each) for each in lines_of(capsys)]
    assert (line["server"], line["logger"], line["cluster"]) == ("N1", logger, "cluster-1")
    assert (line["level"], line["message"]) == ("warning", "a library's\ntrouble")


def test_a_line_is_written_once_and_a_level_above_warnings_holds_for_lockring_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging(LogStyle("error", "text"), "N1")
    for logger in ("lockring.node", "asyncio"):
        logging.getLogger(logger).warning("of %s", logger)
        logging.getLogger(logger).error("grave of %s", logger)
    assert [line.partition("N1: ")[2] for line in lines_of(capsys)] == [
        "grave of lockring.node", "of asyncio", "grave of asyncio",
    ]  # fmt: skip


def test_pythons_own_warnings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(JSON, "N1")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit("soon gone", DeprecationWarning, "file.py", 1)
    (line,) = [json.loads(each) for each in lines_of(capsys)]
    assert line["logger"] == "py.warnings"
    assert "soon gone" in line["message"]


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()
