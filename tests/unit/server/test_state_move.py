"""The move of a state between stores: what it keeps, what it refuses, and when the placement counts for nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Copy, Farewell, Member, Replica, SlotState
from lockring.core.coordinator import check_state
from lockring.errors import ConfigError, StoreError
from lockring.server.settings import StorePlaceSettings
from lockring.server.state_move import copy_state, export_state, import_state, merged
from lockring.slots import SLOTS
from lockring.store.export_file import Export, decode_export, encode_export
from lockring.store.sqlite import DATABASE_NAME, MARK_NAME, SqliteStore
from lockring.units import NS_PER_S

V = 1_800_000_000_000_000_000
NOW = V + 3_600 * NS_PER_S
A, B = Replica("a", 1), Replica("b", 7)
SLOT = SlotState(V, V - 5, 7, A, Copy(B, V - 5), None, 1_000, 5_000)
STATE = ClusterState(
    cluster="c1",
    version=V,
    term="t",
    members={
        each.replica.node: each
        for each in (Member(A, "h:1", condition="active"), Member(B, "h:2", condition="active"))
    },
    slots=(SLOT,) * SLOTS,
    coordinator="h:9500",
    farewell=Farewell("boot", 1, 1, 1, V),
    skipped=((V - 90, V - 40),),
)
OTHERS = msgspec.structs.replace(STATE, cluster="c2", version=V + 50)


def directory(path: Path, state: ClusterState | None = None) -> StorePlaceSettings:
    """A place with a state, as a coordinator that was stopped leaves it."""
    if state is not None:
        store = SqliteStore(path)
        assert store.write(0, state)
        store.close()
    return StorePlaceSettings(data_dir=str(path))


def stored(path: Path) -> ClusterState:
    store = SqliteStore(path)
    state = store.read()
    store.close()
    assert state is not None
    return state


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return copy_state(directory(tmp_path / "old", STATE), wall_ns=NOW)


def is_placed_as_before(state: ClusterState) -> bool:
    return state.slots == STATE.slots


def is_forgotten(state: ClusterState) -> bool:
    check_state(state)
    assert state.skipped == (), "slots that all wait make up for what was lost"
    return all(slot.primary is None and slot.since == state.version for slot in state.slots)


# --------------------------------------------------------------------------- export


def test_an_export_has_all_but_the_farewell_and_leaves_the_store_as_it_was(
    tmp_path: Path, export: Export
) -> None:
    assert export.state == msgspec.structs.replace(STATE, farewell=None)
    assert export.source == f"SQLite ({tmp_path / 'old'})"
    assert stored(tmp_path / "old") == STATE


def test_a_store_that_went_back_shows_it_after_a_move_too(tmp_path: Path) -> None:
    exported = export_state(directory(tmp_path / "old", STATE), lambda export: None, target="f", wall_ns=NOW)
    carried = decode_export(encode_export(exported))
    import_state(directory(tmp_path / "new"), carried, force=False, wall_ns=NOW)
    assert stored(tmp_path / "new").has_skipped(V - 60)


def test_there_is_nothing_to_export_where_there_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no state in .*missing"):
        copy_state(directory(tmp_path / "missing"), wall_ns=NOW)
    assert not (tmp_path / "missing").exists()
    SqliteStore(tmp_path / "empty").close()
    with pytest.raises(StoreError, match=r"there is no state in .*empty.* with --data-dir or --store"):
        copy_state(directory(tmp_path / "empty"), wall_ns=NOW)


def test_a_directory_in_use_is_neither_exported_nor_imported(tmp_path: Path, export: Export) -> None:
    coordinator = SqliteStore(tmp_path / "new")
    with pytest.raises(StoreError, match="in use by another coordinator"):
        import_state(directory(tmp_path / "new"), export, force=True, wall_ns=NOW)
    assert coordinator.write(0, STATE)
    with pytest.raises(StoreError, match="in use by another coordinator"):
        copy_state(directory(tmp_path / "new"), wall_ns=NOW)
    coordinator.close()


def test_a_store_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"--data-dir DIR .* or --store URL"):
        copy_state(StorePlaceSettings(), wall_ns=NOW)
    with pytest.raises(ConfigError, match="contradicts"):
        StorePlaceSettings(data_dir="d", store="etcd://h")


def test_a_look_at_a_copy_does_not_make_it_the_store_that_was_left_there(
    tmp_path: Path, export: Export
) -> None:
    """Else a farewell in a backup that was put back would be trusted: the cluster may have gone on since."""
    place = tmp_path / "old"
    assert (place / MARK_NAME).exists()
    data = (place / DATABASE_NAME).read_bytes()
    (place / DATABASE_NAME).unlink()
    (place / DATABASE_NAME).write_bytes(data)
    copy_state(directory(place), wall_ns=NOW)
    store = SqliteStore(place)
    assert not store.is_as_left
    store.close()


# --------------------------------------------------------------------------- the mark of a move


def moved(tmp_path: Path) -> Export:
    """Move a cluster's state out of the directory `left`."""
    kept: list[Export] = []
    export = export_state(
        directory(tmp_path / "left", STATE), kept.append, target="the file /x.json", wall_ns=NOW
    )
    assert kept == [export]
    return export


