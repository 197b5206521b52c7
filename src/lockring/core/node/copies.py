"""A node as a copy: it follows primaries, and takes over from those that fall silent.

- It acknowledges what a primary sends; each acknowledgement is a promise not to serve in that primary's place for a
  while (`leases`). The promise counts from when the message came, whenever the acknowledgement leaves: the primary
  counts from when it sent the message.
- If it keeps a journal, a position is acknowledged once the journal has it (`held_acks`).
- As backup it asks for a primary's slots once that is silent, unreachable, or says that it may not serve.
- If it began on a journal, it asks for those of an unreachable primary only when the promises of its former lives are
  nearly over. It could not serve earlier; the primary's next life could, at once, as long as the slots are left to it.
- To a primary that goes on without the newest state it passes that on: it may be cut off from the coordinator.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState, Replica
from lockring.core.node.context import NodeContext
from lockring.core.node.held_acks import HeldAck, HeldAcks
from lockring.core.node.leases import Promises
from lockring.core.node.replicator import Replicator
from lockring.core.timing import ASK_AGAIN_NS, DISTANT_PAST_NS, up
from lockring.ids import SlotNumber, Version
from lockring.protocol import (
    Position,
    Replicate,
    ReplicateAck,
    SlotRequest,
    SlotRequestKind,
    StreamPart,
    Tail,
)
from lockring.slots import SLOTS
from lockring.units import NS_PER_MS

# Bound once, for each message of a primary: compiled code looks an imported name up in a dictionary.
_new_ack: Final = ReplicateAck
_new_position: Final = Position
_tail: Final = Tail

BEHIND_NS: Final = 300 * NS_PER_MS
"""How long a primary may not know the newest state before a copy passes it on: the coordinator is mostly quicker."""

TAKEOVER_LEAD_NS: Final = 400 * NS_PER_MS
"""How long before the end of former lives' promises a backup asks for slots: a write of the store and the news of it
take less, so that nothing waits for them afterwards."""

HEARD_MAX: Final = 1_024
"""Beyond this many remembered lives of peers, those that are not needed any more are forgotten."""


class _Behind(NamedTuple):
    """A primary that goes on without the newest state.

    Attributes:
        since_ns: since when, or when the state was passed on to it.
        was_told: whether it was.
    """

    since_ns: int
    was_told: bool


class Copies:
    """A node's duties as a copy: it follows its primaries, watches over them, and takes over from silent ones.

    Attributes:
        held: acknowledgements that wait for the journal.
    """

    def __init__(self, context: NodeContext, replicator: Replicator, promises: Promises) -> None:
        self._context = context
        self._replicator = replicator
        self._promises = promises
        self._backup_slots: dict[Replica, list[SlotNumber]] = {}
        self._not_serving: dict[Replica, None] = {}
        self._asked_at_ns: dict[Replica, int] = {}
        self._behind: dict[Replica, _Behind] = {}
        self._forget_above = HEARD_MAX
        self.held = HeldAcks()

    def replicated(self, primary: Replica, message: Replicate, now_ns: int) -> None:
        """Follow a primary's news and acknowledge them."""
        context = self._context
        journal, me, states, slots = context.journal, context.replica, context.state.slots, context.slots
        positions: list[Position] = []
        news: list[StreamPart] = []
        hand_overs = self._replicator.hand_overs_to(primary)
        for stream in message.streams:
            number, since, joined = stream.slot, stream.since, stream.joined
            if not 0 <= number < SLOTS:
                continue
            state = states[number]
            copy = state.copy_of(me)
            if copy is None or state.since != since or copy.joined != joined or state.primary != primary:
                continue
            if hand_overs is not None:
                hand_overs.drop(number)
            slot = slots[number]
            if journal is None:
                index = slot.apply(stream, state.base, now_ns)
            elif type(stream) is _tail:  # nearly all are: no call to ask first
                before = slot.content
                index = slot.apply(stream, state.base, now_ns)
                if slot.content is not before:
                    news.append(stream)
            else:
                if slot.takes(stream, state.base):
                    news.append(stream)
                index = slot.apply(stream, state.base, now_ns)
            if index is not None:
                positions.append(_new_position(number, since, joined, index))
        self._promises.acknowledge(primary, now_ns)
        if len(self._promises.heard_at_ns) > self._forget_above:
            self._forget_others(now_ns)
        self._pass_state_on(primary, message.version, now_ns)
        sequence, version = message.sequence, context.state.version
        if journal is None:
            context.outbox.reply(primary, _new_ack(sequence, version, positions))
        else:
            if news:
                journal.parts_came(news)
            awaited = journal.number_of_positions(positions)
            if awaited > journal.next.durable or self.held.has(primary):
                if not news:
                    journal.hurry()
                held = HeldAck(
                    primary, sequence, version, number=awaited, positions=positions, since_ns=now_ns
                )
                self.held.hold(held)
            else:
                context.outbox.reply(primary, _new_ack(sequence, version, positions))
        if message.serving:
            if self._not_serving:
                self._not_serving.pop(primary, None)
        elif primary not in self._not_serving:
            self._not_serving[primary] = None
            self.check_primaries(now_ns)

    def journaled(self) -> None:
        """Acknowledge what is durable."""
        journal, waiting = self._context.journal, self.held
        assert journal is not None
        if waiting.awaits_rewrite and not journal.trouble:
            waiting.recovered(journal.next.durable)
        for held in waiting.take_durable(journal.next.durable):
            self._context.outbox.reply(held.primary, _new_ack(held.sequence, held.version, held.positions))

    def journal_lost(self) -> None:
        """Let all acknowledgements wait until the journal has everything again."""
        self.held.lost()

    def acknowledge_late(self, now_ns: int) -> None:
        """Give leases where positions wait for too long."""
        context = self._context
        if context.journal is None or not self.held.waiting:
            return
        for held in self.held.take_late(context.journal.version, self._backup_lease_ns(), now_ns):
            context.outbox.reply(
                held.primary, ReplicateAck(held.sequence, held.version, [], is_lease_only=True)
            )

    def _pass_state_on(self, primary: Replica, version: Version, now_ns: int) -> None:
        """Pass the newest state to a primary that has gone on without it, so that it learns that its reigns are over.

        Repeated, since a reply is lost with its connection.
        """
        context = self._context
        if version >= context.state.version:
            if self._behind:
                self._behind.pop(primary, None)
            return
        behind = self._behind.setdefault(primary, _Behind(now_ns, False))
        if now_ns - behind.since_ns >= BEHIND_NS:
            # Differences that did not help are not repeated.
            news = [context.history.whole()] if behind.was_told else context.news_for(primary, version)
            self._behind[primary] = _Behind(now_ns, True)
            for message in news:
                context.outbox.reply(primary, message)

    def check_primaries(self, now_ns: int) -> None:
        """Ask, as backup, for the slots of every primary that is silent or unable to serve."""
        context, grace_ns = self._context, self._context.timing.takeover_link_grace_ns
        silent_ns = up(self._backup_lease_ns())
        could_serve = self._could_serve_soon(now_ns)
        for primary, numbers in self._backup_slots.items():
            silence_ns = now_ns - self._promises.heard_at_ns.get(primary, now_ns)
            gone = could_serve and self._replicator.is_down(primary, grace_ns, now_ns)
            if not (
                silence_ns > silent_ns or (gone and silence_ns > grace_ns) or primary in self._not_serving
            ):
                continue
            if now_ns - self._asked_at_ns.get(primary, DISTANT_PAST_NS) < ASK_AGAIN_NS:
                continue
            self._asked_at_ns[primary] = now_ns
            me = context.replica
            for number in numbers:
                state = context.state.slots[number]
                assert state.backup is not None
                item = SlotRequest(number, state.epoch, me.node, me.incarnation, state.backup.joined)
                context.outbox.ask(SlotRequestKind.TAKEOVER, item)

    def _could_serve_soon(self, now_ns: int) -> bool:
        """Return whether the promises of former lives are over, or nearly so."""
        context = self._context
        if context.journal is None:
            return True
        promised_until_ns = context.journal.former.promised_until_ns(context.state.backup_lease_ms)
        return now_ns >= promised_until_ns - TAKEOVER_LEAD_NS

    def learned(self, state: ClusterState, now_ns: int) -> None:
        """Update, by a new state, the primaries that this node backs up. A new one counts as just heard from."""
        me = self._context.replica
        heard = self._promises.heard_at_ns
        backups: dict[Replica, list[SlotNumber]] = {}
        for number in self._context.slots:
            slot = state.slots[number]
            if slot.primary is not None and slot.backup is not None and slot.backup.replica == me:
                backups.setdefault(slot.primary, []).append(number)
        for primary in backups:
            if primary not in self._backup_slots:
                heard[primary] = max(now_ns, heard.get(primary, now_ns))
        self._backup_slots = backups
        self._forget_others(now_ns)

    def _forget_others(self, now_ns: int) -> None:
        """Forget lives that are not members and have no slot that this node is the backup of."""
        heard, state = self._promises.heard_at_ns, self._context.state
        for known in [
            each for each in heard if each not in self._backup_slots and not state.is_current(each)
        ]:
            self._promises.forget(known, now_ns, self._backup_lease_ns())
            self._not_serving.pop(known, None)
            self._asked_at_ns.pop(known, None)
            self._behind.pop(known, None)
            self.held.forget(known)
        self._forget_above = max(HEARD_MAX, 2 * len(heard))

    def _backup_lease_ns(self) -> int:
        return self._context.state.backup_lease_ms * NS_PER_MS
