"""Differences of cluster states: they lead where they say, or they are refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.cluster_state import ClusterState, Copy, Farewell, Member, Relocation, Replica, SlotState
from lockring.core.state_differences import apply_difference, content_of, difference_of, digest_of
from lockring.errors import ProtocolError
from lockring.ids import Version
from lockring.protocol import StateDifference
from lockring.slots import SLOTS

numbers = st.integers(min_value=0, max_value=40) | st.integers(min_value=0, max_value=2**62)
replicas = st.builds(Replica, node=st.sampled_from(["n1", "n2", "n3", "a.b-c_d"]), incarnation=numbers)
copies = st.builds(Copy, replica=replicas, joined=numbers)
slot_states = st.builds(
    SlotState,
    epoch=numbers,
    since=numbers,
    base=numbers,
    primary=st.none() | replicas,
    backup=st.none() | copies,
    learner=st.none() | copies,
    generation_from=numbers,
    generation_below=numbers,
)
members = st.builds(
    Member,
    replica=replicas,
    address=st.sampled_from(["127.0.0.1:9501", "[::1]:9502"]),
    weight=st.integers(min_value=1, max_value=100),
    condition=st.sampled_from(["joining", "active", "draining"]),
    differences=st.booleans(),
)
farewells = st.builds(
    Farewell, boot=st.text(max_size=3), until_ns=numbers, at_ns=numbers, at_wall_ns=numbers, version=numbers
)
relocations = st.builds(Relocation, version=numbers, at_wall_ns=numbers, account=st.text(max_size=3))


@st.composite
def cluster_states(draw: st.DrawFn) -> ClusterState:
    different = draw(st.lists(slot_states, min_size=1, max_size=8))
    step = draw(st.integers(min_value=1, max_value=97))
    return ClusterState(
        cluster=draw(st.text(max_size=4)),
        version=draw(numbers),
        term=draw(st.text(max_size=4)),
        members={member.replica.node: member for member in draw(st.lists(members, max_size=4))},
        slots=tuple(different[slot * step % len(different)] for slot in range(SLOTS)),
        replication=draw(st.sampled_from(["sync", "async"])),
        backup_lease_ms=draw(numbers),
        coordinator_lease_ms=draw(numbers),
        coordinator=draw(st.text(max_size=4)),
        farewell=draw(st.none() | farewells),
        skipped=tuple(draw(st.lists(st.tuples(numbers, numbers), max_size=3))),
        relocation=draw(st.none() | relocations),
    )


def changed(state: ClusterState, draw: st.DrawFn) -> ClusterState:
    """A later state in which some slots, members and durations are others, and all the rest the same objects."""
    slots = list(state.slots)
    for number in draw(st.lists(st.integers(min_value=0, max_value=SLOTS - 1), max_size=6)):
        old = slots[number]
        slots[number] = draw(
            slot_states
            | st.just(msgspec.structs.replace(old, epoch=state.version + 1, backup=old.learner, learner=None))
            | st.just(msgspec.structs.replace(old, generation_below=old.generation_below + 1_000_000))
        )
    known = {node: each for node, each in state.members.items() if draw(st.booleans())}
    known |= {member.replica.node: member for member in draw(st.lists(members, max_size=2))}
    return msgspec.structs.replace(
        state, version=Version(state.version + 1), slots=tuple(slots), members=known
    )


@given(cluster_states(), cluster_states())
def test_a_difference_leads_from_any_state_to_any_other(before: ClusterState, after: ClusterState) -> None:
    made = difference_of(before, after, content_of(before))
    assert made.content == content_of(after)
    applied = apply_difference(before, content_of(before), made.message)
    assert applied.state == after
    assert applied.content == made.content
    assert applied.changed == [n for n in range(SLOTS) if before.slots[n] != after.slots[n]]


@given(st.data())
def test_differences_in_a_row_lead_to_the_last_state_and_to_its_digest(data: st.DataObject) -> None:
    here = there = data.draw(cluster_states())
    content = content = content_of(here)
    for _ in range(data.draw(st.integers(min_value=1, max_value=5))):
        following = changed(here, data.draw)
        message, made = difference_of(here, following, content)
        there, content, _ = apply_difference(
            there, content, msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=StateDifference)
        )
        here = following
        assert content == made
    assert there == here
    assert content == content_of(here)


def slots_of(count: int, version: int) -> tuple[SlotState, ...]:
    """A placement on so many nodes, as it was made by one version."""
    lives = [Replica(f"node-{number}", 1_700_000_000_000_000 + number) for number in range(count)]
    return tuple(
        SlotState(
            epoch=version,
            since=version,
            base=version,
            primary=lives[number % count],
            backup=Copy(lives[(number + 1 + number // count) % count], version),
            generation_from=version // 1000,
            generation_below=version // 1000 + 1_000_000,
        )
        for number in range(SLOTS)
    )


VERSION = 1_800_000_000_000_000_000
LARGE = ClusterState(cluster="c" * 16, version=VERSION, term="t" * 16, slots=slots_of(1_000, VERSION))
NEW = Copy(Replica("new", 1_800_000_000_000_000), Version(VERSION + 9))
TWO_SLOTS = tuple(
    msgspec.structs.replace(slot, epoch=VERSION + 9, learner=NEW, generation_below=5)
    if number in (7, 4_000)
    else slot
    for number, slot in enumerate(LARGE.slots)
)
LATER = msgspec.structs.replace(LARGE, version=VERSION + 9, slots=TWO_SLOTS)
CONTENT = content_of(LARGE)


def test_a_difference_of_two_slots_takes_some_dozens_of_bytes_whatever_the_size_of_the_state() -> None:
    message, _ = difference_of(LARGE, LATER, CONTENT)
    assert len(msgspec.msgpack.encode(message)) < 120


def test_all_slots_get_a_learner_in_a_few_bytes_each() -> None:
    learner = Copy(Replica("new", 1), Version(VERSION + 9))
    slots = tuple([msgspec.structs.replace(slot, epoch=VERSION + 9, learner=learner) for slot in LARGE.slots])
    later = msgspec.structs.replace(LARGE, version=VERSION + 9, slots=slots)
    message, _ = difference_of(LARGE, later, CONTENT)
    assert len(msgspec.msgpack.encode(message)) < 3 * SLOTS
    assert apply_difference(LARGE, CONTENT, message).state == later


def test_equal_new_slots_come_back_as_one_object() -> None:
    empty = ClusterState()
    later = msgspec.structs.replace(empty, version=1, slots=(SlotState(epoch=1),) * SLOTS)
    message, _ = difference_of(empty, later, content_of(empty))
    assert len({id(slot) for slot in apply_difference(empty, content_of(empty), message).state.slots}) == 1


def test_what_does_not_change_stays_the_same_object() -> None:
    message, _ = difference_of(LARGE, LATER, CONTENT)
    after = apply_difference(LARGE, CONTENT, message).state
    assert [n for n in range(SLOTS) if after.slots[n] is not LARGE.slots[n]] == [7, 4_000]
    assert after.members is LARGE.members


def test_a_difference_is_refused_on_any_other_version() -> None:
    message, _ = difference_of(LARGE, LATER, CONTENT)
    with pytest.raises(
        ProtocolError, match=f"from version {VERSION} does not apply to version {VERSION + 9}"
    ):
        apply_difference(LATER, content_of(LATER), message)


def test_a_difference_is_refused_on_another_state_of_the_same_version() -> None:
    message, _ = difference_of(LARGE, LATER, CONTENT)
    swapped = (LARGE.slots[1], LARGE.slots[0], *LARGE.slots[2:])
    other = msgspec.structs.replace(LARGE, slots=swapped)
    with pytest.raises(ProtocolError, match="leads to another state"):
        apply_difference(other, content_of(other), message)


@given(st.data())
def test_random_damage_is_an_error_and_never_another_state(data: st.DataObject) -> None:
    message, _ = difference_of(LARGE, LATER, CONTENT)
    change = bytearray(message.change)
    for _ in range(data.draw(st.integers(min_value=1, max_value=3))):
        place = data.draw(st.integers(min_value=0, max_value=len(change) - 1))
        change[place] ^= data.draw(st.integers(min_value=1, max_value=255))
    cut = data.draw(st.integers(min_value=0, max_value=len(change)) | st.just(len(change)))
    damaged = StateDifference(message.base, message.version, message.digest, bytes(change[:cut]))
    if damaged.change != message.change:
        with pytest.raises(ProtocolError):
            apply_difference(LARGE, CONTENT, damaged)


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        apply_difference(LARGE, CONTENT, StateDifference(LARGE.version, LATER.version, 0, garbage))


@pytest.mark.parametrize("field", range(8))
def test_every_part_of_a_difference_is_checked(field: int) -> None:
    message, _ = difference_of(LARGE, LATER, CONTENT)
    fields = msgspec.msgpack.decode(message.change)
    wrong = [
        ["x", "y", "sync", 1, 1, "", None, []],
        ["node-that-is-no-member"],
        [[["n", 1], "a:1", 1, "active"]],
        [6],
        [["other", 1]],
        [[*fields[5][0][:3], -1, *fields[5][0][4:]]],
        b"\x01\x00\x01\x00",
        b"\x05\x00\x05\x00",
    ]
    fields[field] = wrong[field]
    damaged = msgspec.structs.replace(message, change=msgspec.msgpack.encode(fields))
    with pytest.raises(ProtocolError):
        apply_difference(LARGE, CONTENT, damaged)


OTHERWISE = {
    "version": VERSION + 1,
    "cluster": "d",
    "term": "u",
    "members": {"n": Member(Replica("n", 1), "a:1")},
    "slots": (LARGE.slots[1], *LARGE.slots[1:]),
    "replication": "async",
    "backup_lease_ms": 1,
    "coordinator_lease_ms": 1,
    "coordinator": "a:1",
    "skipped": ((1, 2),),
    "farewell": Farewell("b", 1, 1, 1, Version(1)),
    "relocation": Relocation(Version(1), 1, "moved"),
}


@pytest.mark.parametrize("field", ClusterState.__struct_fields__)
def test_a_difference_and_its_digest_cover_each_field_of_a_state(field: str) -> None:
    other = msgspec.structs.replace(LARGE, **{field: OTHERWISE[field]})
    assert digest_of(other, content_of(other)) != digest_of(LARGE, CONTENT)
    later = msgspec.structs.replace(other, version=VERSION + 1)
    message, _ = difference_of(LARGE, later, CONTENT)
    assert apply_difference(LARGE, CONTENT, message).state == later
