"""What a worker has seen, removed and kept, for its report."""

from __future__ import annotations

from lockring.apps.cleaner.core.words import Reason


class Tally:
    """Counts of one worker. Not safe for use by several threads at once.

    `seen` and `kept` are those of the last scan that came to its end, and what has happened since; all others are since the start.

    Attributes:
        seen: folders that the scan found.
        deleted: folders that were removed.
        restarted: how often a folder was written to while it waited, so that its delay began anew.
        restored: markers that were put back since something was written during the removal.
        scans: how many came to their end.
        events: how many came in.
        lost: how often events were lost, each time followed by a scan.
        denied: folders that could not be read.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.deleted = 0
        self.restarted = 0
        self.restored = 0
        self.scans = 0
        self.events = 0
        self.lost = 0
        self.denied = 0
        self._kept: dict[Reason, int] = {}
        self._scan: dict[Reason, int] | None = None
        self._scan_seen = 0

    @property
    def kept(self) -> dict[str, int]:
        """How many folders were kept, by the word for the reason, the most frequent first."""
        items = sorted(self._kept.items(), key=lambda item: (-item[1], item[0].value))
        return {reason.value: count for reason, count in items if count > 0}

    @property
    def scanned(self) -> int:
        """How many folders the scan that is under way has seen."""
        return self._scan_seen

    def begin_scan(self) -> None:
        """A scan begins: it counts anew."""
        self._scan = {}
        self._scan_seen = 0

    def saw(self, reason: Reason | None = None) -> None:
        """The scan found a folder.

        Args:
            reason: why it is kept, None if it is not yet known whether it will be.
        """
        self._scan_seen += 1
        if reason is not None and self._scan is not None:
            self._scan[reason] = self._scan.get(reason, 0) + 1

    def end_scan(self) -> None:
        """The scan came to its end: its counts are the report's from now on."""
        assert self._scan is not None, "no scan is under way"
        self._kept, self._scan = self._scan, None
        self.seen = self._scan_seen
        self.scans += 1

    def keep(self, reason: Reason) -> None:
        """A folder that was to be removed is kept."""
        counts = self._kept if self._scan is None else self._scan
        counts[reason] = counts.get(reason, 0) + 1

    def delete(self, *, was_kept_for: Reason | None = None) -> None:
        """A folder was removed.

        Args:
            was_kept_for: the reason under which the scan has counted it; a parent was not empty then.
        """
        self.deleted += 1
        if was_kept_for is not None:
            self._take_back(was_kept_for)

    def recount(self, was: Reason, now: Reason) -> None:
        """A folder that the scan has counted under one reason is kept for another one by now."""
        if self._take_back(was):
            self.keep(now)

    def _take_back(self, reason: Reason) -> bool:
        for counts in (self._scan, self._kept):
            if counts is not None and counts.get(reason):
                counts[reason] -= 1
                return True
        return False
