"""The file of an exported state: it comes back whole, and anything else is refused with the reason."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.cluster_state import ClusterState, Copy, Farewell, Member, Replica, SlotState
from lockring.errors import StoreError
from lockring.ids import NodeId
from lockring.slots import SLOTS
from lockring.store.export_file import Export, decode_export, encode_export

V = 1_800_000_000_000_000_000
A, B, C = Replica("a", 1_764_000_000_000_001), Replica("b", 7), Replica("c", 9)
AT_NS = 1_764_354_181_093_231_000
KINDS = (
    SlotState(V, V - 5, V - 9, A, Copy(B, V - 4), Copy(C, V), 2**53 - 10, 2**53 - 1),
    SlotState(V - 1, V - 1, 3, B, None, None, 1_000, 2_000_000),
    SlotState(V, V, V, None, None, None, 5, 5),
)
STATE = ClusterState(
    cluster="c1",
    version=V,
    term="t",
    members={
        each.replica.node: each
        for each in (
            Member(A, "h:1", 2, "active", "h:101"),
            Member(B, "[::1]:2", 1, "draining"),
            Member(C, "h:3", 100, "joining"),
        )
    },
    slots=tuple(KINDS[number % 7 % 3] for number in range(SLOTS)),
    replication="async",
    backup_lease_ms=1_500,
    coordinator_lease_ms=12_345,
    coordinator="h:9500",
    skipped=((V - 100, V - 50), (V - 9, V - 8)),
)
EXPORT = Export(STATE, AT_NS, "SQLite (/var/lib/lockring)")
DATA = encode_export(EXPORT)


def changed(**changes: Any) -> bytes:
    """The file with other fields at its top, and the checksum of the original."""
    return json.dumps(json.loads(DATA) | changes).encode()


def resealed(state: ClusterState) -> bytes:
    return encode_export(EXPORT._replace(state=state))


def test_a_state_comes_back_whole() -> None:
    assert decode_export(DATA) == EXPORT


def test_a_farewell_stays_behind() -> None:
    state = msgspec.structs.replace(STATE, farewell=Farewell("boot", 1, 1, 1, V))
    assert decode_export(resealed(state)).state == STATE


def of_format_1(state: ClusterState) -> bytes:
    """The file that the former release writes for a state."""
    content = json.loads(encode_export(EXPORT._replace(state=state))) | {"format_version": 1, "checksum": ""}
    del content["state"]["skipped"]
    line = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return json.dumps(content | {"checksum": f"sha256:{hashlib.sha256(line).hexdigest()}"}).encode()


def test_a_file_of_the_former_format_is_read_and_names_no_skipped_versions() -> None:
    former = msgspec.structs.replace(STATE, skipped=())
    assert decode_export(of_format_1(STATE)).state == former


def test_skipped_versions_belong_to_their_format() -> None:
    content = json.loads(of_format_1(STATE)) | {"format_version": 2, "checksum": ""}
    line = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    sealed = content | {"checksum": f"sha256:{hashlib.sha256(line).hexdigest()}"}
    with pytest.raises(StoreError, match="or are missing"):
        decode_export(json.dumps(sealed).encode())


def test_numbers_that_json_readers_round_are_text() -> None:
    def check(found: object) -> None:
        match found:
            case int():
                assert found <= 2**53
            case dict():
                for each in found.values():
                    check(each)
            case list():
                for each in found:
                    check(each)
            case _:
                pass

    check(json.loads(DATA))


def test_slots_of_one_value_stand_together() -> None:
    state = msgspec.structs.replace(STATE, slots=(KINDS[0],) * 3 + (KINDS[1],) + (KINDS[0],) * (SLOTS - 4))
    slots = json.loads(resealed(state))["state"]["slots"]
    assert [each["numbers"] for each in slots] == ["0-2,4-4095", "3"]
    assert decode_export(resealed(state)).state == state


@given(st.data())
def test_a_changed_byte_is_found_unless_it_means_nothing(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(DATA) - 1))
    byte = data.draw(st.integers(0, 255))
    other = DATA[:place] + bytes([byte]) + DATA[place + 1 :]
    try:
        found = decode_export(other)
    except StoreError:
        return
    assert found == EXPORT  # a blank that became another one


@given(st.integers(0, len(DATA) - 3))
def test_a_file_that_was_cut_is_refused(length: int) -> None:
    with pytest.raises(StoreError):
        decode_export(DATA[:length])


@given(st.binary(max_size=300))
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(StoreError):
        decode_export(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 100_000, "not an export"),
        (changed(format="something else"), "'something else'"),
        (changed(format_version=3), "format version 3, but this release reads 1 to 2"),
        (changed(format_version=0), "format version 0"),
        (resealed(msgspec.structs.replace(STATE, skipped=((1, V + 1),))), "skipped versions are not below"),
        (resealed(msgspec.structs.replace(STATE, skipped=((5, 5),))), "skipped versions are not below"),
        (resealed(msgspec.structs.replace(STATE, skipped=((1, 3),) * 65)), "or too many"),
        (changed(source="elsewhere"), "checksum"),
        (changed(exported_at="2026-11-28T18:05:01.093231+00:00"), "checksum"),
        (changed(exported_at="2026-11-28T18:05:01.093231"), "no offset from UTC"),
        (changed(more=1), "damaged"),
        (resealed(msgspec.structs.replace(STATE, cluster="")), "no cluster"),
        (resealed(msgspec.structs.replace(STATE, version=V - 1)), "contradicts itself"),
        (resealed(msgspec.structs.replace(STATE, slots=STATE.slots[:-1])), "1 of 4096 slots are missing"),
        (resealed(msgspec.structs.replace(STATE, slots=(*STATE.slots, KINDS[1]))), "no slots '4096"),
        (resealed(msgspec.structs.replace(STATE, members={})), "not a member"),
        (
            resealed(msgspec.structs.replace(STATE, members={NodeId("x"): Member(Replica("a b", 1), "h:1")})),
            "invalid node id",
        ),
    ],
)  # fmt: skip
def test_the_reason_is_named(data: bytes, why: str) -> None:
    with pytest.raises(StoreError, match=why.replace("(", r"\(")):
        decode_export(data)
