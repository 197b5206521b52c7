"""Rules about locks that are shared, and about watching them; see `mutants`."""

from __future__ import annotations

import msgspec

from lockring.core import client as client_core
from lockring.core import watching
from lockring.core.asking import Request
from lockring.core.client_effects import Update
from lockring.core.lock_table import LockTable
from lockring.core.locks import Holder, Lock, Waiter
from lockring.core.node_watching import Watched, Watching
from lockring.messages import Changed, Mode, Put
from lockring.views import Event, LockInfo
from tests.sim.switches import Change, mutant


@mutant
def shared_beside_one_alone() -> list[Change]:
    """Who wants to share a lock is let in whoever holds it."""
    admits = Lock.admits

    def changed(self: Lock, mode: int, permits: int) -> bool:
        return mode == Mode.SHARED or admits(self, mode, permits)

    return [(Lock, "admits", changed)]


@mutant
def alone_beside_shared() -> list[Change]:
    """Who wants a lock alone is let in where its holders only share it."""
    admits = Lock.admits

    def changed(self: Lock, mode: int, permits: int) -> bool:
        return self.mode == Mode.SHARED or admits(self, mode, permits)

    return [(Lock, "admits", changed)]


@mutant
def mode_not_copied() -> list[Change]:
    """A copy takes every holder for one that shares its lock."""
    put = LockTable.put

    def changed(self: LockTable, mutation: Put, now_ns: int) -> Holder:
        if not self.served:
            mutation = msgspec.structs.replace(mutation, mode=Mode.SHARED)
        return put(self, mutation, now_ns)

    return [(LockTable, "put", changed)]


@mutant
def watch_begun_again() -> list[Change]:
    """A client does not say that it has missed something where it had to begin a watch again."""

    def changed(watch: Request, message: Changed) -> Update:
        watch.begun_again = False
        return watching.update_of(watch, message)

    return [(client_core, "update_of", changed)]


@mutant
def watch_last_only() -> list[Change]:
    """A node tells only the last of the things that happened to a watched lock in one turn."""
    add = Watching._add

    def changed(self: Watching, watched: Watched, kind: Event, entry: Holder | Waiter, why: str) -> None:
        watched.events = []
        add(self, watched, kind, entry, why)

    return [(Watching, "_add", changed)]


@mutant
def watch_forgets_tokens() -> list[Change]:
    """A node that tells of a free lock tells nothing of the tokens that it has had."""
    describe = LockTable.describe

    def changed(self: LockTable, name: str, primary: str, now_ns: int, *, expired: bool = False) -> LockInfo:
        lock = describe(self, name, primary, now_ns, expired=expired)
        if not lock.holders:
            lock.generation = lock.seq = 0
        return lock

    return [(LockTable, "describe", changed)]


@mutant
def watch_overflow() -> list[Change]:
    """A node does not say that more has happened to a watched lock than it has kept."""
    add = Watching._add

    def changed(self: Watching, watched: Watched, kind: Event, entry: Holder | Waiter, why: str) -> None:
        add(self, watched, kind, entry, why)
        watched.gap = False

    return [(Watching, "_add", changed)]
