"""The journal of a simulated node: the real `Journal` on a simulated disk, driven as the real server drives it.

Each turn writes the core's batch before the effects are taken, but after those that need not wait for it. A few
milliseconds after the first batch, and then now and then, a mark says how far the journal was.
With the durability disk, a sync follows, one at a time and beside the turns; the core hears of its end in a later turn.
A journal that fails is begun afresh until that works, and the core then writes everything again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lockring.core.journal import JournalFound
from lockring.errors import JournalError
from lockring.journal.journal import Journal
from lockring.journal.sync_point import SyncPoint
from tests.sim.framework.disk import SimDisk
from tests.sim.framework.world import MS, S

if TYPE_CHECKING:
    from tests.sim.framework.node_shell import NodeShell

Durability = Literal["none", "process", "disk"]
"""Whether a node keeps a journal, and what its answers wait for: the write, or the sync."""

MARK_NS = 5 * MS
"""How long after the first batch in a while the batches so far are marked."""

MARK_AGAIN_NS = 100 * MS
"""The same while batches follow one another."""

RENEW_NS = S
"""How often the position file is renewed. A sync that is under way then ends first."""

AGAIN_NS = (20 * MS, S)
"""How long after a failure the journal is begun afresh: the shortest and the longest time."""


class JournalShell:
    """One life's use of a journal.

    Args:
        node: whose.
        disk: of its machine.

    Attributes:
        found: what former lives left.
        reason: why nothing is vouched for, "" if all is.
        has_failed: whether nothing can be written for now.

    Raises:
        JournalError: another process has the directory, or it cannot be used.
    """

    def __init__(self, node: NodeShell, disk: SimDisk) -> None:
        assert node.durability != "none"
        self._node = node
        self._disk = disk
        self._is_synced = node.durability == "disk"
        self._files = disk.files()
        self._journal = Journal(self._files, node=node.id, durability=node.durability, host=disk.host)
        self.found: JournalFound = self._journal.found
        self.reason = self._journal.reason
        self.has_failed = False
        self._is_mark_due = False
        self._marked_for = 0
        self._has_begun = False
        self._is_syncing = False
        self._wants_sync = False
        self._is_renewal_due = False
        node.later(RENEW_NS, self._renew_now_and_then)

    def over(self) -> None:
        """The process is dead."""
        self._disk.process_died(self._files)

    def close(self) -> None:
        """Leave the directory in good order."""
        self._journal.close()

    # ------------------------------------------------------------------ writing

    def write(self) -> None:
        """Write what the core has for the journal, if anything, after what leaves ahead of it.

        Raises:
            Killed: the process dies meanwhile.
        """
        core, journal = self._node.core, self._journal
        assert core is not None
        batch = core.take_journal(now_ns=self._node.now_ns())
        if batch is None:
            if journal.is_due_for_rewrite:
                self.begin_rewrite()
            return
        for effect in core.take_ahead(now_ns=self._node.now_ns()):
            self._node.world.stats["sent_ahead"] += 1
            self._node.carry_out(effect)
        try:
            journal.append(batch)
        except JournalError as error:
            self._lost(str(error))
            return
        if self._node.world.heard is not None:
            self._node.world.heard(self._node.name, "disk", batch)
        if not self._is_synced:
            self._mark_soon()
            core.journaled(batch.number, now_ns=self._node.now_ns())
        if self._is_synced or batch.ends_rewrite or not self._has_begun:
            self._sync()

    def _mark_soon(self) -> None:
        if not self._is_mark_due:
            self._is_mark_due = True
            self._node.later(MARK_NS, self._mark)

    def _mark(self) -> None:
        self._is_mark_due = False
        if self.has_failed:
            return
        try:
            self._journal.mark()
        except JournalError as error:
            self._lost(str(error))
            return
        if self._journal.durable_ordinal != self._marked_for:
            self._marked_for = self._journal.durable_ordinal
            self._is_mark_due = True
            self._node.later(MARK_AGAIN_NS, self._mark)

    def _renew_now_and_then(self) -> None:
        self._node.later(RENEW_NS, self._renew_now_and_then)
        if self._is_syncing:
            self._is_renewal_due = True
        else:
            self._renew()

    def _renew(self) -> None:
        """Renew the position file, in the thread for syncs."""
        self._is_renewal_due = False
        if self.has_failed:
            return
        try:
            self._journal.check()
            self._journal.renew_position()
        except (OSError, JournalError) as error:
            self._lost(self._journal.fail(error))

    def _lost(self, reason: str) -> None:
        node = self._node
        assert node.core is not None
        if not self._has_begun:
            self._journal.close()
            node.life_cannot_begin(reason)
            return
        self.has_failed = True
        node.world.stats["journal_failed"] += 1
        if node.world.story is not None:
            node.world.tell(node.name, reason)
        node.core.journal_lost(reason, now_ns=node.now_ns())
        node.later(node.rng.randrange(*AGAIN_NS), self.begin_rewrite)

    def begin_rewrite(self) -> None:
        """Begin a new segment, in which the core writes everything again."""
        node = self._node
        assert node.core is not None
        node.world.stats["journal_rewrites"] += 1
        try:
            if self._files.is_gone and not self._is_syncing:
                self._make_again()
            self._journal.begin_rewrite()
        except JournalError:
            node.later(node.rng.randrange(*AGAIN_NS), self.begin_rewrite)
        else:
            self.has_failed = False
            node.core.rewrite(now_ns=node.now_ns())

    def _make_again(self) -> None:
        """Make a deleted directory again, under a lock of its own."""
        node, former = self._node, self._files
        assert node.durability != "none"
        files = self._disk.files()
        journal = Journal(
            files, node=node.id, durability=node.durability, host=self._disk.host, is_of_new_life=False
        )
        self._journal.close(in_order=False)
        self._disk.process_died(former)
        self._files, self._journal = files, journal
        node.world.stats["journal_made_again"] += 1

    # ------------------------------------------------------------------ syncs

    def _sync(self) -> None:
        """Begin a sync, or have one after that which is under way."""
        if self._is_syncing:
            self._wants_sync = True
            return
        self._wants_sync = False
        point = self._journal.sync_point()
        if point is not None:
            self._is_syncing = True
            self._node.world.after(self._disk.sync_ns(), self._perform, self._node.life, point)

    def _perform(self, life: int, point: SyncPoint) -> None:
        """In the thread for syncs, which goes on while the rest of the process stands still."""
        node = self._node
        if not node.alive or node.life != life:
            return
        try:
            self._journal.perform(point)
        except (OSError, JournalError) as error:
            node.post(self._sync_failed, error)
        else:
            node.post(self._synced, point)

    def _sync_failed(self, error: Exception) -> None:
        self._is_syncing = False
        self._lost(self._journal.fail(error))

    def _synced(self, point: SyncPoint) -> None:
        node = self._node
        assert node.core is not None
        self._is_syncing = False
        if self._journal.complete(point) and point.number:
            if self._is_synced:
                self._mark_soon()
                node.core.journaled(point.number, now_ns=node.turn_now)
            if not self._has_begun:
                self._has_begun = True
                node.life_is_durable()
        if self._is_renewal_due:
            self._renew()
        if self._wants_sync:
            self._sync()
