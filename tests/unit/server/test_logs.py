"""The lines of the servers' logs."""

from __future__ import annotations

import logging
import re

import pytest

from lockring.server.logs import set_up_logging

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


@pytest.fixture(autouse=True)
def logging_as_before():
    root = logging.getLogger("lockring")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before


def test_an_event_is_one_line_whatever_a_stranger_has_put_into_it(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "N1")
    logging.getLogger("lockring.net").info("refused %s", "a\n12:00:00.000 error: forged\r\x1b[2J\u2028é")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"{TIME} info    N1: refused a\\n12:00:00\.000 error: forged\\r\\x1b\[2J\\u2028é", line
    )


def test_a_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "N1")
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
    set_up_logging("debug", "N1", {"lockring.coordinator": "coordinator"})
    for logger in ("node", "coordinator", "net"):
        getattr(logging.getLogger(f"lockring.{logger}"), level)("a client has left")
    names = [re.fullmatch(rf"{TIME} {level} *(\S+): a client has left", line) for line in lines_of(capsys)]
    assert [found and found[1] for found in names] == ["N1", "coordinator", "N1"]


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()
