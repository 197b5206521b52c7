"""The reasons why a node cannot serve, for its clients, which cannot see the coordinator and would not know them.

The node looks for trouble with every tick, and before it gives a reason. It notifies every client of a change. Trouble
of single slots, for the second or two of a failover, is not reported.
"""

from __future__ import annotations

from lockring.cluster_state import ClusterState
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.timing import DISTANT_PAST_NS, with_time_left
from lockring.ids import ConnectionId, SlotNumber
from lockring.protocol import HeartbeatAck, TroubleNotice
from lockring.slots import SLOTS, all_slots
from lockring.units import NS_PER_MS, ns_to_ms_floor


class Troubles:
    """The reason why a node cannot serve all slots, as its clients know it."""

    def __init__(self, context: NodeContext, clients: ConnectedClients) -> None:
        now_ns = context.now_ns
        self._context = context
        self._clients = clients
        self._reason = ""
        self._since_ns = now_ns
        self._waiting, self._why = 0, ""
        self._waits_until_ns = now_ns
        self._counted: ClusterState | None = None
        self._unassigned = 0

    def acknowledged(self, message: HeartbeatAck, now_ns: int) -> None:
        """Note what the coordinator waits for, from its acknowledgement."""
        self._waiting, self._why = message.waiting, message.why
        self._waits_until_ns = now_ns + message.left_ms * NS_PER_MS

    def look(self, now_ns: int) -> None:
        """Look for the present trouble, and notify all clients if it is another one."""
        state = self._context.state
        if state is not self._counted:
            self._counted = state
            self._unassigned = sum(not _has_primary(state, slot) for slot in all_slots())
        reason = self._reason_at(now_ns)
        if reason == self._reason:
            return
        self._reason, self._since_ns = reason, now_ns
        for connection in self._clients.by_connection:
            self._context.outbox.send(connection, self.message(now_ns))

    def greet(self, connection: ConnectionId, now_ns: int) -> None:
        """Notify a new client of the trouble, if there is any."""
        self.look(now_ns)
        if self._reason:
            self._context.outbox.send(connection, self.message(now_ns))

    def why_not_served(self, number: SlotNumber) -> str:
        """Return a sentence for the client whose request about a slot cannot be answered, as of the last `look`."""
        context = self._context
        concerns = self._reason in ("no-coordinator", "journal") or not _has_primary(context.state, number)
        why = (self._reason and concerns and self.message(context.now_ns).text) or "try again"
        return f"node {context.replica.node} may not serve slot {number} at present; {why}"

    def note(self, now_ns: int) -> str:
        """Return a sentence on the trouble at the last `look`, and how long it may last; "" if there is none."""
        trouble = self.message(now_ns)
        return with_time_left(trouble.text, trouble.left_ms) if trouble.reason else ""

    def message(self, now_ns: int) -> TroubleNotice:
        """Return the trouble as clients get it."""
        node = self._context.replica.node
        since_ms = ns_to_ms_floor(now_ns - self._since_ns)
        match self._reason:
            case "no-coordinator":
                until_ns = self._context.rights.coordinator_lease.until_ns
                if until_ns == DISTANT_PAST_NS:
                    text = f"node {node} has had no lease of the coordinator yet"
                    return TroubleNotice(self._reason, text, True, since_ms)
                lease_ms = self._context.state.coordinator_lease_ms
                lease = f"the lease of {lease_ms / 1000:g} s"
                text = f"the coordinator has not renewed the right of node {node} to serve for longer than {lease}"
                return TroubleNotice(self._reason, text, True, ns_to_ms_floor(now_ns - until_ns) + lease_ms)
            case "journal" if self._context.journal is not None:
                why = self._context.journal.trouble
                text = f"node {node} cannot write its journal, so it gives no new locks: {why}"
                return TroubleNotice(self._reason, text, True, since_ms)
            case "leases":
                why = self._why or "earlier leases may not have ended yet"
                text = f"{self._waiting} of {SLOTS} slots are not served: {why}"
                left_ms = max(0, ns_to_ms_floor(self._waits_until_ns - now_ns))
                return TroubleNotice(self._reason, text, False, since_ms, left_ms)
            case "no-primary":
                text = f"{self._unassigned} of {SLOTS} slots are served by no node"
                return TroubleNotice(self._reason, text, False, since_ms)
        return TroubleNotice("")

    def _reason_at(self, now_ns: int) -> str:
        if self._context.rights.coordinator_lease_left_ns(now_ns) <= 0:
            return "no-coordinator"
        if self._context.journal is not None and self._context.journal.trouble:
            return "journal"
        if not self._unassigned:
            return ""
        return "leases" if self._waiting else "no-primary"


def _has_primary(state: ClusterState, slot: SlotNumber) -> bool:
    """Return whether a slot has a primary that is a member. A former life of one serves nothing any more."""
    primary = state.slots[slot].primary
    return primary is not None and state.is_current(primary)
