"""A node as primary: its links to peers, its streams to copies, and its requests to the coordinator about them."""

from __future__ import annotations

from lockring.cluster_state import ClusterState, Copy, Replica, SlotState
from lockring.core.histograms import NOTED_MAX
from lockring.core.node.context import NodeContext
from lockring.core.node.peer_link import HandOvers, PeerLink, StateSent
from lockring.core.node.peer_news import PeersWithNews
from lockring.core.node.reign import NEARLY_IN_SYNC, STREAMS_PER_MESSAGE, CopyStream, Reign
from lockring.core.node.slot import NodeSlot
from lockring.core.timing import ASK_AGAIN_NS, DISTANT_FUTURE_NS, DISTANT_PAST_NS
from lockring.ids import SequenceNumber, SlotNumber, Version
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

FIRST_CONTACT_NS = 2_000 * NS_PER_MS
"""How long a peer that was never reached may take, from the moment when the state makes it a copy."""


class Replicator:
    """All links of a node.

    Attributes:
        links: by the life of the peer.
        with_news: those with something to be sent.
    """

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self.links: dict[Replica, PeerLink] = {}
        self.with_news = PeersWithNews(context.outbox.wake)
        self._heartbeats_at_ns = DISTANT_PAST_NS
        self._lease_ns = self._heartbeat_ns = 0  # of the state
        self._learners: dict[SlotNumber, None] = {}
        self._in_sync_at_ns = DISTANT_PAST_NS

    # ------------------------------------------------------------------ connections

    def connected(self, peer: Replica, now_ns: int) -> None:
        """Start the streams to a peer on the new connection to it."""
        self._link(peer, now_ns).connected()
        self._heartbeats_at_ns = DISTANT_PAST_NS

    def disconnected(self, peer: Replica, now_ns: int) -> None:
        """Note that the connection to a peer is gone."""
        link = self.links.get(peer)
        if link is not None:
            link.disconnected(now_ns)

    def is_down(self, peer: Replica, for_ns: int, now_ns: int) -> bool:
        """Return whether the connection to a peer has been down for that long."""
        link = self.links.get(peer)
        return link is not None and not link.is_up and now_ns - link.down_since_ns > for_ns

    def learned(self, state: ClusterState) -> None:
        """Count the acknowledgements that were set aside for a newer state, and forget links that it makes useless."""
        self._context.rights.copies_changed()
        self._lease_ns = state.backup_lease_ms * NS_PER_MS
        self._heartbeat_ns = min(self._context.timing.peer_heartbeat_ns, self._lease_ns // 4)
        for peer in list(self.links):
            link = self.links[peer]
            link.lease.learned(state.version)
            if (
                not link.is_up
                and not link.streams
                and not link.hand_overs.by_slot
                and not state.is_current(peer)
            ):
                link.news.taken()
                del self.links[peer]

    def _link(self, peer: Replica, now_ns: int) -> PeerLink:
        link = self.links.get(peer)
        if link is None:
            link = self.links[peer] = PeerLink(peer, self.with_news, now_ns)
        return link

    # ------------------------------------------------------------------ copies

    def set_copies(self, slot: NodeSlot, state: SlotState, now_ns: int) -> None:
        """Replicate a slot to the copies that the state names, and to no others."""
        number, reign = slot.number, slot.reign
        assert reign is not None
        copies: dict[Replica, tuple[Copy, bool]] = {}
        if state.backup is not None:
            copies[state.backup.replica] = (state.backup, True)
        if state.learner is not None:
            copies[state.learner.replica] = (state.learner, False)
            self._learners[number] = None
        else:
            self._learners.pop(number, None)
        for peer, stream in list(reign.streams.items()):
            if peer not in copies or copies[peer][0] != stream.copy:
                del reign.streams[peer]
                self.links[peer].close(number)
        for peer, (copy, is_backup) in copies.items():
            there = reign.streams.get(peer)
            if there is None:
                link = self._link(peer, now_ns)
                there = CopyStream(
                    reign,
                    copy,
                    link.news,
                    link.lease,
                    resumable=copy.joined == reign.since and reign.has_all_mutations,
                    required=is_backup,
                )
                reign.streams[peer] = there
                link.open(number, there)
                self._heartbeats_at_ns = DISTANT_PAST_NS
            there.required = there.required or is_backup
        reign.trim()
        self._context.rights.copies_changed()

    def close_streams(self, reign: Reign) -> None:
        """End the streams of a reign that is over."""
        for peer in reign.streams:
            self.links[peer].close(reign.table.slot)
        self._learners.pop(reign.table.slot, None)
        self._context.rights.copies_changed()

    # ------------------------------------------------------------------ sending

    def deadline_before_ns(self, at_ns: int) -> int:
        """Return when deferred news must leave, or `at_ns` if that is earlier."""
        for news in self.with_news.patient:
            if news.is_up and news.dirty and news.send_by_ns < at_ns:
                at_ns = news.send_by_ns
        return at_ns

    def replicate(self, now_ns: int) -> None:
        """Send every copy its news, and a heartbeat where one is due."""
        peers = self.with_news
        if peers.urgent:
            for news in list(peers.urgent):
                self._send_news(self.links[news.peer], now_ns)
        if peers.patient:
            for news in list(peers.patient):
                if now_ns >= news.send_by_ns:
                    self._send_news(self.links[news.peer], now_ns)
        if now_ns >= self._heartbeats_at_ns:
            self._send_heartbeats(now_ns)

    def _send_news(self, link: PeerLink, now_ns: int) -> None:
        news = link.news
        if news.is_up:
            if link.hand_overs.due:
                ends = link.hand_overs.take_due()
                self._context.outbox.send(link.peer, HandOver(self._context.state.version, ends))
            while news.starting or news.dirty:
                streams, cost, started = self._take_news(link, now_ns)
                if not streams:
                    break
                self._send(link, streams, cost, started, now_ns)
        news.taken()

    def _send_heartbeats(self, now_ns: int) -> None:
        """Send a heartbeat where nothing was sent for long, and note when the next one may be due."""
        soonest_ns = DISTANT_FUTURE_NS
        for link in self.links.values():
            if link.streams and link.is_up:
                if now_ns >= link.heartbeat_at_ns:
                    self._send(link, [], 0, [], now_ns)
                soonest_ns = min(soonest_ns, link.heartbeat_at_ns)
        self._heartbeats_at_ns = soonest_ns

    def _take_news(self, link: PeerLink, now_ns: int) -> tuple[list[StreamPart], int, list[CopyStream]]:
        parts: list[StreamPart] = []
        started: list[CopyStream] = []
        cost = 0
        news = link.news
        while news.starting and link.budget.has_room(cost) and len(parts) < STREAMS_PER_MESSAGE:
            number = next(iter(news.starting))
            stream = link.streams[number]
            part = stream.reign.take_start(stream, now_ns)
            parts.append(part)
            started.append(stream)
            cost += 1 + len(part.holders) if isinstance(part, Snapshot) else 1
            if not stream.parts:
                del news.starting[number]
                news.dirty[number] = None
        dirty = news.dirty
        # The newest first: where a removal goes along with the next grant of its session, the copy would else have
        # nothing of the session in between, forget it, and make it again.
        room = STREAMS_PER_MESSAGE - len(parts)
        for number in list(reversed(dirty))[:room]:
            del dirty[number]
            stream = link.streams[number]
            if stream.sent is None or stream.parts:
                continue  # it is still to be started
            reign = stream.reign
            tail = reign.take_tail(stream)
            if tail is not None:
                parts.append(tail)
                if stream.sent != reign.index:
                    dirty[number] = None
        return parts, cost, started

    def _send(
        self, link: PeerLink, streams: list[StreamPart], cost: int, started: list[CopyStream], now_ns: int
    ) -> None:
        context = self._context
        sequence = link.sent.add(now_ns)
        for stream in started:
            stream.started = sequence
        if cost:
            link.budget.spend(sequence, cost)
        link.heartbeat_at_ns = now_ns + self._heartbeat_ns
        serving = not context.rights.is_coordinator_lease_over(now_ns)
        context.outbox.send(link.peer, Replicate(sequence, context.state.version, serving, streams))

    # ------------------------------------------------------------------ acknowledgements

    def acknowledged(self, peer: Replica, message: ReplicateAck, now_ns: int) -> None:
        """Extend a copy's lease by an acknowledgement, and note how far its tables are."""
        context = self._context
        link = self.links.get(peer)
        sequence = message.sequence
        if link is None:
            return
        version = context.state.version
        if message.is_lease_only:
            sent_at_ns = link.sent.at_ns(sequence)
            if sent_at_ns is not None:
                link.lease.acknowledged(sent_at_ns + self._lease_ns, message.version, version)
                link.budget.acknowledged(sequence)
            return
        sent_at_ns = link.sent.pop(sequence)
        if sent_at_ns is not None:
            link.lease.acknowledged(sent_at_ns + self._lease_ns, message.version, version)
            # Written out, since a call is felt in the time of each replicated grant.
            took = context.outbox.counters.replication
            took.noted.append(now_ns - sent_at_ns)
            if len(took.noted) >= NOTED_MAX:
                took.count_noted()
        elif not link.sent.has_forgotten(sequence):
            return
        # Without a lease too, it says what the copy has, and what it has not understood: nothing says so again.
        link.budget.acknowledged(sequence)
        streams = link.streams
        for position in message.positions:
            # The link has the streams of the present reigns only; one of another reign or tenure is out of date.
            number = position.slot
            stream = streams.get(number)
            if stream is None:
                continue
            reign, index = stream.reign, position.reached
            if reign.since != position.since or stream.copy.joined != position.joined:
                continue
            if sequence < stream.started or index > reign.index:
                continue
            if index < 0:
                stream.refused()
                link.news.start(number)
                continue
            stream.acknowledged(index)
            reign.trim()
            if number in self._learners:
                self._check_learner(number, reign, now_ns)
        if message.version < version:
            self._pass_state(link, sequence, message.version)

    def _pass_state(self, link: PeerLink, sequence: SequenceNumber, version: Version) -> None:
        """Send the newest state to a peer that does not know it, and again what it could not understand without.

        Args:
            link: to the peer.
            sequence: number of the message that the peer has acknowledged.
            version: of the state that it had then.
        """
        context = self._context
        newest, sent = context.state.version, link.state_sent
        # A message behind the differences was acknowledged without them: they did not fit.
        is_astray = not sent.is_whole and sequence > sent.after and version < sent.version
        if link.is_up and (sent.version < newest or is_astray):
            news = [context.history.whole()] if is_astray else context.news_for(link.peer, version)
            link.state_sent = StateSent(newest, link.sent.sequence, is_whole=isinstance(news[0], State))
            for message in news:
                context.outbox.send(link.peer, message)
        if sequence <= link.state_sent.after:
            link.restart_unknown(sequence)

    def _check_learner(self, number: SlotNumber, reign: Reign, now_ns: int) -> None:
        """Require a learner that has nearly caught up, and report it in sync once it has what there was then.

        Required before the coordinator hears of it: else a grant could be answered without it between the coordinator's
        decision and this node's learning of it, and be lost with a takeover by it.
        """
        state = self._context.state.slots[number]
        learner = state.learner
        stream = None if learner is None else reign.streams.get(learner.replica)
        if learner is None or stream is None or stream.acked is None:
            return
        lease = stream.lease
        if lease.until_ns <= now_ns or lease.version < reign.since:
            return
        if not stream.required:
            if reign.index - stream.acked > NEARLY_IN_SYNC:
                return
            stream.required = True
            stream.required_from = reign.index
            self._context.rights.copies_changed()
        if stream.acked >= stream.required_from:
            self._context.outbox.ask(SlotRequestKind.IN_SYNC, _item(number, state, learner))

    # ------------------------------------------------------------------ copies that fall silent

    def check_copies(self, now_ns: int) -> None:
        """Ask to do without copies that do not answer, and again for learners that are in sync."""
        context = self._context
        timing = context.timing
        lease_ns = context.state.backup_lease_ms * NS_PER_MS
        for link in self.links.values():
            if not link.streams or now_ns - link.asked_at_ns < ASK_AGAIN_NS:
                continue
            never = link.lease.until_ns == DISTANT_PAST_NS
            grace_ns = FIRST_CONTACT_NS if never else timing.link_grace_ns
            down = not link.is_up and now_ns - link.down_since_ns > grace_ns
            silent = not never and link.lease.until_ns - now_ns < lease_ns // 3
            for number, stream in link.streams.items():
                reigning_ns = now_ns - stream.reign.started_ns
                deaf = reigning_ns > lease_ns and (never or link.lease.version < stream.reign.since)
                if (down and reigning_ns > grace_ns) or (stream.required and (silent or deaf)):
                    link.asked_at_ns = now_ns
                    item = _item(number, context.state.slots[number], stream.copy)
                    context.outbox.ask(SlotRequestKind.DROP, item)
        if self._learners and now_ns - self._in_sync_at_ns >= ASK_AGAIN_NS:
            self._in_sync_at_ns = now_ns
            for number in self._learners:
                reign = context.slots[number].reign
                assert reign is not None
                self._check_learner(number, reign, now_ns)

    # ------------------------------------------------------------------ hand-overs

    def hand_over(self, reign: Reign, successor: Replica, now_ns: int) -> None:
        """Send the successor in a slot the end of this node's reign, until news of its own reign arrives."""
        end = reign.end_for(successor)
        if end is not None:
            link = self._link(successor, now_ns)
            link.hand_overs.add(end)
            link.news.hurry()

    def hand_overs_to(self, successor: Replica) -> HandOvers | None:
        """Return what is handed over to a successor, until its own reigns are heard of; None for nothing."""
        link = self.links.get(successor)
        return link.hand_overs if link is not None and link.hand_overs.by_slot else None

    def forget_hand_overs(self, number: SlotNumber) -> None:
        """Forget the ends of earlier reigns in a slot that has a new one."""
        for link in self.links.values():
            if link.hand_overs.by_slot:
                link.hand_overs.drop(number)

    def check_invariants(self) -> None:
        """Assert that links and reigns name the same streams."""
        carried = 0
        slots = self._context.slots
        for peer, link in self.links.items():
            streams, starting = link.streams, link.news.starting
            carried += len(streams)
            for number, stream in streams.items():
                reign = slots[number].reign
                assert reign is not None
                assert reign.streams[peer] is stream
                assert stream.reign is reign
                assert number in starting or not stream.must_start()
            assert streams.keys() >= starting.keys()
            assert streams.keys() >= link.news.dirty.keys()
            assert link.news.is_known()
        assert carried == sum(len(slot.reign.streams) for slot in slots.values() if slot.reign is not None)


def _item(number: SlotNumber, state: SlotState, copy: Copy) -> SlotRequest:
    return SlotRequest(number, state.epoch, copy.replica.node, copy.replica.incarnation, copy.joined)
