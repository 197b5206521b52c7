"""Records of the audit log on files that were read again: each new content once, and each content that is not used."""

from __future__ import annotations

from lockring.core.access import Outcome
from lockring.security.audit import AuditLog


class ReloadRecords:
    """The records on one set of files. Lives in one event loop.

    Args:
        audit: the log, None without one.
        name: of the file, or of what the files are for.
        edition: the content that is in use, in a few characters.

    Attributes:
        edition: the content that is in use now.
    """

    def __init__(self, audit: AuditLog | None, name: str, edition: str) -> None:
        self.edition = edition
        self._audit = audit
        self._name = name
        self._problem = ""

    def note(self, edition: str, problem: str) -> None:
        """Record what has changed since the last call.

        Args:
            edition: the content that is in use.
            problem: why the files as they are now are not in use, "" if they are.
        """
        if edition != self.edition:
            self.edition = edition
            self._write("ok", f"edition {edition}")
        if problem != self._problem:
            self._problem = problem
            if problem:
                self._write("failed", problem)

    def _write(self, outcome: Outcome, reason: str) -> None:
        if self._audit is not None:
            self._audit.write("reload", outcome, name=self._name, reason=reason)
