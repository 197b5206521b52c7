"""What the worker asks before it does anything: the decisions of the cleaner in one place.

A folder's way: an event or the scan lets it be looked at (`on_event`, `found`); if it is empty and nothing keeps
it, it waits in the queue for the delay; when it is due (`take_due`) it is looked at again (`judge`). Only a folder that was
empty both times, and did not change in between, is removed. Its parent is then looked at once more (`follows`).
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
    """See the module. Not safe for use by several threads at once.

    Args:
        policy: what is kept.
        delay_ns: how long a folder must stay empty before it goes.
        queue_max: the most folders that wait at a time.
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
        """How many folders did not fit into the queue, ever; a scan finds them again."""
        return self._queue.dropped

    # ------------------------------------------------------------------- what becomes known

    def on_event(self, event: FolderEvent, *, now_ns: int) -> bool:
        """Take an event in.

        Returns:
            Whether the event's folder may have become empty, and should be looked at (`found`).
        """
        self.tally.events += 1
        at_ns = min(event.at_ns, now_ns)  # nothing has happened in the future
        if event.change is Change.CREATED:
            self._counts.created(event.folder, at_ns=at_ns, now_ns=now_ns)
            self._queue.cancel(event.folder, at_ns=at_ns)
            return False
        return self._counts.removed(event.folder, at_ns=at_ns, now_ns=now_ns) and event.folder != ROOT

    def on_events_lost(self, *, now_ns: int) -> None:
        """Events did not arrive: nothing is known of what happened to the folders that wait."""
        self.tally.lost += 1
        self._counts.lost()
        self._queue.restart(now_ns=now_ns)

    def found(
        self, folder: str, look: FolderState | Reason, *, since_ns: int, is_mine: bool, by_event: bool = False
    ) -> Reason | None:
        """A folder was looked at.

        Args:
            folder: which.
            look: what was found, or why nothing was.
            since_ns: since when it is known to be as it was found: the time of the look.
            is_mine: whether this worker owns it; of no account if it is not empty.
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
        """Remember how many entries a look has found in a folder of which events are told."""
        self._counts.counted(folder, entries, now_ns=now_ns)

    # ------------------------------------------------------------------- what is to be done

    def next_due_ns(self) -> int | None:
        """When the next folder is due, None if none waits."""
        return self._queue.next_due_ns()

    def take_due(self, *, now_ns: int) -> PendingFolder | None:
        """The next folder that has waited for its delay, taken out of the queue; None if none has."""
        return self._queue.take_due(now_ns=now_ns)

    def judge(
        self, pending: PendingFolder, look: FolderState | Reason, *, is_mine: bool, now_ns: int
    ) -> Verdict:
        """Decide on a folder that is due and was looked at again.

        Returns:
            "remove": it is to be removed now. "keep": it is not, for a reason that is counted. "wait": it was
            written to and is empty again, so it waits once more.
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
        """A folder that was to be removed was not, for this reason."""
        if reason is Reason.GONE:
            self._counts.forget(folder)
        self.tally.keep(reason)

    def removed(self, folder: str, *, was_kept_for: Reason | None = None) -> str | None:
        """A folder was removed by this worker.

        Args:
            folder: which.
            was_kept_for: see `Tally.delete`.

        Returns:
            Its parent, which may have become empty by it and should be looked at (`follows`); None for the root.
        """
        self._counts.forget(folder)
        self.tally.delete(was_kept_for=was_kept_for)
        parent = parent_of(folder)
        return None if parent == ROOT else parent

    def follows(
        self, folder: str, look: FolderState | Reason, *, is_mine: bool, now_ns: int
    ) -> PendingFolder | None:
        """Decide on a parent whose last entry may have been removed by this worker.

        It goes at once: it had something in it until now, which has waited already. But if somebody else has
        created something in it within the delay, somebody works there, and it waits.

        Returns:
            What is to be removed now (after `judge`), None if nothing is.
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
        """Let go of the folders that wait and are not this worker's any more; returns how many."""
        return self._queue.keep_only(is_mine)

    def evict(self, *, now_ns: int) -> None:
        """Forget what has not been touched for long; to be called now and then."""
        self._counts.evict(now_ns=now_ns)

    def check_invariants(self) -> None:
        """For tests: what must hold between two calls."""
        self._queue.check_invariants()
