"""The format of the servers' logs: one line per event on stderr, as text or as JSON.

    2026-11-23T16:32:13.142+00:00 warning N1: what happened

    {"at":"2026-11-23T16:32:13.142+00:00","level":"warning","server":"N1","cluster":"…","event":"…","message":"…",…}

Lines of several processes are often read together: the time has its date and its offset from UTC, and each line names
the node, or the coordinator, that wrote it.

Much of the logged text comes from other machines. In text, characters that do not print become escapes, so that a
sender cannot forge a line of the log, or write to the terminal of its reader. JSON has escapes of its own.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from lockring.ids import ClusterId
from lockring.terminals import shown

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


class LogStyle(NamedTuple):
    """The level and the format of a process's log.

    Attributes:
        level: these events and the graver ones.
        format: "text", for people, or "json", for programs.
    """

    level: LogLevel
    format: LogFormat


class _Lines(logging.Formatter):
    def __init__(self, name: str, parts: Mapping[str, str]) -> None:
        super().__init__()
        self._name = name
        self._parts = parts

    def format(self, record: logging.LogRecord) -> str:
        line = (
            f"{_time_of(record)} {_level_of(record):7} {self.name_of(record)}: {shown(record.getMessage())}"
        )
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line

    def name_of(self, record: logging.LogRecord) -> str:
        """Return the name of the server that a record is of."""
        return self._parts.get(record.name, self._name)


class _Json(_Lines):
    """Lines of JSON.

    Attributes:
        cluster: the cluster of this process, "" as long as it knows none.
    """

    def __init__(self, name: str, parts: Mapping[str, str]) -> None:
        super().__init__(name, parts)
        self.cluster = ""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _time_of(record),
            "level": _level_of(record),
            "server": self.name_of(record),
            "logger": record.name,
        }
        if self.cluster:
            line["cluster"] = self.cluster
        name = getattr(record, "event", "")
        if name:
            line["event"] = name
        line["message"] = record.getMessage()
        # A field never takes the place of what each line has.
        line |= {key: value for key, value in getattr(record, "fields", {}).items() if key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # in ASCII, so that nothing in it ends a line or reaches a terminal


def set_up_logging(style: LogStyle, name: str, parts: Mapping[str, str] | None = None) -> None:
    """Log to stderr: lockring's events, and the warnings and errors of the libraries in this process.

    All of them have the format of the style, so that nothing between lines of JSON is none.

    Args:
        style: the level, of lockring's events, and the format.
        name: of this process, in each line.
        parts: other names for the lines of some loggers, where several servers are in one process.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((_Json if style.format == "json" else _Lines)(name, parts or {}))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("lockring").setLevel(style.level.upper())


def name_cluster(cluster: ClusterId) -> None:
    """Have each line of JSON name the cluster that this process is in, from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Json):
            handler.formatter.cluster = cluster


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _level_of(record: logging.LogRecord) -> str:
    return "error" if record.levelno >= logging.ERROR else record.levelname.lower()
