"""One root's worker: handles events, scans, and removes what is due, in turns on one thread.

Other threads may call `told`, `events_lost`, `membership_changed` and `stop`; a signal handler may call `stop` too.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from lockring.apps.cleaner.core.machine import CleanerCore
from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.queue import PendingFolder
from lockring.apps.cleaner.core.words import ROOT, FolderEvent, FolderState, Reason, parent_of
from lockring.apps.cleaner.ownership import Ownership
from lockring.apps.cleaner.storage import FoundFolder, Storage
from lockring.clock import monotonic_ns
from lockring.errors import Denied, LockringError, RootMissing, Unavailable
from lockring.troubles import RepeatedTrouble

COUNT_MAX: Final = 1000
"""Largest count of entries; a larger number makes no difference."""

_EVENTS_MAX: Final = 100_000
_TURN_NS: Final = 50_000_000
_EVICT_EVERY_NS: Final = 60_000_000_000
_RETRY_NS: Final = 10_000_000_000


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a worker.

    Attributes:
        delay_ns: how long a folder must stay empty.
        scan_interval_ns: from the end of a scan to the next one.
        queue_max: how many folders may wait at a time.
        once: whether to end when everything that the first scan has found is done.
    """

    delay_ns: int
    scan_interval_ns: int
    queue_max: int
    once: bool = False


class WorkerListener(Protocol):
    """Learns what a worker does, on the worker's thread."""

    def deleted(self, storage: Storage, folder: str, fence: int, worker: str) -> None:
        """Handle the removal of a folder, by this worker under this number."""

    def trouble(self, storage: Storage, error: LockringError) -> None:
        """Handle a failure after which the worker goes on."""


