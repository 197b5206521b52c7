"""The last words of stopping nodes about their promises, and their use by a coordinator that is started again."""

from __future__ import annotations

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Farewell, Replica, SlotState, decode_state, encode_state
from lockring.core.coordinator.transitions import assigned_empty, forgotten, released
from lockring.core.effects import Send
from lockring.core.farewells import CLOCKS_APART_NS, Farewells, is_release, is_trusted, mark_of
from lockring.core.timing import up
from lockring.protocol import Heartbeat
from lockring.units import NS_PER_MS, NS_PER_S
from tests.unit.core.coordinator.world import WALL_NS, World
from tests.unit.core.node.world import Nodes

A, B = Replica("a", 1), Replica("b", 1)
S = NS_PER_S
SERVED = SlotState(5, 5, 5, A, None, None, 1, 100)
WORD = Farewell("boot", 90 * S, 80 * S, WALL_NS, 20)


def state_of(version: int, **changed: SlotState) -> ClusterState:
    """A state in which A has all slots but those named `s0`, `s1`, …"""
    slots = [SERVED] * 4096
    for name, slot in changed.items():
        slots[int(name[1:])] = slot
    return ClusterState(cluster="c", version=version, slots=tuple(slots))


def freed(version: int, before: ClusterState, *but: int) -> ClusterState:
    """The state after all slots were given up, except some."""
    slots = [slot if n in but else released(slot, version) for n, slot in enumerate(before.slots)]
    return msgspec.structs.replace(before, version=version, slots=tuple(slots))


def marks(state: ClusterState, node: Replica) -> int:
    """The digest of all slots that a node has."""
    digest = 0
    for number, slot in enumerate(state.slots):
        if slot.primary == node:
            digest ^= mark_of(number, slot)
    return digest


def told(farewells: Farewells, node: Replica, released: int, promised_ms: int, now_ns: int = 0) -> None:
    farewells.record_promise(node, Heartbeat(1, 1, released=released, promised_ms=promised_ms), now_ns)


class TestWords:
    def test_a_word_on_all_slots_is_written_down_and_lengthened_for_the_nodes_clock(self) -> None:
        farewells = Farewells("boot")
        before = state_of(10)
        after = freed(20, before)
        farewells.learn(before)
        assert not farewells.is_open
        farewells.learn(after)
        assert farewells.is_open
        assert farewells.word(after, now_ns=S, wall_ns=WALL_NS) is None
        told(farewells, A, marks(before, A), 3_000, now_ns=S)
        word = farewells.word(after, now_ns=2 * S, wall_ns=WALL_NS)
        assert word == Farewell("boot", S + up(3 * S), 2 * S, WALL_NS, 20)
        last = msgspec.structs.replace(after, version=21, farewell=word)
        farewells.learn(last)
        assert not farewells.is_open
        assert farewells.word(last, now_ns=3 * S, wall_ns=WALL_NS) is word
        assert decode_state(encode_state(last)) == last

    def test_a_word_that_lacks_a_slot_or_is_about_another_reign_is_none(self) -> None:
        before = state_of(10, s7=msgspec.structs.replace(SERVED, since=6, epoch=6))
        for digest in (0, marks(before, A) ^ mark_of(7, before.slots[7]), marks(state_of(10), A)):
            farewells = Farewells("boot")
            farewells.learn(before)
            after = freed(20, before)
            farewells.learn(after)
            told(farewells, A, digest, 0)
            assert farewells.word(after, now_ns=S, wall_ns=WALL_NS) is None

    def test_while_any_slot_is_served_or_was_free_before_there_is_no_word(self) -> None:
        free = released(SERVED, 8)
        for before, but in ((state_of(10), 3), (state_of(10, s3=free), 3)):
            farewells = Farewells("boot")
            farewells.learn(before)
            after = freed(20, before, but)
            farewells.learn(after)
            told(farewells, A, marks(before, A), 0)
            told(farewells, A, marks(before, A) ^ mark_of(3, SERVED), 0)
            assert farewells.word(after, now_ns=S, wall_ns=WALL_NS) is None

    def test_all_who_gave_up_slots_must_have_their_say_and_the_longest_counts(self) -> None:
        before = state_of(10, s1=msgspec.structs.replace(SERVED, primary=B))
        after = freed(20, before)
        farewells = Farewells("boot")
        farewells.learn(before)
        farewells.learn(after)
        told(farewells, A, marks(before, A), 100)
        assert farewells.word(after, now_ns=0, wall_ns=WALL_NS) is None
        told(farewells, B, marks(before, B), 9_000)
        word = farewells.word(after, now_ns=0, wall_ns=WALL_NS)
        assert word is not None
        assert word.until_ns == up(9 * S)

    def test_a_slot_that_was_forgotten_with_the_store_was_not_given_up(self) -> None:
        assert is_release(SERVED, released(SERVED, 9))
        assert not is_release(SERVED, forgotten(SERVED, 9))
        assert not is_release(SERVED, assigned_empty(SERVED, 9, B))
        assert not is_release(released(SERVED, 9), released(SERVED, 10))

    def test_without_a_boot_nothing_is_said(self) -> None:
        farewells = Farewells("")
        before = state_of(10)
        after = freed(20, before)
        farewells.learn(before)
        farewells.learn(after)
        told(farewells, A, marks(before, A), 0)
        assert farewells.word(after, now_ns=S, wall_ns=WALL_NS) is None
        assert not farewells.is_open

    @pytest.mark.parametrize(
        ("boot", "passed_ns", "wall_passed_ns", "trusted"),
        [
            ("boot", 0, 0, True),
            ("boot", 5 * S, 5 * S + CLOCKS_APART_NS, True),
            ("boot", 5 * S, 6 * S + CLOCKS_APART_NS, False),
            ("boot", 5 * S, 4 * S - CLOCKS_APART_NS, False),
            ("other", 0, 0, False),
            ("", 0, 0, False),
        ],
    )
    def test_an_instant_counts_in_its_own_boot_and_while_the_clocks_agree(
        self, boot: str, passed_ns: int, wall_passed_ns: int, trusted: bool
    ) -> None:
        now_ns, wall_ns = WORD.at_ns + passed_ns, WORD.at_wall_ns + wall_passed_ns
        assert is_trusted(WORD, boot, now_ns=now_ns, wall_ns=wall_ns) is trusted
        assert not is_trusted(None, boot, now_ns=now_ns, wall_ns=wall_ns)