def test_a_move_leaves_a_mark_in_the_old_store_and_the_state_beside_it(tmp_path: Path) -> None:
    export = moved(tmp_path)
    assert export.is_move
    assert export.state == msgspec.structs.replace(STATE, farewell=None)
    left = stored(tmp_path / "left")
    assert left.version == V + 1
    assert left.relocation is not None
    assert left.relocation.version == V
    assert (
        "2027-01-15 at 09:00:00 UTC its state was moved into the file /x.json, by " in left.relocation.account
    )


def test_a_move_that_is_repeated_gives_the_state_as_it_was_moved_first(tmp_path: Path) -> None:
    """The cluster may have gone on elsewhere since, so the file is as old as the first one."""
    first = moved(tmp_path)
    left = stored(tmp_path / "left")
    late_ns = NOW + 60 * NS_PER_S
    again = export_state(directory(tmp_path / "left"), lambda _: None, target="y", wall_ns=late_ns)
    for found in (again, copy_state(directory(tmp_path / "left"), wall_ns=late_ns)):
        assert found.exported_at_ns == NOW
        assert found.is_move
        assert msgspec.structs.replace(found.state, term=first.state.term) == first.state
    assert stored(tmp_path / "left") == left


def test_a_store_whose_state_could_not_be_kept_elsewhere_is_not_left(tmp_path: Path) -> None:
    def fail(export: Export) -> None:
        raise StoreError("no space left on device")

    with pytest.raises(StoreError, match="no space left on device"):
        export_state(directory(tmp_path / "left", STATE), fail, target="x", wall_ns=NOW)
    assert stored(tmp_path / "left") == STATE


def test_the_file_of_a_move_undoes_it_on_demand_only(tmp_path: Path) -> None:
    export, place = moved(tmp_path), directory(tmp_path / "left")
    with pytest.raises(StoreError, match=r"was left: on 2027-01-15 .*--force undoes that"):
        import_state(place, export, force=False, wall_ns=NOW)
    outcome = import_state(place, export, force=True, wall_ns=NOW + 20 * NS_PER_S)
    assert (outcome.replaced, outcome.why_forgotten) == (None, "")
    state = stored(tmp_path / "left")
    assert state.relocation is None
    assert state.version == V + 2, "the version of a store only rises"
    assert is_placed_as_before(state)


def test_a_move_that_is_undone_late_keeps_no_placement(tmp_path: Path) -> None:
    export = moved(tmp_path)
    outcome = import_state(directory(tmp_path / "left"), export, force=True, wall_ns=NOW + 60 * NS_PER_S)
    assert "may have gone on since" in outcome.why_forgotten
    assert is_forgotten(outcome.state)


def test_a_cluster_moves_back_into_a_store_that_it_has_left(tmp_path: Path) -> None:
    export = moved(tmp_path)
    newer = export._replace(state=msgspec.structs.replace(export.state, version=V + 100))
    outcome = import_state(directory(tmp_path / "left"), newer, force=False, wall_ns=NOW)
    assert (outcome.replaced, outcome.why_forgotten) == (None, "")
    assert stored(tmp_path / "left").relocation is None
    assert is_placed_as_before(outcome.state)


# --------------------------------------------------------------------------- import


def test_an_import_keeps_the_version_and_the_placement(tmp_path: Path, export: Export) -> None:
    outcome = import_state(directory(tmp_path / "new"), export, force=False, wall_ns=NOW + 20 * NS_PER_S)
    assert (outcome.replaced, outcome.is_unchanged, outcome.why_forgotten) == (None, False, "")
    state = stored(tmp_path / "new")
    assert state == outcome.state
    assert state.term not in ("", STATE.term), "no coordinator of the old store is a leader here"
    assert msgspec.structs.replace(state, term=STATE.term) == export.state


