"""What `lockring lock` says while it works."""

from __future__ import annotations

import json
import sys
from typing import Any

from lockring.cli.output import report
from lockring.errors import LockringError


class StderrReporter:
    """Speaks on standard error: standard output is the command's. Lines for people, or JSON objects. Safe for use by several threads.

    Args:
        as_json: whether its listener is a program.
        is_verbose: whether to say all that happens.
        is_quiet: whether to say nothing but what went wrong.
    """

    def __init__(self, as_json: bool, is_verbose: bool, is_quiet: bool = False) -> None:
        self._as_json = as_json
        self.is_verbose = is_verbose
        self.is_quiet = is_quiet

    def note(self, text: str, facts: dict[str, Any], *, always: bool = False) -> None:
        """What happens, for those who want to know; with `always`, for all who did not ask for quiet."""
        if self.is_verbose or (always and not self.is_quiet):
            self.warn(text, facts)

    def warn(self, text: str, facts: dict[str, Any]) -> None:
        """What everybody has to know."""
        print(json.dumps(facts) if self._as_json else f"lockring: {text}", file=sys.stderr, flush=True)

    def error(self, error: LockringError, code: str = "") -> None:
        """What went wrong, without ending the process."""
        report(error, self._as_json, code)
