"""The format of the servers' logs: one line per event on stderr, with the time, the level and the process's name.

    2026-11-23T16:32:13.142+00:00 warning N1: what happened

Lines of several processes are often read together: the time has its date and its offset from UTC, and each line names
the node, or the coordinator, that wrote it.

Much of the logged text comes from other machines. Characters that do not print become escapes, so that a sender
cannot forge a line of the log, or write to the terminal of its reader.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import datetime

from lockring.terminals import shown


class _Lines(logging.Formatter):
    def __init__(self, name: str, parts: Mapping[str, str]) -> None:
        super().__init__()
        self._name = name
        self._parts = parts

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        name = self._parts.get(record.name, self._name)
        line = f"{at} {level:7} {name}: {shown(record.getMessage())}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def set_up_logging(level: str, name: str, parts: Mapping[str, str] | None = None) -> None:
    """Log lockring's events to stderr.

    Args:
        level: "debug", "info", "warning" or "error": these events and the graver ones.
        name: of this process, in each line.
        parts: other names for the lines of some loggers, where several servers are in one process.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(name, parts or {}))
    root = logging.getLogger("lockring")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
