"""The cluster state as bytes, and what clients get of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.cluster_state import (
    ClusterState,
    Copy,
    Member,
    Replica,
    SlotState,
    decode_state,
    encode_state,
    routes_of,
)
from lockring.errors import ProtocolError
from lockring.slots import SLOTS

numbers = st.integers(min_value=0, max_value=2**62)
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
)


@st.composite
def cluster_states(draw: st.DrawFn) -> ClusterState:
    different = draw(st.lists(slot_states, min_size=1, max_size=8))
    step = draw(st.integers(min_value=1, max_value=97))
    return ClusterState(
        cluster=draw(st.text(max_size=10)),
        version=draw(numbers),
        term=draw(st.text(max_size=10)),
        members={member.replica.node: member for member in draw(st.lists(members, max_size=4))},
        slots=tuple(different[slot * step % len(different)] for slot in range(SLOTS)),
        replication=draw(st.sampled_from(["sync", "async"])),
        backup_lease_ms=draw(numbers),
        coordinator_lease_ms=draw(numbers),
        coordinator=draw(st.text(max_size=10)),
        skipped=tuple(draw(st.lists(st.tuples(numbers, numbers), max_size=3))),
    )


@given(cluster_states())
def test_a_state_comes_back_as_it_was_written(state: ClusterState) -> None:
    assert decode_state(encode_state(state)) == state


def test_the_state_before_the_first_has_no_owner_and_version_0() -> None:
    empty = ClusterState()
    assert empty.version == 0
    assert len(empty.slots) == SLOTS
    assert {slot.primary for slot in empty.slots} == {None}
    assert decode_state(encode_state(empty)) == empty


def test_every_slot_may_differ_from_every_other() -> None:
    state = ClusterState(slots=tuple(SlotState(epoch=number) for number in range(SLOTS)))
    assert decode_state(encode_state(state)) == state


def test_equal_slots_are_sent_once_and_come_back_as_one_object() -> None:
    """A state of any size in which few slots differ costs about two bytes per slot."""
    slots = tuple(SlotState(epoch=number % 3, since=9) for number in range(SLOTS))
    data = encode_state(ClusterState(slots=slots))
    assert len(data) < 2 * SLOTS + 300
    back = decode_state(data)
    assert len({id(slot) for slot in back.slots}) == 3


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"garbage", b"\x90", msgspec.msgpack.encode([1, 2, 3]), msgspec.msgpack.encode({"a": 1})],
)
def test_bytes_that_are_not_a_state_are_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="cluster state"):
        decode_state(data)


@given(st.binary(max_size=200))
def test_no_bytes_give_any_other_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_state(data)


@given(cluster_states(), st.data())
def test_a_truncated_state_is_a_protocol_error(state: ClusterState, data: st.DataObject) -> None:
    encoded = encode_state(state)
    with pytest.raises(ProtocolError):
        decode_state(encoded[: data.draw(st.integers(min_value=0, max_value=len(encoded) - 1))])


def _tampered(place: int, value: object) -> bytes:
    fields = msgspec.msgpack.decode(encode_state(ClusterState()))
    fields[place] = value
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (5, b""),  # no slots at all
        (5, b"\x00" * (2 * SLOTS - 1)),  # half a slot
        (5, b"\x00" * (2 * SLOTS - 2)),  # one too few
        (5, b"\x00" * (2 * SLOTS + 2)),  # one too many
        (5, b"\xff" * (2 * SLOTS)),  # a slot that is not in the list
        (4, []),  # the same
        (6, "sometimes"),  # no such replication
        (1, "one"),  # a version that is not a number
    ],
)
def test_a_state_whose_parts_do_not_fit_is_a_protocol_error(place: int, value: object) -> None:
    with pytest.raises(ProtocolError):
        decode_state(_tampered(place, value))


def test_a_state_with_text_that_is_no_utf_8_is_a_protocol_error() -> None:
    """It ended the process: msgspec leaves it to Python's own error, which is none of msgspec's."""
    data = encode_state(ClusterState(cluster="0123456789abcdef"))
    with pytest.raises(ProtocolError):
        decode_state(data.replace(b"0123", b"\xff\xfe\xfd\xfc"))


def test_routes_name_each_slot_s_primary_by_its_place_among_the_members() -> None:
    n1, n2, gone = Replica("n1", 1), Replica("n2", 5), Replica("n2", 4)
    slots = [SlotState()] * SLOTS
    slots[0], slots[1], slots[2] = SlotState(primary=n1), SlotState(primary=n2), SlotState(primary=gone)
    state = ClusterState(
        version=7,
        members={n1.node: Member(n1, "h1:1"), n2.node: Member(n2, "h2:2", condition="draining")},
        slots=tuple(slots),
        coordinator="c:9500",
    )
    routes = routes_of(state)
    assert (routes.version, routes.coordinator) == (7, "c:9500")
    assert routes.members == [("n1", 1, "h1:1"), ("n2", 5, "h2:2")]
    assert len(routes.primaries) == 2 * SLOTS
    assert routes.primaries[:8] == b"\x00\x00\x01\x00\xff\xff\xff\xff", "another life of n2 is no route"


def test_a_life_of_a_node_is_known_by_its_incarnation() -> None:
    now, before = Replica("n1", 2), Replica("n1", 1)
    state = ClusterState(members={now.node: Member(now, "h:1")})
    assert state.is_current(now)
    assert not state.is_current(before)
    assert not state.is_current(Replica("n9", 2))
    assert state.address_of(now) == "h:1"
    assert state.address_of(before) is None
    assert state.address_of(Replica("n9", 2)) is None
    assert str(now) == "n1#2"


def test_a_replica_s_tenure_is_found_as_backup_or_learner() -> None:
    backup, learner = Copy(Replica("n1", 1), joined=3), Copy(Replica("n2", 1), joined=4)
    slot = SlotState(primary=Replica("n3", 1), backup=backup, learner=learner)
    assert slot.copy_of(Replica("n1", 1)) is backup
    assert slot.copy_of(Replica("n2", 1)) is learner
    assert slot.copy_of(Replica("n3", 1)) is None, "the primary is no copy"
    assert slot.copy_of(Replica("n1", 2)) is None, "another life has no tenure"
    assert SlotState().copy_of(Replica("n1", 1)) is None


def test_versions_between_two_states_are_skipped_and_those_of_the_states_are_not() -> None:
    state = ClusterState(skipped=((10, 20), (30, 31)))
    assert [version for version in range(40) if state.has_skipped(version)] == list(range(11, 20))
