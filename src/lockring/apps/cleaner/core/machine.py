"""The decisions of the cleaner in one place: the worker asks before it acts.

The path of a folder: an event or the scan makes the worker inspect it (`on_event`, `found`). If it is empty and no
rule keeps it, it waits in the queue for the delay; when it is due (`take_due`) it is inspected again (`judge`).
Only a folder that was empty both times, and has not changed in between, is removed. Then its parent is inspected
once more (`follows`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from lockring.apps.cleaner.core.counts import RoughCounts
from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.queue import CleaningQueue, PendingFolder
from lockring.apps.cleaner.core.tally import Tally
from lockring.apps.cleaner.core.words import ROOT, Change, FolderEvent, FolderState, Reason, parent_of

COUNTS_PER_PENDING: Final = 2
COUNT_AGE_NS_MAX: Final = 300 * 1_000_000_000

Verdict = Literal["remove", "keep", "wait"]


class CleanerCore:
    """See the module. Not thread-safe.

    Args:
        policy: decides what to keep.
        delay_ns: how long a folder must stay empty before it goes.
        queue_max: how many folders may wait at a time.
    """

    def __init__(self, policy: Policy, *, delay_ns: int, queue_max: int) -> None:
        self.policy = policy
        self.tally = Tally()
        self._delay_ns = delay_ns
        self._queue = CleaningQueue(delay_ns=delay_ns, size_max=queue_max)
        self._counts = RoughCounts(size_max=COUNTS_PER_PENDING * queue_max, age_ns_max=COUNT_AGE_NS_MAX)

    @property
    def waiting(self) -> int:
        """How many folders wait in the queue."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """How many folders ever did not fit into the queue; a scan finds them again."""
        return self._queue.dropped

    # ------------------------------------------------------------------- inputs

    def on_event(self, event: FolderEvent, *, now_ns: int) -> bool:
        """Record an event.

        Returns:
            Whether the event's folder may have become empty, and should be inspected (`found`).
        """
        self.tally.events += 1
        at_ns = min(event.at_ns, now_ns)  # an event cannot lie in the future
        if event.change is Change.CREATED:
            self._counts.created(event.folder, at_ns=at_ns, now_ns=now_ns)
            self._queue.cancel(event.folder, at_ns=at_ns)
            return False
        return self._counts.removed(event.folder, at_ns=at_ns, now_ns=now_ns) and event.folder != ROOT

    def on_events_lost(self, *, now_ns: int) -> None:
        """Handle a loss of events: the recent history of the waiting folders is unknown."""
        self.tally.lost += 1
        self._counts.lost()
        self._queue.restart(now_ns=now_ns)

    def found(
        self, folder: str, look: FolderState | Reason, *, since_ns: int, is_mine: bool, by_event: bool = False
    ) -> Reason | None:
        """Handle the result of inspecting a folder.

        Args:
            folder: its path.
            look: its state, or why it is unknown.
            since_ns: since when it is known to be as it was found: the time of the look.
            is_mine: whether this worker owns it; irrelevant if it is not empty.
            by_event: whether an event was the reason for the look.

        Returns:
            Why it is kept, None if it waits in the queue now, or was dropped.
        """
        if isinstance(look, Reason):
            self._queue.discard(folder)
            self._counts.forget(folder)
            return look
        if look.entries:
            self._queue.discard(folder)
            return Reason.NOT_EMPTY
        reason = self.policy.keeps(folder, look)
        if reason is None and not is_mine:
            reason = Reason.OTHERS
        if reason is None:
            self._queue.add(folder, since_ns=since_ns, stamp=look.stamp, by_event=by_event)
        return reason

    def counted(self, folder: str, entries: int, *, now_ns: int) -> None:
        """Record how many entries a look has found in a folder that has events."""
        self._counts.counted(folder, entries, now_ns=now_ns)

    # ------------------------------------------------------------------- decisions

    def next_due_ns(self) -> int | None:
        """Return when the next folder is due, None if none waits."""
        return self._queue.next_due_ns()

    def take_due(self, *, now_ns: int) -> PendingFolder | None:
        """Remove and return the next folder that has waited for its delay; None if there is none."""
        return self._queue.take_due(now_ns=now_ns)

    def judge(
        self, pending: PendingFolder, look: FolderState | Reason, *, is_mine: bool, now_ns: int
    ) -> Verdict:
        """Decide on a due folder that was inspected again.

        Returns:
            "remove": remove it now. "keep": do not, for a reason that is counted. "wait": it was written to and is
            empty again, so it waits once more.
        """
        reason: Reason | None = None
        if not is_mine:
            reason = Reason.OTHERS
        elif isinstance(look, Reason):
            reason = look
        elif look.entries:
            reason = Reason.NOT_EMPTY
            self._counts.counted(pending.folder, look.entries, now_ns=now_ns)
        else:
            reason = self.policy.keeps(pending.folder, look)
            if reason is None and look.stamp != pending.stamp:
                self.tally.restarted += 1
                self._queue.add(pending.folder, since_ns=now_ns, stamp=look.stamp)
                return "wait"
        if reason is None:
            return "remove"
        self.kept(pending.folder, reason)
        return "keep"

    def kept(self, folder: str, reason: Reason) -> None:
        """Record that a folder was not removed, for this reason."""
        if reason is Reason.GONE:
            self._counts.forget(folder)
        self.tally.keep(reason)

    def removed(self, folder: str, *, was_kept_for: Reason | None = None) -> str | None:
        """Record that this worker has removed a folder.

        Args:
            folder: its path.
            was_kept_for: see `Tally.delete`.

        Returns:
            Its parent, which may have become empty and should be inspected (`follows`); None for the root.
        """
        self._counts.forget(folder)
        self.tally.delete(was_kept_for=was_kept_for)
        parent = parent_of(folder)
        return None if parent == ROOT else parent

    def follows(
        self, folder: str, look: FolderState | Reason, *, is_mine: bool, now_ns: int
    ) -> PendingFolder | None:
        """Decide on a parent whose last entry this worker may have removed.

        It goes at once: the entry that it had until now has waited already. But if another program has created an entry
        in it within the delay, that program is at work there, and the folder waits.

        Returns:
            The folder to remove now (after `judge`), None if there is none.
        """
        if isinstance(look, Reason) or look.entries:
            return None
        reason = self.policy.keeps(folder, look) or (None if is_mine else Reason.OTHERS)
        if reason is not None:
            self.tally.recount(Reason.NOT_EMPTY, reason)
            return None
        if not self._counts.is_quiet(folder, since_ns=now_ns - self._delay_ns):
            self._queue.add(folder, since_ns=now_ns, stamp=look.stamp)
            return None
        self._queue.discard(folder)
        return PendingFolder(folder, now_ns, look.stamp)

    def keep_only(self, is_mine: Callable[[str], bool]) -> int:
        """Drop the waiting folders that no longer belong to this worker; return how many."""
        return self._queue.keep_only(is_mine)

    def evict(self, *, now_ns: int) -> None:
        """Forget folders without recent events; call it now and then."""
        self._counts.evict(now_ns=now_ns)

    def check_invariants(self) -> None:
        """Check, in tests, what must hold between two calls."""
        self._queue.check_invariants()
