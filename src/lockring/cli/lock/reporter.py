"""Messages of `lockring lock` about its work."""

from __future__ import annotations

import sys
from typing import Any

from lockring.cli.output import json_line, report
from lockring.errors import LockringError


class StderrReporter:
    """Writes to standard error, as lines or JSON objects; standard output belongs to the command. Thread-safe.

    Args:
        as_json: whether the reader is a program.
        is_verbose: whether to report everything.
        is_quiet: whether to report nothing but failures.
    """

    def __init__(self, as_json: bool, is_verbose: bool, is_quiet: bool = False) -> None:
        self._as_json = as_json
        self.is_verbose = is_verbose
        self.is_quiet = is_quiet

    def note(self, text: str, facts: dict[str, Any], *, always: bool = False) -> None:
        """Report an event if verbose; with `always`, unless quiet."""
        if self.is_verbose or (always and not self.is_quiet):
            self.warn(text, facts)

    def warn(self, text: str, facts: dict[str, Any]) -> None:
        """Report an event in any case."""
        print(json_line(facts) if self._as_json else f"lockring: {text}", file=sys.stderr, flush=True)

    def error(self, error: LockringError, code: str = "") -> None:
        """Report an error, without ending the process."""
        report(error, self._as_json, code)