class Worker:
    """See the module.

    Args:
        storage: the storage to clean; opened by the caller.
        ownership: decides which folders belong to this worker.
        policy: decides what to keep.
        plan: the settings.
        listener: learns what the worker does.
    """

    def __init__(
        self,
        storage: Storage,
        ownership: Ownership,
        policy: Policy,
        plan: WorkerPlan,
        listener: WorkerListener,
    ) -> None:
        self.storage = storage
        self._ownership = ownership
        self._policy = policy
        self._plan = plan
        self._listener = listener
        self.core = CleanerCore(policy, delay_ns=plan.delay_ns, queue_max=plan.queue_max)
        # Held during a removal: the next owner of a folder waits for its end.
        self._removing = threading.Lock()
        self._events: deque[FolderEvent] = deque()
        self._is_lost = False
        self._is_changed = False
        self._is_stopped = False
        # A signal handler may call its `put`, even while this thread is in `get`.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._scan: Iterator[FoundFolder] | None = None
        self._scan_at_ns: int | None = None
        self._resume_at_ns = 0
        self._trouble = RepeatedTrouble()
        self._dropped_before = 0
        self._is_short = False
        ownership.on_change(self.membership_changed)

    @property
    def is_scanning(self) -> bool:
        """Whether a scan is in progress."""
        return self._scan is not None

    # ------------------------------------------------------------------- from any thread

    def told(self, event: FolderEvent) -> None:
        """Queue an event; if too many wait already, they count as lost."""
        if len(self._events) >= _EVENTS_MAX:
            self._is_lost = True
            return
        self._events.append(event)
        if len(self._events) == 1:
            self._bell.put(None)

    def events_lost(self) -> None:
        """Schedule a scan to make up for lost events."""
        self._is_lost = True
        self._bell.put(None)

    def membership_changed(self) -> None:
        """Handle gained or lost folders. Returns once no removal is in progress that began before."""
        self._is_changed = True
        self._bell.put(None)
        with self._removing:
            pass

    def stop(self) -> None:
        """End `run` soon."""
        self._is_stopped = True
        self._bell.put(None)

    # ------------------------------------------------------------------- the worker's own thread

    def run(self) -> None:
        """Work until `stop`, or, with `WorkerPlan.once`, until everything is done.

        Raises:
            Unavailable, Denied, RootMissing: with `WorkerPlan.once`, if the storage can no longer be reached or read.
        """
        now_ns = monotonic_ns()
        self._scan_at_ns = now_ns
        evict_at_ns = now_ns + _EVICT_EVERY_NS
        while not self._is_stopped:
            now_ns = monotonic_ns()
            is_busy = False
            try:
                # Events and due folders must not end a pause: each would be another attempt.
                if now_ns >= self._resume_at_ns:
                    is_busy = self._turn()
                    self._trouble.ends(now_ns=now_ns)
            except (Unavailable, Denied, RootMissing) as error:
                # The failure may pass: networks and servers come back, keys are renewed, folders are mounted again.
                self._close_scan()
                if self._plan.once:
                    raise
                now_ns = monotonic_ns()
                if self._trouble.fails(str(error), now_ns=now_ns):
                    self._listener.trouble(self.storage, error)
                self._scan_at_ns = self._resume_at_ns = now_ns + _RETRY_NS
            now_ns = monotonic_ns()
            if now_ns >= evict_at_ns:
                self.core.evict(now_ns=now_ns)
                evict_at_ns = now_ns + _EVICT_EVERY_NS
            if is_busy:
                continue
            if self._plan.once and self._is_done():
                break
            self._sleep(now_ns)
        self._close_scan()

    def _is_done(self) -> bool:
        return (
            self._scan is None and self._scan_at_ns is None and not self.core.waiting and not self._is_short
        )

    def _turn(self) -> bool:
        """Do a little of everything; return whether there is more to do at once."""
        now_ns = monotonic_ns()
        if self._is_changed:
            self._is_changed = False
            self.core.keep_only(self._owns)
            self._scan_again(now_ns)  # it finds what was gained
        if self._is_lost:
            self._is_lost = False
            self.core.on_events_lost(now_ns=now_ns)
            self._scan_again(now_ns)
        is_busy = self._take_events(now_ns + _TURN_NS)
        is_busy |= self._remove_due(monotonic_ns() + 2 * _TURN_NS)
        if self._scan is None and self._is_scan_due(monotonic_ns()):
            self._begin_scan()
        if self._scan is not None:
            self._scan_on(monotonic_ns() + _TURN_NS)
            is_busy = True
        return is_busy

    def _sleep(self, now_ns: int) -> None:
        times_ns = [each for each in (self.core.next_due_ns(), self._scan_at_ns) if each is not None]
        until_ns = max(min(times_ns, default=now_ns + _EVICT_EVERY_NS), self._resume_at_ns)
        try:
            self._bell.get(timeout=max(0.0, min(until_ns - now_ns, _EVICT_EVERY_NS) / 1e9))
            while True:
                self._bell.get_nowait()
        except queue.Empty:
            return

    def _owns(self, folder: str) -> bool:
        return self._ownership.fence(folder) is not None

    # ---------------------------------------------------------------------------- events

    def _take_events(self, until_ns: int) -> bool:
        while self._events:
            event = self._events.popleft()
            now_ns = monotonic_ns()
            if self.core.on_event(event, now_ns=now_ns) and self._owns(event.folder):
                look = self.storage.look(event.folder, entries_max=COUNT_MAX)
                if isinstance(look, FolderState):
                    self.core.counted(event.folder, look.entries, now_ns=now_ns)
                # The look counts, not the event: a later removal may have emptied the folder, whose event is still
                # to come.
                self.core.found(event.folder, look, since_ns=now_ns, is_mine=True, by_event=True)
            if now_ns > until_ns:
                break
        return bool(self._events)

    # ---------------------------------------------------------------------------- the scan

    def _is_scan_due(self, now_ns: int) -> bool:
        if self._scan_at_ns is not None and now_ns >= self._scan_at_ns:
            return True
        # Folders that did not fit into the queue are found again as soon as there is room.
        return self._is_short and self.core.waiting <= self._plan.queue_max // 2

    def _scan_again(self, now_ns: int) -> None:
        self._close_scan()
        self._scan_at_ns = now_ns

    def _begin_scan(self) -> None:
        self._scan = self.storage.scan(self._policy)
        self._scan_at_ns = None
        self._dropped_before = self.core.dropped
        self._is_short = False
        self.core.tally.begin_scan()

    def _close_scan(self) -> None:
        scan, self._scan = self._scan, None
        close = getattr(scan, "close", None)  # a generator's: releases its open folders
        if close is not None:
            close()

    def _scan_on(self, until_ns: int) -> None:
        assert self._scan is not None
        core = self.core
        for count, found in enumerate(self._scan, start=1):
            look = found.look
            if isinstance(look, FolderState) and look.entries:
                core.tally.saw(core.found(found.folder, look, since_ns=0, is_mine=False))
            elif isinstance(look, FolderState):
                is_mine = self._owns(found.folder)
                now_ns = monotonic_ns()
                core.tally.saw(core.found(found.folder, look, since_ns=now_ns, is_mine=is_mine))
            else:
                core.tally.saw(look)
            if count % 64 == 0 and monotonic_ns() > until_ns:
                return
        self._scan = None
        core.tally.end_scan()
        self._is_short = core.dropped > self._dropped_before
        if not self._plan.once:
            self._scan_at_ns = monotonic_ns() + self._plan.scan_interval_ns

    # ---------------------------------------------------------------------------- removing

    def _remove_due(self, until_ns: int) -> bool:
        while not self._is_stopped:
            now_ns = monotonic_ns()
            if now_ns > until_ns:
                return True
            pending = self.core.take_due(now_ns=now_ns)
            if pending is None:
                return False
            self._remove(pending)
        return False

    def _remove(self, pending: PendingFolder) -> None:
        """Remove a folder, and its parents as far as they become empty by that."""
        was_kept_for: Reason | None = None
        following: PendingFolder | None = pending
        while following is not None:
            parent = self._remove_one(following, was_kept_for)
            was_kept_for = Reason.NOT_EMPTY
            following = None if parent is None else self._follower(parent)

    def _remove_one(self, pending: PendingFolder, was_kept_for: Reason | None) -> str | None:
        """Remove a folder if it is still empty and ours; return its parent, None if it was not removed."""
        folder = pending.folder
        fence = self._ownership.fence(folder)
        look = self.storage.look(folder, entries_max=1) if fence is not None else Reason.OTHERS
        verdict = self.core.judge(pending, look, is_mine=fence is not None, now_ns=monotonic_ns())
        if verdict != "remove" or fence is None:
            return None
        with self._removing:
            # The look may have taken long. From here on, the folder's next owner waits.
            fence = self._ownership.fence(folder)
            reason = Reason.OTHERS if fence is None else self.storage.remove(folder)
        if reason is not None or fence is None:
            self.core.kept(folder, reason or Reason.OTHERS)
            return None
        self._listener.deleted(self.storage, folder, fence, self._ownership.worker)
        return self.core.removed(folder, was_kept_for=was_kept_for)

    def _follower(self, parent: str) -> PendingFolder | None:
        look = self.storage.look(parent, entries_max=1)
        while look is Reason.GONE and self.storage.implies_parents:
            parent = parent_of(parent)  # it disappeared with its last entry
            if parent == ROOT:
                return None
            look = self.storage.look(parent, entries_max=1)
        is_mine = self._owns(parent)
        return self.core.follows(parent, look, is_mine=is_mine, now_ns=monotonic_ns())


def run_all(workers: list[Worker], tick: Callable[[], None], *, tick_s: float) -> None:
    """Run workers, each on a thread of its own, until all have ended.

    Args:
        workers: one for each root.
        tick: called repeatedly on this thread, for progress and the like; signals are handled in between.
        tick_s: how often.

    Raises:
        LockringError: the first that a worker raised; the others are stopped then.
    """
    failures: list[BaseException] = []

    def run(worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for all
            failures.append(error)
            for each in workers:
                each.stop()

    threads = [
        threading.Thread(target=run, args=(each,), name=f"clean {each.storage.name}", daemon=True)
        for each in workers
    ]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(tick_s / len(threads))
            tick()
    finally:
        for each in workers:
            each.stop()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