def test_an_import_that_is_repeated_changes_nothing(tmp_path: Path, export: Export) -> None:
    place = directory(tmp_path / "new")
    first = import_state(place, export, force=False, wall_ns=NOW)
    again = import_state(place, export, force=True, wall_ns=NOW)
    assert again.is_unchanged
    assert stored(tmp_path / "new") == first.state


def test_another_state_is_replaced_on_demand_only(tmp_path: Path, export: Export) -> None:
    place = directory(tmp_path / "new", OTHERS)
    with pytest.raises(StoreError, match=r"has a state already, of cluster c2 \(a, b\).*--force"):
        import_state(place, export, force=False, wall_ns=NOW)
    assert stored(tmp_path / "new") == OTHERS
    outcome = import_state(place, export, force=True, wall_ns=NOW)
    assert outcome.replaced == OTHERS
    assert is_placed_as_before(stored(tmp_path / "new"))


def test_an_older_state_of_the_same_cluster_gives_way_without_a_wait(tmp_path: Path, export: Export) -> None:
    older = msgspec.structs.replace(STATE, version=V - 1, slots=(SlotState(),) * SLOTS)
    outcome = import_state(directory(tmp_path / "new", older), export, force=True, wall_ns=NOW)
    assert outcome.why_forgotten == ""
    assert outcome.state.version == V
    assert is_placed_as_before(outcome.state)


def test_a_newer_state_of_the_same_cluster_is_never_set_back(tmp_path: Path, export: Export) -> None:
    """Neither the version nor a token falls, and no node serves by what the newer state may have changed."""
    high = msgspec.structs.replace(SLOT, generation_below=9_000)
    newer = msgspec.structs.replace(STATE, version=V + 30, slots=(high, *(SLOT,) * (SLOTS - 1)))
    outcome = import_state(directory(tmp_path / "new", newer), export, force=True, wall_ns=NOW)
    state = stored(tmp_path / "new")
    assert "newer state of the same cluster" in outcome.why_forgotten
    assert state.version > newer.version
    assert is_forgotten(state)
    assert (state.slots[0].generation_from, state.slots[1].generation_from) == (9_000, 5_000)


@pytest.mark.parametrize("late_s", [-3_600, -32, 32, 86_400])
def test_an_export_that_may_be_older_than_its_cluster_keeps_no_placement(export: Export, late_s: int) -> None:
    state, why = merged(export, None, wall_ns=NOW + late_s * NS_PER_S)
    assert "may have gone on since" in why
    assert state.version == max(STATE.version + 1, NOW + late_s * NS_PER_S), "people read it as a time"
    assert is_forgotten(state)
    assert all(slot.generation_from == SLOT.generation_below for slot in state.slots)


@pytest.mark.parametrize("late_s", [-29, 0, 29])
def test_an_export_of_the_last_lease_keeps_its_placement(export: Export, late_s: int) -> None:
    state, why = merged(export, None, wall_ns=NOW + late_s * NS_PER_S)
    assert why == ""
    assert is_placed_as_before(state)


def test_an_old_export_is_not_taken_for_what_the_store_has_already(tmp_path: Path, export: Export) -> None:
    place = directory(tmp_path / "old")
    with pytest.raises(StoreError, match="has a state already"):
        import_state(place, export, force=False, wall_ns=NOW + 3_600 * NS_PER_S)
    outcome = import_state(place, export, force=True, wall_ns=NOW + 3_600 * NS_PER_S)
    assert is_forgotten(outcome.state)


def test_an_operator_may_declare_that_the_cluster_has_not_gone_on(tmp_path: Path, export: Export) -> None:
    """Nodes with data directories then find their slots, and need not wait."""
    late_ns = NOW + 3_600 * NS_PER_S
    outcome = import_state(directory(tmp_path / "new"), export, force=False, as_left=True, wall_ns=late_ns)
    assert outcome.why_forgotten == ""
    assert is_placed_as_before(stored(tmp_path / "new"))


def test_such_a_word_does_not_outweigh_a_newer_state(tmp_path: Path, export: Export) -> None:
    newer = msgspec.structs.replace(STATE, version=V + 30)
    place = directory(tmp_path / "new", newer)
    outcome = import_state(place, export, force=True, as_left=True, wall_ns=NOW)
    assert is_forgotten(outcome.state)
