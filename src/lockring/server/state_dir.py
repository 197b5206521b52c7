"""The place of the cluster's state on a server's machine, and what the server knows of its past.

- A server that knows nothing of its past must not behave as if there were none: locks that it granted may still be
  held. So `serve` and `up` keep a directory by default, named by the port at which clients know them.
- Only three things make a cluster new: a directory that this very start had to make; ports that the system has
  chosen (no client can know an earlier life under them); and a person's word, `--new-cluster`. In all other cases
  the server waits until every earlier lease must have ended.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from lockring.addresses import split_address
from lockring.core.timing import up
from lockring.errors import ExtraMissing, LockringError, StoreError
from lockring.log_events import event
from lockring.server.directory_use import COORDINATOR_PART, others_in, refuse_another_use
from lockring.server.settings import CoordinatorSettings, ServeSettings, UpSettings
from lockring.store.awaited import AwaitedStore
from lockring.store.base import Store
from lockring.store.memory import MemoryStore
from lockring.store.sqlite import DATABASE_NAME, SqliteStore
from lockring.store.urls import await_store
from lockring.system_errors import reason_of
from lockring.units import NS_PER_S

SYSTEMD_VARIABLE: Final = "STATE_DIRECTORY"
"""Set by systemd for a service with `StateDirectory=`: directories, separated by colons."""

_CHOICES: Final = "name another one with --data-dir DIR, or keep no state with --in-memory"


class StatePlace(NamedTuple):
    """The place of the state: `data_dir` is None for memory; `is_new`: there cannot have been an earlier cluster."""

    data_dir: str | None
    is_new: bool


def kept_by_serve(settings: ServeSettings) -> StatePlace:
    """Return where `lockring serve` keeps the state.

    Raises:
        StoreError: none was configured, and the default cannot be used; the text names the choices.
    """
    if settings.data_dir is not None or settings.in_memory:
        return StatePlace(settings.data_dir, settings.new_cluster)
    _, port = split_address(settings.listen)
    name = f"serve-{port}"
    if not port:
        _, port = split_address(settings.coordinator_listen)
        name = f"serve-coordinator-{port}"
    return StatePlace(_default(name), settings.new_cluster) if port else StatePlace(None, True)


def kept_by_up(settings: UpSettings) -> StatePlace:
    """Return where `lockring up` keeps the state.

    Raises:
        StoreError: none was configured, and the default cannot be used; the text names the choices.
    """
    if settings.data_dir is not None or settings.in_memory or settings.store:
        return StatePlace(settings.data_dir, settings.new_cluster)
    return (
        StatePlace(_default(f"up-{settings.port}"), settings.new_cluster)
        if settings.port
        else StatePlace(None, True)
    )


def parts_of_up(data_dir: str) -> Path:
    """Make the directory of `lockring up` if it is missing, and return the one below it that is its coordinator's.

    Each node has one beside it, under its own name. What is found decides what the coordinator finds, and so whether
    the cluster is new: in a directory that was there, only the coordinator's own part can say what came before.

    Raises:
        StoreError: it cannot be made.
    """
    directory = Path(data_dir)
    if (directory / DATABASE_NAME).exists():
        return directory  # made by a release in which the coordinator alone kept anything
    part = directory / COORDINATOR_PART
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700, parents=True)
        elif not part.exists():
            part.mkdir(mode=0o700)  # without it, the store would take the cluster for a new one
    except OSError as error:
        raise StoreError(f"the data directory {directory} cannot be made: {reason_of(error)}") from error
    return part


class OpenStore(NamedTuple):
    """A coordinator's store, and how far it can be trusted.

    Attributes:
        store: keeps the state.
        is_new: whether an empty store means a new cluster, for a reason other than that it was created just now.
        is_as_left: whether it is as its last coordinator left it, as far as can be seen: not changed, and not restored
            from a copy. Of a shared store, that cannot be seen.
        awaited: the same store, if it names a leader among several coordinators; it may not be open yet.
    """

    store: Store
    is_new: bool
    is_as_left: bool
    awaited: AwaitedStore | None = None


def open_store(
    settings: CoordinatorSettings, log: logging.Logger, on_hopeless: Callable[[LockringError], None]
) -> OpenStore:
    """Open the store of a coordinator, and log what it knows of the past. A shared one is opened once it answers.

    Args:
        settings: of the coordinator.
        log: of the coordinator.
        on_hopeless: called in another thread if a shared store turns out to be one that waiting cannot open.

    Raises:
        StoreError: the data directory cannot be used.
    """
    wait_s = up(settings.timing().coordinator_lease_ns) / NS_PER_S
    if settings.store:
        shared = await_store(settings.store, on_hopeless)
        log.info(
            "the cluster's state is in %s, which several coordinators may share",
            shared.place,
            extra=event("state-found", place=shared.place),
        )
        return OpenStore(shared, settings.new_cluster, False, shared)
    if settings.data_dir is None:
        if settings.new_cluster:
            log.info(
                "this is a new cluster: it does not wait for locks of an earlier one",
                extra=event("new-cluster"),
            )
        log.warning(
            "the cluster's state is kept in memory only: after a restart the locks that are held are unknown, so no lock"
            " is granted for %.1f s. To keep the state, name a directory with --data-dir",
            wait_s,
            extra=event("state-not-kept", wait_s=wait_s),
        )
        if not settings.new_cluster:
            _say_that_it_waits(log, "nothing is known of an earlier cluster", wait_s)
        return OpenStore(MemoryStore(), settings.new_cluster, True)
    refuse_another_use(settings.data_dir, "coordinator")
    store = SqliteStore(settings.data_dir)
    try:
        return OpenStore(store, _is_new(store, settings, log, wait_s), store.is_as_left)
    except BaseException:
        store.close()
        raise


def _is_new(store: SqliteStore, settings: CoordinatorSettings, log: logging.Logger, wait_s: float) -> bool:
    stored, where = store.read(), settings.data_dir
    if stored is not None:
        log.info("the cluster's state is in %s", where, extra=event("state-found", place=str(where)))
        if settings.new_cluster:
            log.warning(
                "--new-cluster has no effect: %s holds the state of cluster %s, whose locks may still be held. For a new"
                " cluster, name a directory that does not exist with --data-dir",
                where,
                stored.cluster,
                extra=event("new-cluster-ignored", place=str(where), stored_cluster=stored.cluster),
            )
        return False
    if store.created:
        log.info(
            "the cluster's state is in %s, which is new: a new cluster that does not wait for earlier locks. If this server"
            " replaces one that kept its state elsewhere (a container without a volume), stop it and restore that state with"
            " --data-dir; if that is lost, an existing empty directory makes the server wait for the earlier locks",
            where,
            extra=event("new-cluster", place=str(where)),
        )
        return True
    if settings.new_cluster:
        log.info(
            "the cluster's state is in %s, which was empty: a new cluster, as --new-cluster says",
            where,
            extra=event("new-cluster", place=str(where)),
        )
        return True
    log.info("the cluster's state is in %s", where, extra=event("state-found", place=str(where)))
    others = others_in(str(where))
    content = f"has no cluster state beside {', '.join(others)}" if others else "is empty"
    _say_that_it_waits(log, f"{where} existed before and {content}, so its state may have been lost", wait_s)
    return False


def _say_that_it_waits(log: logging.Logger, why: str, wait_s: float) -> None:
    log.warning(
        "%s: no lock is granted for %.1f s, until all earlier leases have ended. If there was no cluster before, start"
        " this one with --new-cluster",
        why,
        wait_s,
        extra=event("waiting-for-leases", wait_s=wait_s),
    )


def _default(name: str) -> str:
    """Return a directory below the platform's place for state; make its parents, but leave itself to the store."""
    directory = _base() / name
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the default data directory {directory} cannot be made: {reason_of(error)}; {_CHOICES}"
        ) from error
    place = directory if directory.exists() else directory.parent
    if not os.access(place, os.W_OK | os.X_OK):
        raise StoreError(f"the default data directory {directory} cannot be written; {_CHOICES}")
    return str(directory)


def _base() -> Path:
    given = os.environ.get(SYSTEMD_VARIABLE, "").partition(":")[0]
    if given:
        return Path(given)
    try:
        from platformdirs import user_state_path
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"a server needs a package that is not installed ({error.name}): install lockring[server]"
        ) from error

    nowhere = (
        f"there is no default data directory: no home directory and no XDG_STATE_HOME is set; {_CHOICES}"
    )
    try:
        base = user_state_path("lockring", appauthor=False)
    except RuntimeError as error:
        raise StoreError(nowhere) from error
    if not base.is_absolute():  # what earlier releases of the library return instead
        raise StoreError(nowhere)
    return base
