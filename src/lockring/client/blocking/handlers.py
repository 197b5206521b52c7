"""The place where the handlers of signals run that have come in compiled code."""

from __future__ import annotations


def let_handlers_run() -> None:
    """Let the handlers of signals that have come run now, in the main thread.

    Python runs them at the first step of an interpreted function, and compiled code has no such steps. So this is one:
    without it they would run in the first interpreted function within a section, and tear that. Never raises by itself,
    but a handler may.
    """