class TestRestart:
    def stopped(self, promised_ms: int) -> World:
        """A coordinator whose only node has left in order, with a word on its promises."""
        world = World(boot="boot")
        world.cluster("a")
        served = world.state
        world.leave("a", request=0)
        world.run(1)
        assert world.primaries() == {"-": 4096}
        node = world.nodes["a"]
        primary = served.slots[0].primary
        assert primary is not None
        digest = marks(served, primary)
        world.core.receive(
            node.connection,
            Heartbeat(999, world.state.version, released=digest, promised_ms=promised_ms),
            now_ns=world.read_clocks(),
        )
        world.settle()
        assert world.state.farewell is not None
        return world

    def again(self, first: World, **options: object) -> World:
        """The coordinator that is started on that one's store, at the same time."""
        options = {"boot": "boot", "now_ns": first.now_ns, "wall_ns": first.wall_ns, **options}
        second = World(stored=first.stored, term="second", new_cluster=False, **options)  # type: ignore[arg-type]
        second.join("b")
        return second

    def test_nothing_held_means_no_wait(self) -> None:
        second = self.again(self.stopped(0))
        second.run(1.5)
        assert second.primaries() == {"b": 4096}

    def test_what_is_promised_is_waited_for_and_no_longer(self) -> None:
        second = self.again(self.stopped(8_000))
        second.run(7.9)
        assert second.primaries() == {"-": 4096}
        assert 0 < second.core.left_ms(second.now_ns) < 1_000
        second.run(1)
        assert second.primaries() == {"b": 4096}

    @pytest.mark.parametrize("options", [{"boot": "other"}, {"boot": ""}, {"is_as_left": False}])
    def test_otherwise_the_whole_lease_is_waited_for(self, options: dict[str, object]) -> None:
        second = self.again(self.stopped(0), **options)
        assert second.state.farewell is None
        second.run(31)
        assert second.primaries() == {"-": 4096}
        second.run(2)
        assert second.primaries() == {"b": 4096}

    def test_a_word_says_nothing_of_a_later_crash(self) -> None:
        second = self.again(self.stopped(0))
        second.run(1.5)
        third = self.again(second)
        third.run(31)
        assert third.primaries() == {"b": 4096}


class TestNode:
    def given_up(self, nodes: Nodes) -> list[Heartbeat]:
        """Return A's heartbeats when it gives up all its slots and no node takes over."""
        core, before = nodes.cores["A"], nodes.state
        slots = [s if s.primary is None else released(s, before.version + 1) for s in before.slots]
        after = msgspec.structs.replace(before, version=before.version + 1, slots=tuple(slots))
        core.adopt(after, now_ns=nodes.now)
        return [
            each.message
            for each in core.take_effects(now_ns=nodes.now)
            if isinstance(each, Send) and isinstance(each.message, Heartbeat)
        ]

    def test_a_node_says_at_once_what_it_gave_up_and_until_when_its_clients_may_believe(self) -> None:
        nodes = Nodes("A")
        nodes.assign("A")
        nodes.client("A", "one").acquire("x", 1, ttl_ms=9_000)
        nodes.client("A", "waits").acquire("x", 1, ttl_ms=30_000)
        served = nodes.state
        nodes.advance(S)
        [beat] = self.given_up(nodes)
        assert beat.released == marks(served, Replica("A", 1))
        assert beat.version == served.version + 1
        assert up(9 * S) // NS_PER_MS - 1_000 == beat.promised_ms, "a waiter has no promise"

    def test_what_was_released_or_has_run_out_is_not_a_promise(self) -> None:
        nodes = Nodes("A")
        nodes.assign("A")
        client = nodes.client("A", "one")
        client.acquire("x", 1, ttl_ms=9_000)
        client.release("x", 1)
        [beat] = self.given_up(nodes)
        assert beat.promised_ms == 0

    def test_a_slot_whose_reign_had_not_begun_is_missing_in_what_is_said(self) -> None:
        nodes = Nodes("A", "B")
        nodes.assign("B", "A")
        nodes.cut |= {("A", "B"), ("B", "A")}
        nodes.promote("A")  # it waits its promise to B out
        assert self.given_up(nodes) == []
        assert nodes.cores["A"]._roles.released.digest == 0
