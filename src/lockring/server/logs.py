"""How the servers log: one clear line per event, to stderr.

Much of what is logged was sent by others. What does not print is written as an escape, so that nobody can
forge a line of the log, or write to the terminal of whoever reads it.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

_WORDS: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "",
    logging.WARNING: "warning: ",
    logging.ERROR: "error: ",
    logging.CRITICAL: "error: ",
}


class _Lines(logging.Formatter):
    """`14:03:07.512 warning: what happened`."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        word = _WORDS.get(record.levelno, f"{record.levelname.lower()}: ")
        line = f"{clock}.{int(record.msecs):03d} {word}{_printable(record.getMessage())}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def set_up_logging(level: str) -> None:
    """Log lockring's events of this level ("debug", "info", "warning", "error") and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    root = logging.getLogger("lockring")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
