"""The output of commands: tables and lines for people, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from lockring.cli.layout import Column, lay_out, wrapped
from lockring.errors import Denied, LockLost, LockringError, Overloaded, Unavailable
from lockring.terminals import shown, takes_colour


def json_line(value: object) -> str:
    """Return a value as JSON, on one line."""
    import json  # what most runs do without makes their start longer

    return json.dumps(value)


def print_json(value: object) -> None:
    """Print one JSON value on one line, at once."""
    print(json_line(value), flush=True)


def report(error: LockringError, as_json: bool, code: str = "") -> None:
    """Report an error on standard error: one line, or one JSON object.

    Args:
        error: the error.
        as_json: whether the reader is a program.
        code: replaces the error's own code in JSON.
    """
    if as_json:
        found: dict[str, Any] = {
            "error": code or error.code,
            "message": str(error),
            "name": error.name or None,
        }
        if isinstance(error, LockLost):
            found["reason"] = error.reason
        elif isinstance(error, Unavailable):
            found |= {"reason": error.reason or None, "since_s": error.since_s}
        elif isinstance(error, Denied):
            found["right"] = error.right or None
        elif isinstance(error, Overloaded):
            found["retry_after_s"] = error.retry_after_s
        line = json_line(found)
    else:
        line = "lockring: " + " ".join(str(error).split())
    print(line.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)


def quoted(text: str) -> str:
    """Return `shown` text in quotation marks, cut if it is very long."""
    return f"'{shown(text if len(text) <= 80 else text[:79] + '…')}'"


def duration(seconds: float) -> str:
    """Return a duration in words, with at most two units: "0.25 s", "12 s", "3 min 5 s", "2 h 10 min", "4 d 3 h"."""
    if seconds < 10:
        return f"{max(0.0, seconds):.2f}".rstrip("0").rstrip(".") + " s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, small, small_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    raise AssertionError(seconds)


def clock_time(seconds_ago: float = 0.0) -> str:
    """Return the local time of that long ago, with the offset from UTC, in ISO 8601."""
    return (datetime.now().astimezone() - timedelta(seconds=seconds_ago)).isoformat(timespec="milliseconds")


def width_of_terminal() -> int | None:
    """Return how many cells a line of standard output has, None if it is not a terminal."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Any]], *, if_empty: str = "") -> None:
    """Print a table: fitted to the terminal, or else all of it, in columns that other programs can cut.

    Args:
        columns: see `Column`.
        rows: of as many cells each; shown by `str`.
        if_empty: what to say on standard error if there are no rows; standard output then has the headings only, and
            on a terminal nothing.
    """
    width = width_of_terminal()
    if not rows and if_empty:
        for line in wrapped(f"lockring: {if_empty}", width):
            print(line, file=sys.stderr, flush=True)
        if width is not None:
            return
    table = lay_out(columns, [[shown(str(cell)) for cell in row] for row in rows], width)
    heading, *lines = table.lines
    print(f"\x1b[1m{heading}\x1b[0m" if width is not None and takes_colour(sys.stdout) else heading)
    for line in lines:
        print(line)
    if table.left_out:
        it = "it" if len(table.left_out) == 1 else "them"
        say(f"({', '.join(table.left_out)}: no room for {it} at {width} columns)")


def say(text: str, *, hang: str = "  ") -> None:
    """Print a sentence, on a terminal broken at blanks where it is too long, so that no word or number is broken.

    Args:
        text: what to print.
        hang: what the second and later lines begin with.
    """
    for line in wrapped(text, width_of_terminal(), hang=hang):
        print(line, flush=True)


def token(number: int, shared: bool) -> str:
    """Return a fencing token in words, and whether others are valid at the same time: "token 7", "token 7, shared"."""
    return f"token {number}, shared" if shared else f"token {number}"


def count(number: int, noun: str) -> str:
    """Return a number and its noun: "1 slot", "3 slots"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
