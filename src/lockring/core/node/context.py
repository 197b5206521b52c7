"""The context that a node's parts share: the node's identity, knowledge, rights and outbox.

A part gets this object, and the parts below it that it uses; none gets the node. News for any other part is a value
that the part returns, and that `core` or `service` passes on.
"""

from __future__ import annotations

from lockring.cluster_state import ClusterState, Replica
from lockring.core.effects import Close, Coordinator, Effect, Endpoint, Note, Publish, Reply, Send
from lockring.core.events import EventMemory
from lockring.core.node.counters import NodeCounters
from lockring.core.node.journal import NodeJournal
from lockring.core.node.rights import Rights
from lockring.core.node.slot import NodeSlot
from lockring.core.route_book import RouteBook
from lockring.core.state_history import StateHistory
from lockring.core.timing import DISTANT_PAST_NS, Timing
from lockring.ids import ConnectionId, NodeId, SlotNumber, Version
from lockring.protocol import Message, SlotRequest, SlotRequestKind


class NodeOutbox:
    """The effects that leave at the end of this turn, and the time of the next one.

    Attributes:
        effects: in order.
        asks: requests to the coordinator about slots, by kind, slot and node.
        wake_at_ns: when the shell must call `on_timer` at the latest. Early does no harm, late does.
        audits: whether acts are reported for an audit log.
        events: those that the node remembers, for questions that come later.
        counters: the counts for metrics.
    """

    def __init__(self, events: EventMemory) -> None:
        self.audits = False
        self.events = events
        self.counters = NodeCounters()
        self.wake_at_ns = DISTANT_PAST_NS
        self.effects: list[Effect] = []
        self.asks: dict[tuple[SlotRequestKind, SlotNumber, NodeId], SlotRequest] = {}

    def send(self, to: Endpoint, message: Message) -> None:
        """Send a message; to a replica, on the connection that this node opened."""
        self.effects.append(Send(to, message))

    def reply(self, to: Replica, message: Message) -> None:
        """Answer a peer on the connection that the peer opened."""
        self.effects.append(Reply(to, message))

    def close(self, connection: ConnectionId | Coordinator, reason: str) -> None:
        """Close an accepted connection, or the one to the coordinator, after what was sent on it before."""
        self.effects.append(Close(connection, reason))

    def note(self, event: str, text: str, asked_by: ConnectionId | None = None) -> None:
        """Write an event to the log."""
        self.effects.append(Note(text, asked_by, False, event))

    def warn(self, event: str, text: str) -> None:
        """Write a warning to the log."""
        self.effects.append(Note(text, None, True, event))

    def publish(self, state: ClusterState) -> None:
        """Let the shell act on a new cluster state."""
        self.effects.append(Publish(state))

    def add(self, effect: Effect) -> None:
        """Add an effect that has no name of its own here."""
        self.effects.append(effect)

    def wake(self, at_ns: int) -> None:
        """Have the node called at this time, if not before."""
        if at_ns < self.wake_at_ns:
            self.wake_at_ns = at_ns

    def ask(self, kind: SlotRequestKind, item: SlotRequest) -> None:
        """Ask the coordinator for a change at the end of this turn; the same request twice is one."""
        self.asks[kind, item.slot, item.node] = item


class NodeContext:
    """The part of a node that all its parts may see.

    Attributes:
        replica: the node's identity: its id and its incarnation.
        timing: durations and bounds; the two leases come from the cluster state.
        state: the newest cluster state that the node knows.
        history: the same with the last differences to it.
        routes: what clients get of it.
        slots: the slots in which the node has, or had, a role, by number.
        rights: until when it may serve.
        outbox: where messages and other effects go.
        journal: the node's journal, None if it keeps none.
        durability: how durable that is, as a word for people.
        now_ns: time of the last input.
        catching_up_until_ns: until then nothing expires, since the process stood still a moment ago and messages that
            arrived meanwhile are still to be read.
    """

    def __init__(self, replica: Replica, timing: Timing, now_ns: int) -> None:
        self.replica = replica
        self.timing = timing
        self.state = ClusterState()
        self.slots: dict[SlotNumber, NodeSlot] = {}
        self.rights = Rights(self.slots)
        self.outbox = NodeOutbox(EventMemory(str(replica.incarnation)))
        self.journal: NodeJournal | None = None
        self.durability = "none"
        self.now_ns = now_ns
        self.catching_up_until_ns = now_ns - 100 * timing.stall_ns  # long ago
        self.history = StateHistory()
        self.routes = RouteBook()

    def news_for(self, peer: Replica, version: Version) -> list[Message]:
        """Return what brings a peer to the newest state that has this version: the differences since, or all of it."""
        member = self.state.members.get(peer.node)
        if member is not None and member.replica == peer and member.differences:
            differences = self.history.differences_since(version)
            if differences is not None:
                return [*differences]
        return [self.history.whole()]
