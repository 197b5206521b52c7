"""The logger of the client, `lockring.client`, in a program that uses `logging`.

A program that has not loaded `logging` has no handler that could show a record, so nothing is logged. Nor does the
client load `logging` then: that would take the command line, which runs for some hundredths of a second, two
milliseconds more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockring.client.loaded import loaded

if TYPE_CHECKING:
    import logging

_log: logging.Logger | None = None


def client_log() -> logging.Logger | None:
    """Return the logger, None while the program has not loaded `logging`."""
    global _log
    if _log is None:
        module = loaded("logging")
        if module is not None:
            # An application that configures no logging sees nothing.
            module.getLogger("lockring").addHandler(module.NullHandler())
            _log = module.getLogger("lockring.client")
    return _log
