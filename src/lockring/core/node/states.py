"""Which cluster states a node takes, as a whole or by a difference.

Rules:

- A state is taken only if it is newer than the known one, of the same cluster, and has not skipped the known one, as
  that of a store that went back does. The coordinator finds that out by this node's version, and makes another state,
  which takes the loss into account.
- It is not taken if it is older than what a former life knew.
- A difference is taken only on the version from which it leads, and if it leads where it says. One
  that is not newer is ignored: another sender was faster.
"""

from __future__ import annotations

from typing import NamedTuple

from lockring.cluster_state import ClusterState, decode_state
from lockring.core.node.context import NodeContext
from lockring.ids import SlotNumber
from lockring.protocol import State, StateDifference
from lockring.slots import all_slots


class StateChange(NamedTuple):
    """A newer state that was taken.

    Attributes:
        old: the state before.
        slots: those that differ between the two, ascending.
    """

    old: ClusterState
    slots: list[SlotNumber]


def take(context: NodeContext, message: State | StateDifference) -> StateChange | None:
    """Take a state that came in a message, and return what that changes; None if it is not taken.

    Raises:
        ProtocolError: it cannot be read, or is a difference that does not fit the known state.
    """
    if isinstance(message, State):
        return take_whole(context, decode_state(message.state))
    old = context.state
    if message.version <= old.version:
        return None
    applied = context.history.applied(message)
    if not _may_follow(context, applied.state):
        return None
    context.history.take(message, applied)
    return _taken(context, StateChange(old, applied.changed), applied.state)


def take_whole(context: NodeContext, state: ClusterState) -> StateChange | None:
    """Take a state, and return what that changes; None if it is not taken."""
    old = context.state
    if not _may_follow(context, state):
        return None
    context.history.start_at(state)
    changed = [number for number in all_slots() if old.slots[number] != state.slots[number]]
    return _taken(context, StateChange(old, changed), state)


def _taken(context: NodeContext, change: StateChange, state: ClusterState) -> StateChange:
    context.state = state
    context.outbox.events.learned(change.old, state, change.slots, context.now_ns)
    return change


def _may_follow(context: NodeContext, state: ClusterState) -> bool:
    """Return whether a state may follow the known one."""
    known, journal = context.state, context.journal
    if state.version <= known.version or (known.cluster and state.cluster != known.cluster):
        return False
    if state.has_skipped(known.version):
        return False
    return journal is None or not journal.former.refuses(state)
