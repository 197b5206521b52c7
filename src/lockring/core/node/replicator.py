"""A node as primary: its links to peers, its streams to copies, and what it asks of the coordinator about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockring.cluster_state import ClusterState, Copy, Replica, SlotState
from lockring.core.node.reign import (
    NEARLY_IN_SYNC,
    STREAMS_PER_MESSAGE,
    CopyStream,
    PeerLink,
    Reign,
)
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import ASK_AGAIN_NS, DISTANT_PAST_NS
from lockring.protocol import (
    HandOver,
    Replicate,
    ReplicateAck,
    SlotRequest,
    SlotRequestKind,
    Snapshot,
    State,
    StreamPart,
)
from lockring.units import NS_PER_MS

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore

FIRST_CONTACT_NS = 2_000 * NS_PER_MS
"""How long a peer that was never reached yet may take, from when it is to be a copy."""


class Replicator:
    """All links of a node."""

    def __init__(self, node: NodeCore) -> None:
        self._node = node
        self.links: dict[Replica, PeerLink] = {}
        self._learners: dict[int, None] = {}
        self._needed: dict[Replica, int] | None = None
        self._in_sync_at_ns = DISTANT_PAST_NS

    # ------------------------------------------------------------------ connections

    def connected(self, peer: Replica, now_ns: int) -> None:
        """Our connection to the peer stands."""
        self._link(peer, now_ns).connected()

    def disconnected(self, peer: Replica, now_ns: int) -> None:
        """Our connection to the peer is gone."""
        link = self.links.get(peer)
        if link is not None:
            link.disconnected(now_ns)

    def is_down(self, peer: Replica, for_ns: int, now_ns: int) -> bool:
        """Whether our connection to a peer has been down for that long."""
        link = self.links.get(peer)
        return link is not None and not link.up and now_ns - link.down_since_ns > for_ns

    def learned(self, state: ClusterState) -> None:
        """The node knows a newer state: count acknowledgements set aside for it, forget links of no use."""
        self._needed = None
        for peer in list(self.links):
            link = self.links[peer]
            link.lease.learned(state.version)
            if not link.up and not link.streams and not link.hand_overs and not state.is_current(peer):
                del self.links[peer]

    def _link(self, peer: Replica, now_ns: int) -> PeerLink:
        link = self.links.get(peer)
        if link is None:
            link = self.links[peer] = PeerLink(peer, now_ns)
        return link

    # ------------------------------------------------------------------ copies

    def set_copies(self, data: NodeSlot, state: SlotState, now_ns: int) -> None:
        """Replicate a slot to the copies that the state names, and to no others."""
        reign = data.reign
        assert reign is not None
        copies: dict[Replica, tuple[Copy, bool]] = {}
        if state.backup is not None:
            copies[state.backup.replica] = (state.backup, True)
        if state.learner is not None:
            copies[state.learner.replica] = (state.learner, False)
            self._learners[data.number] = None
        else:
            self._learners.pop(data.number, None)
        for peer, stream in list(reign.streams.items()):
            if peer not in copies or copies[peer][0] != stream.copy:
                del reign.streams[peer]
                stream.link.close(data.number)
        for peer, (copy, is_backup) in copies.items():
            there = reign.streams.get(peer)
            if there is None:
                link = self._link(peer, now_ns)
                there = CopyStream(copy, link, resumable=copy.joined == reign.since, required=is_backup)
                reign.streams[peer] = there
                link.open(data.number, there)
            there.required = there.required or is_backup
        reign.trim()
        self._needed = None

    def close_streams(self, reign: Reign) -> None:
        """A reign ends: replicate no more."""
        for stream in reign.streams.values():
            stream.link.close(reign.table.slot)
        self._learners.pop(reign.table.slot, None)
        self._needed = None

    def has_all_leases(self, now_ns: int) -> bool:
        """Whether every copy that any slot needs gives its lease for the newest reign that needs it."""
        if self._needed is None:
            self._needed = {}
            for data in self._node.slots.values():
                if data.reign is not None:
                    for peer, stream in data.reign.streams.items():
                        if stream.required:
                            self._needed[peer] = max(self._needed.get(peer, 0), data.reign.since)
        for peer, since in self._needed.items():
            lease = self.links[peer].lease
            if lease.until_ns <= now_ns or lease.version < since:
                return False
        return True

    # ------------------------------------------------------------------ sending

    def deadline_before_ns(self, at_ns: int) -> int:
        """When what could wait a little must leave, or `at_ns` if that is earlier."""
        for link in self.links.values():
            if link.up and link.dirty and link.send_by_ns < at_ns:
                at_ns = link.send_by_ns
        return at_ns

    def replicate(self, now_ns: int) -> None:
        """Send every copy its news, and a heartbeat where one is due."""
        for link in self.links.values():
            if not link.up:
                continue
            if link.hand_overs_due:
                ends = [link.hand_overs[slot] for slot in link.hand_overs_due if slot in link.hand_overs]
                link.hand_overs_due = {}
                if ends:
                    self._node.send(link.peer, HandOver(self._node.state.version, ends))
            while link.is_due(now_ns):
                streams, cost, started = self._news(link, now_ns)
                if not streams:
                    break
                self._send(link, streams, cost, started, now_ns)
            if link.streams and now_ns >= link.heartbeat_at_ns:
                self._send(link, [], 0, [], now_ns)

    def _news(self, link: PeerLink, now_ns: int) -> tuple[list[StreamPart], int, list[CopyStream]]:
        streams: list[StreamPart] = []
        started: list[CopyStream] = []
        cost = 0
        link.urgent = False
        while link.starting and link.has_room(cost) and len(streams) < STREAMS_PER_MESSAGE:
            slot = next(iter(link.starting))
            stream = link.streams[slot]
            piece = self._reign(slot).start_of(stream, now_ns)
            streams.append(piece)
            started.append(stream)
            cost += 1 + len(piece.holders) if isinstance(piece, Snapshot) else 1
            if not stream.parts:
                del link.starting[slot]
                link.dirty[slot] = None
                link.urgent = True
        for slot in list(link.dirty)[: STREAMS_PER_MESSAGE - len(streams)]:
            del link.dirty[slot]
            stream = link.streams[slot]
            if stream.must_start():
                continue
            reign = self._reign(slot)
            tail = reign.tail_of(stream)
            if tail is not None:
                streams.append(tail)
                if stream.sent != reign.index:
                    link.dirty[slot] = None
        if link.dirty:
            link.urgent = True
        return streams, cost, started

    def _send(
        self, link: PeerLink, streams: list[StreamPart], cost: int, started: list[CopyStream], now_ns: int
    ) -> None:
        node = self._node
        sequence = link.sent.sent(now_ns)
        for stream in started:
            stream.started = sequence
        link.spend(sequence, cost)
        link.heartbeat_at_ns = now_ns + min(
            node.timing.peer_heartbeat_ns, node.state.backup_lease_ms * NS_PER_MS // 4
        )
        serving = node.coordinator_lease_left_ns(now_ns) > 0
        node.send(link.peer, Replicate(sequence, node.state.version, serving, streams))

    def _reign(self, slot: int) -> Reign:
        reign = self._node.slots[slot].reign
        assert reign is not None
        return reign

    # ------------------------------------------------------------------ acknowledgements

    def acknowledged(self, peer: Replica, message: ReplicateAck, now_ns: int) -> None:
        """A copy has heard us: that is its lease, and where its tables are."""
        node = self._node
        link = self.links.get(peer)
        sent_at_ns = None if link is None else link.sent.take(message.sequence)
        if link is None or sent_at_ns is None:
            return
        lease_ns = node.state.backup_lease_ms * NS_PER_MS
        link.lease.acknowledged(sent_at_ns + lease_ns, message.version, node.state.version)
        link.acknowledged(message.sequence)
        for slot, since, joined, index in message.positions:
            data = node.slots.get(slot)
            reign = None if data is None else data.reign
            stream = None if reign is None else reign.streams.get(peer)
            if reign is None or stream is None or reign.since != since or stream.copy.joined != joined:
                continue
            if message.sequence < stream.started or index > reign.index:
                continue
            if index < 0:
                stream.refused()
                link.starting[slot] = None
                continue
            stream.acknowledged(index)
            reign.trim()
            if slot in self._learners:
                self._check_learner(slot, reign, now_ns)
        if message.version < node.state.version:
            self._pass_state(link, message.sequence)

    def _pass_state(self, link: PeerLink, sequence: int) -> None:
        """The peer does not know the newest state: send it, and again what it could not understand without."""
        version = self._node.state.version
        if link.state_sent < version and link.up:
            link.state_sent = version
            link.state_sent_after = link.sent.sequence
            self._node.send(link.peer, State(self._node.encoded_state()))
        if sequence <= link.state_sent_after:
            link.restart_unknown(sequence)

    def _check_learner(self, slot: int, reign: Reign, now_ns: int) -> None:
        """A learner that has nearly caught up becomes required; once it has what there was then, it is in sync."""
        state = self._node.state.slots[slot]
        learner = state.learner
        stream = None if learner is None else reign.streams.get(learner.replica)
        if learner is None or stream is None or stream.acked is None:
            return
        lease = stream.link.lease
        if lease.until_ns <= now_ns or lease.version < reign.since:
            return
        if not stream.required:
            if reign.index - stream.acked > NEARLY_IN_SYNC:
                return
            stream.required = True
            stream.required_from = reign.index
            self._needed = None
        if stream.acked >= stream.required_from:
            self._node.ask(SlotRequestKind.IN_SYNC, _item(slot, state, learner))

    # ------------------------------------------------------------------ copies that fall silent

    def check_copies(self, now_ns: int) -> None:
        """Ask to do without copies that do not answer, and again for learners that are in sync."""
        timing = self._node.timing
        lease_ns = self._node.state.backup_lease_ms * NS_PER_MS
        for link in self.links.values():
            if not link.streams or now_ns - link.asked_at_ns < ASK_AGAIN_NS:
                continue
            never = link.lease.until_ns == DISTANT_PAST_NS
            grace_ns = FIRST_CONTACT_NS if never else timing.link_grace_ns
            down = not link.up and now_ns - link.down_since_ns > grace_ns
            silent = not never and link.lease.until_ns - now_ns < lease_ns // 3
            for slot, stream in link.streams.items():
                reign = self._reign(slot)
                reigning_ns = now_ns - reign.started_ns
                deaf = reigning_ns > lease_ns and (never or link.lease.version < reign.since)
                if (down and reigning_ns > grace_ns) or (stream.required and (silent or deaf)):
                    link.asked_at_ns = now_ns
                    self._node.ask(
                        SlotRequestKind.DROP, _item(slot, self._node.state.slots[slot], stream.copy)
                    )
        if self._learners and now_ns - self._in_sync_at_ns >= ASK_AGAIN_NS:
            self._in_sync_at_ns = now_ns
            for slot in self._learners:
                self._check_learner(slot, self._reign(slot), now_ns)

    # ------------------------------------------------------------------ hand-overs

    def hand_over(self, reign: Reign, successor: Replica, now_ns: int) -> None:
        """Our reign is over: its successor is told how it ended, until its own is heard of."""
        end = reign.hand_over(successor)
        if end is not None:
            link = self._link(successor, now_ns)
            link.hand_overs[end.slot] = end
            link.hand_overs_due[end.slot] = None

    def hand_over_done(self, successor: Replica, slot: int) -> None:
        """The successor's own reign was heard of."""
        link = self.links.get(successor)
        if link is not None and link.hand_overs:
            link.hand_overs.pop(slot, None)

    def forget_hand_overs(self, slot: int) -> None:
        """The slot has a new reign: what we had to tell of an earlier one is out of date."""
        for link in self.links.values():
            if link.hand_overs:
                link.hand_overs.pop(slot, None)
                link.hand_overs_due.pop(slot, None)

    def check_invariants(self) -> None:
        """Assert that links and reigns name the same streams."""
        carried = 0
        slots = self._node.slots
        for peer, link in self.links.items():
            streams, starting = link.streams, link.starting
            carried += len(streams)
            for slot, stream in streams.items():
                reign = slots[slot].reign
                assert reign is not None
                assert reign.streams[peer] is stream
                assert slot in starting or not stream.must_start()
            assert streams.keys() >= starting.keys()
            assert streams.keys() >= link.dirty.keys()
        assert carried == sum(len(data.reign.streams) for data in slots.values() if data.reign is not None)


def _item(slot: int, state: SlotState, copy: Copy) -> SlotRequest:
    return SlotRequest(slot, state.epoch, copy.replica.node, copy.replica.incarnation, copy.joined)
