"""What the servers write to their log."""

from __future__ import annotations

import logging
import re

import pytest

from lockring.server.logs import set_up_logging


@pytest.fixture(autouse=True)
def logging_as_before():
    root = logging.getLogger("lockring")
    before = (root.handlers[:], root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before


def test_an_event_is_one_line_whatever_a_stranger_has_put_into_it(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    logging.getLogger("lockring.net").info("refused %s", "a\n12:00:00.000 error: forged\r\x1b[2J\u2028é")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} refused a\\n12:00:00\.000 error: forged\\r\\x1b\[2J\\u2028é", line
    )


def test_a_traceback_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("lockring.server").exception("this is a bug")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("error: this is a bug")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: reason"
