"""The move of a cluster's state from one store to another, through a file, while no coordinator runs.

Nodes go on for the coordinator lease in the meantime: coordinators that are started on the new store within it find
every lock held. The rules:

- *No coordinator has the store*, neither the old one nor the new one. A directory is locked; a shared store shows those
  that lead or stand by. The import itself leads while it writes.
- *The state keeps its version*, since nodes have seen it. A node that has seen a higher one shows the new coordinator
  that the file was old.
- *A file may be old.* Once the coordinator lease has passed since the export, no lock that was held then can be held
  still, but the cluster may have gone on elsewhere. Then the placement of the slots counts for nothing, and the next
  start waits for earlier leases, unless an operator declares that no coordinator has run since. The placement also
  counts for nothing where the new store has a newer state of the same cluster.
- *The old store bears a mark.* It is written once the file is there, in place of exactly the state that the file has.
  Every coordinator refuses a store with it: one that is left there makes no second cluster. The mark keeps the state,
  so that an export can be repeated. An import into the old store takes the mark away: the same file undoes the move,
  and a newer one moves the cluster back.
- *Nothing falls.* A state that replaces another one of the same cluster has a higher version, and its slots begin above
  the generations of both.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lockring.cluster_state import ClusterState, Relocation
from lockring.core.coordinator import VERSION_MAX, forgotten
from lockring.core.election import Candidate
from lockring.core.timing import up
from lockring.errors import ConfigError, StoreError
from lockring.ids import NO_VERSION, TermId, Version
from lockring.random_ids import new_id
from lockring.server.settings import StorePlaceSettings
from lockring.store.base import SharedStore, Store
from lockring.store.export_file import Export
from lockring.store.sqlite import DATABASE_NAME, SqliteStore
from lockring.store.urls import open_store
from lockring.units import NS_PER_S, ms_to_ns

_LEAD_MS: Final = 10_000
"""How long an export or import leads at most. It resigns when it has written."""

_COPY: Final = (
    "try again, or export with --copy, which leaves no mark: then start no coordinator on this store again"
)


class ImportOutcome(NamedTuple):
    """The outcome of an import.

    Attributes:
        state: the state that the store has now.
        place: the store, for people.
        replaced: the state that it had, None if there was none.
        is_unchanged: whether it had the state of the file already.
        why_forgotten: a sentence on why the placement of the slots counts for nothing; "" if it counts.
        overruled: what the mark said that `force` has taken away, as a sentence for people; "" if there was none.
    """

    state: ClusterState
    place: str
    replaced: ClusterState | None
    is_unchanged: bool
    why_forgotten: str
    overruled: str = ""


def copy_state(settings: StorePlaceSettings, *, wall_ns: int) -> Export:
    """Read the state from a store that no coordinator uses, and change nothing.

    Args:
        settings: name the store.
        wall_ns: the wall clock, in nanoseconds.

    Raises:
        ConfigError: the settings name no store.
        StoreError: the store cannot be used, a coordinator uses it, or it has no state.
    """
    with _opened_for_export(settings) as (store, place):
        return _exported(store, place, wall_ns)


def export_state(
    settings: StorePlaceSettings, keep: Callable[[Export], None], *, target: str, wall_ns: int
) -> Export:
    """Take the state out of a store that no coordinator uses: keep it elsewhere, and mark the store.

    Args:
        settings: name the store.
        keep: writes the state durably where it is kept; its errors are passed on, and leave the store as it was.
        target: that place, for people.
        wall_ns: the wall clock, in nanoseconds.

    Raises:
        ConfigError: the settings name no store.
        StoreError: the store cannot be used, a coordinator uses it, it has no state, or it cannot be marked; what was
            kept is then no move.
    """
    with _opened_for_export(settings) as (store, place):
        export = _exported(store, place, wall_ns)
        if export.is_move:
            keep(export)
            return export
        export = export._replace(is_move=True)
        version = export.state.version
        account = f"on {_date_of(wall_ns)} its state was moved into {target}, by {socket.gethostname()}"
        try:
            with _leading(store, place) as term:
                keep(export)
                marked = msgspec.structs.replace(
                    export.state,
                    version=Version(version + 1),
                    term=term,
                    relocation=Relocation(version, wall_ns, account),
                )
                is_marked = store.write(version, marked)
        except StoreError as error:
            raise StoreError(f"the state cannot be moved: {error}; {_COPY}") from error
        if not is_marked:
            raise _was_written(place)
        return export


def _exported(store: Store, place: str, wall_ns: int) -> Export:
    state = store.read()
    if state is None:
        raise StoreError(
            f"there is no state in {place}: name the store that the cluster's coordinators had, with --data-dir or --store"
        )
    relocation = state.relocation
    if relocation is None:
        return Export(msgspec.structs.replace(state, farewell=None), wall_ns, place)
    # The cluster may have gone on elsewhere since then.
    state = msgspec.structs.replace(state, farewell=None, relocation=None, version=relocation.version)
    return Export(state, relocation.at_wall_ns, place, is_move=True)


@contextlib.contextmanager
def _opened_for_export(settings: StorePlaceSettings) -> Iterator[tuple[Store, str]]:
    if settings.data_dir is not None and not (Path(settings.data_dir) / DATABASE_NAME).exists():
        raise StoreError(
            f"there is no state in {settings.data_dir}: it has no {DATABASE_NAME}; the directory of a running server is in its"
            " log"
        )
    with _opened(settings) as opened:
        yield opened


def import_state(
    settings: StorePlaceSettings, export: Export, *, force: bool, as_left: bool = False, wall_ns: int
) -> ImportOutcome:
    """Write an exported state into a store that no coordinator uses.

    Args:
        settings: name the store.
        export: the state.
        force: whether to replace another state that the store has.
        as_left: whether it is certain that no coordinator has run since the export.
        wall_ns: the wall clock, in nanoseconds.

    Raises:
        ConfigError: the settings name no store.
        StoreError: the store cannot be used, a coordinator uses it, it has another state and `force` is not given, or
            it is unknown whether it has taken the state.
    """
    if as_left:
        export = export._replace(exported_at_ns=wall_ns)
    with _opened(settings) as (store, place):
        present = store.read()
        if present is not None and _is_same(present, export.state) and not _is_old(export, wall_ns):
            return ImportOutcome(present, place, present, is_unchanged=True, why_forgotten="")
        if present is not None and not force and not _comes_back(present, export.state):
            if present.relocation is not None:
                raise StoreError(
                    f"{place} was left: {present.relocation.account}. If no coordinator has run on another store since,"
                    " --force undoes that; otherwise there would be two clusters"
                )
            raise StoreError(
                f"{place} has a state already, of {described(present)}; name another store, or replace that state with --force:"
                " it is then lost"
            )
        state, why_forgotten = merged(export, present, wall_ns=wall_ns)
        with _leading(store, place) as term:
            state = msgspec.structs.replace(state, term=term)
            expected = NO_VERSION if present is None else present.version
            if not store.write(expected, state):
                raise _was_written(place)
        overruled = ""
        if present is not None and present.relocation is not None:
            overruled = present.relocation.account if force else ""
            present = None if present.cluster == state.cluster else present  # it was in the file
        return ImportOutcome(
            state, place, present, is_unchanged=False, why_forgotten=why_forgotten, overruled=overruled
        )


def merged(export: Export, present: ClusterState | None, *, wall_ns: int) -> tuple[ClusterState, str]:
    """Return the state to write, and why the placement of its slots counts for nothing, "" if it counts.

    Args:
        export: the state to import.
        present: the state that it replaces, None if there is none.
        wall_ns: the wall clock, in nanoseconds.
    """
    state = export.state
    if present is not None and present.cluster != state.cluster:
        present = None
    why = ""
    is_undone = (
        present is not None and present.relocation is not None and present.relocation.version == state.version
    )
    if present is not None and present.version >= state.version and not is_undone:
        why = "the store had a newer state of the same cluster"
    elif _is_old(export, wall_ns):
        why = (
            f"the export is not of the last {state.coordinator_lease_ms / 1_000:g} s (the coordinator lease), and without"
            " --as-left the cluster may have gone on since"
        )
    if not why:
        # Above the mark, since the version of a store only rises.
        version = state.version if present is None else max(state.version, Version(present.version + 1))
        return msgspec.structs.replace(state, version=version), ""
    # A version is also the time of a change, for people: slots that wait do so from now on.
    version = Version(
        max(
            min(wall_ns, VERSION_MAX),
            1 + max(state.version, NO_VERSION if present is None else present.version),
        )
    )
    slots = [forgotten(slot, version) for slot in state.slots]
    if present is not None:
        slots = [
            max(slot, forgotten(other, version), key=lambda each: each.generation_below)
            for slot, other in zip(slots, present.slots, strict=True)
        ]
    # Slots that all wait for earlier leases make up for whatever was lost.
    return msgspec.structs.replace(state, version=version, slots=tuple(slots), skipped=()), why


def described(state: ClusterState) -> str:
    """Return the cluster of a state in a few words."""
    members = ", ".join(sorted(state.members)) or "without members"
    return f"cluster {state.cluster} ({members}), version {state.version}"


def _comes_back(present: ClusterState, state: ClusterState) -> bool:
    """Return whether a store that the cluster has left gets a newer state of it."""
    return (
        present.relocation is not None
        and present.cluster == state.cluster
        and state.version > present.version
    )


def _date_of(wall_ns: int) -> str:
    return f"{datetime.fromtimestamp(wall_ns // NS_PER_S, UTC):%Y-%m-%d at %H:%M:%S} UTC"


def _was_written(place: str) -> StoreError:
    return StoreError(
        f"{place} was written by another process meanwhile; stop every coordinator, and try again"
    )


def _is_old(export: Export, wall_ns: int) -> bool:
    """Return whether no lock that was held at an export can be held still, or its time is not to be relied on."""
    return abs(wall_ns - export.exported_at_ns) > up(ms_to_ns(export.state.coordinator_lease_ms))


def _is_same(present: ClusterState, state: ClusterState) -> bool:
    """Return whether a store has a state already: as it was exported, or as an earlier import of it wrote it."""
    return (
        present.cluster == state.cluster
        and present.version == state.version
        and present.slots == state.slots
        and present.members == state.members
    )


@contextlib.contextmanager
def _opened(settings: StorePlaceSettings) -> Iterator[tuple[Store, str]]:
    """Open a store that no coordinator uses, and close it at the end; yields its name for people too."""
    if settings.store:
        shared = open_store(settings.store)
        with contextlib.closing(shared):
            _check_unused(shared)
            yield shared, shared.place
    elif settings.data_dir is not None:
        store = SqliteStore(settings.data_dir)
        with contextlib.closing(store):
            yield store, store.place
    else:
        raise ConfigError("name the store: --data-dir DIR for a directory, or --store URL for a database")


def _check_unused(store: SharedStore) -> None:
    """Check that no coordinator leads or stands by.

    Raises:
        StoreError: one does.
    """
    election = store.election()
    found = [each for each in (election.leader, *election.standbys) if each is not None]
    present = list(dict.fromkeys(each.address for each in found))
    if present:
        names = ", ".join(present)
        verb = "uses" if len(present) == 1 else "use"
        raise StoreError(
            f"{store.place} is in use: a coordinator at {names} {verb} it; stop every coordinator first. One that was killed"
            " counts for a few seconds more"
        )


@contextlib.contextmanager
def _leading(store: Store, place: str) -> Iterator[TermId]:
    """Lead a shared store, so that no coordinator begins meanwhile; yields the term."""
    candidate = Candidate(TermId(new_id()), f"{socket.gethostname()}:0")
    if not isinstance(store, SharedStore):
        yield candidate.term
        return
    try:
        election = store.campaign(candidate, _LEAD_MS)
        if election.leader != candidate:
            where = "" if election.leader is None else f" at {election.leader.address}"
            raise StoreError(f"{place} is in use: a coordinator{where} has begun to lead; stop it first")
        yield candidate.term
    finally:
        # A lead that is not given up ends with its time.
        with contextlib.suppress(StoreError):
            store.resign(candidate.term)
