"""The counts in a worker's report: folders seen, removed and kept."""

from __future__ import annotations

from lockring.apps.cleaner.core.words import Reason


class Tally:
    """Counts of one worker. Not thread-safe.

    `seen` and `kept` are those of the last complete scan and of what has happened since; all others count from the
    start.

    Attributes:
        seen: folders that the scan found.
        deleted: folders that were removed.
        restarted: how often a waiting folder was written to, so that its delay started again.
        restored: markers that were restored because of an entry written during the removal.
        scans: complete scans.
        events: events received.
        lost: how often events were lost, each time followed by a scan.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.deleted = 0
        self.restarted = 0
        self.restored = 0
        self.scans = 0
        self.events = 0
        self.lost = 0
        self._kept: dict[Reason, int] = {}
        self._scan: dict[Reason, int] | None = None
        self._scan_seen = 0

    @property
    def kept(self) -> dict[str, int]:
        """The number of kept folders, by the word for the reason, the most frequent first."""
        items = sorted(self._kept.items(), key=lambda item: (-item[1], item[0].value))
        return {reason.value: count for reason, count in items if count > 0}

    @property
    def scanned(self) -> int:
        """The number of folders that the current scan has seen."""
        return self._scan_seen

    def begin_scan(self) -> None:
        """Start the counts of a scan."""
        self._scan = {}
        self._scan_seen = 0

    def saw(self, reason: Reason | None = None) -> None:
        """Count a folder that the scan found.

        Args:
            reason: why it is kept, None if that is not yet known.
        """
        self._scan_seen += 1
        if reason is not None and self._scan is not None:
            self._scan[reason] = self._scan.get(reason, 0) + 1

    def end_scan(self) -> None:
        """End a scan: its counts are the report's from now on."""
        assert self._scan is not None, "no scan is in progress"
        self._kept, self._scan = self._scan, None
        self.seen = self._scan_seen
        self.scans += 1

    def keep(self, reason: Reason) -> None:
        """Count a folder as kept that was due for removal."""
        counts = self._kept if self._scan is None else self._scan
        counts[reason] = counts.get(reason, 0) + 1

    def delete(self, *, was_kept_for: Reason | None = None) -> None:
        """Count a removed folder.

        Args:
            was_kept_for: the reason under which the scan has counted it; a parent was not empty then.
        """
        self.deleted += 1
        if was_kept_for is not None:
            self._take_back(was_kept_for)

    def recount(self, was: Reason, now: Reason) -> None:
        """Move a folder that the scan has counted from one reason to another."""
        if self._take_back(was):
            self.keep(now)

    def _take_back(self, reason: Reason) -> bool:
        for counts in (self._scan, self._kept):
            if counts is not None and counts.get(reason):
                counts[reason] -= 1
                return True
        return False
