"""The content of a node's journal: the values that the core, the files and the simulation share.

A journal is one more copy of every slot that a node has, kept on disk. It is written in the replication's own words:
the parts of a stream that a primary would send to a copy. For a slot that the node serves, the node is the sender; for
one that it copies, the primary's parts are written as they came. So replaying a journal is what a copy does anyway.

Rules:

- Batches are numbered without a gap, and written in that order. The numbers of lost ones are not used again.
- A rewrite says everything again, slot by slot, between other entries. Until its last batch is durable, everything
  before it must be kept. Replayed without that, entries about a slot make sense from its first complete start on; what
  stands before that is skipped.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from lockring.ids import ClusterId, Incarnation, NodeId, SlotNumber, Version
from lockring.protocol import HandOverSlot, Resume, Snapshot, Tail

OWN_TENURE: Final = Version(0)
"""`joined` in the parts of the node's own reigns: no copy's tenure has this version."""


class LifeBegan(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """A life of the node began on this journal. What stands before it is of the lives before.

    Attributes:
        node: the node's id.
        incarnation: of this life.
    """

    node: NodeId
    incarnation: Incarnation


class ClusterSeen(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """The cluster that the node works in, as of the newest state that mattered to it.

    Attributes:
        cluster: its id.
        version: of that state.
        backup_lease_ms: the lease that the node's acknowledgements gave by that state.
    """

    cluster: ClusterId
    version: Version
    backup_lease_ms: int


class EmptySlot(msgspec.Struct, array_like=True, frozen=True, tag=12):
    """The node holds nothing in this slot any more, or begins it without content as of `base`; -1 for none."""

    slot: SlotNumber
    base: Version


class ReignEnd(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """A former primary's word on how its reign ended, taken in by this node as its successor."""

    end: HandOverSlot


JournalEntry = Snapshot | Tail | Resume | LifeBegan | ClusterSeen | EmptySlot | ReignEnd


class JournalBatch(msgspec.Struct, frozen=True):
    """Entries to be written together. Its constructor takes a third of the time of a named tuple's.

    Attributes:
        number: counts the batches of a life from 1.
        entries: in their order.
        is_urgent: whether something waits until they are written; others may be synced with the next ones.
        ends_rewrite: whether everything that the node holds was written again, in this batch and the ones before it,
            since the last `rewrite`: whatever stands before that is no longer needed.
    """

    number: int
    entries: list[JournalEntry]
    is_urgent: bool
    ends_rewrite: bool


class JournalFound(NamedTuple):
    """A journal as a new life finds it.

    Attributes:
        entries: in the order in which they were written, of all former lives.
        is_complete: whether nothing can be missing that a former life has answered for: the lives are over for certain,
            what they wrote was durable enough for the way in which they ended, and nothing is damaged or replaced.
    """

    entries: list[JournalEntry]
    is_complete: bool
