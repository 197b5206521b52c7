"""Rules about shared locks, and about watching."""

from __future__ import annotations

import msgspec

from lockring.core.client import Query, Update
from lockring.core.client import inbox as client_inbox
from lockring.core.client.watches import apply_notice
from lockring.core.node.lock_events import LockEvents
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import LockEntry, LockHolder, LockWaiter
from lockring.ids import NO_GENERATION
from lockring.protocol import LockEventKind, LockRecord, Mode, Put, WatchNotice
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def shared_beside_one_alone() -> list[Change]:
    """A client that wants to share a lock is let in even if another one holds it alone."""
    admits = LockEntry.admits

    def changed(self: LockEntry, mode: int, permits: int) -> bool:
        return mode == Mode.SHARED or admits(self, mode, permits)

    return [(LockEntry, "admits", changed)]


@drill
def drill_shared_beside_one_alone() -> None:
    """A lock is held alone when others come who want to share it."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (alone,) = cluster.hold(one, cluster.name)
    sharing = [other.take(cluster.name, ttl_ms=TTL_MS, shared=True) for _ in range(2)]
    cluster.run(1)
    cluster.let_go(one, alone)
    cluster.wait(lambda: all(task.outcome == "held" for task in sharing), 1)


@mutant
def alone_beside_shared() -> list[Change]:
    """A client that wants a lock alone is let in where its holders only share it."""
    admits = LockEntry.admits

    def changed(self: LockEntry, mode: int, permits: int) -> bool:
        return self.mode == Mode.SHARED or admits(self, mode, permits)

    return [(LockEntry, "admits", changed)]


@drill
def drill_alone_beside_shared() -> None:
    """A lock is shared by two when another client comes that wants it alone."""
    cluster = Scenario(clients=3)
    cluster.trust_nothing_inside()
    one, two, other = cluster.simulation.clients
    sharing = [client.take(cluster.name, ttl_ms=TTL_MS, shared=True) for client in (one, two)]
    cluster.wait(lambda: all(task.outcome == "held" for task in sharing), 1)
    alone = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    cluster.let_go(one, sharing[0])
    cluster.run(1)
    cluster.let_go(two, sharing[1])
    cluster.wait(lambda: alone.outcome == "held", 1)


@mutant
def mode_not_copied() -> list[Change]:
    """A copy takes every holder for one that shares its lock."""
    put = LockTable.put

    def changed(self: LockTable, mutation: Put, now_ns: int) -> LockHolder:
        if not self.served:
            mutation = msgspec.structs.replace(mutation, mode=Mode.SHARED)
        return put(self, mutation, now_ns)

    return [(LockTable, "put", changed)]


@drill
def drill_mode_not_copied() -> None:
    """The primary dies while one holds the lock alone, and others want to share it."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (alone,) = cluster.hold(one, cluster.name)
    cluster.crash(cluster.primary())
    sharing = other.take(cluster.name, ttl_ms=TTL_MS, shared=True)
    cluster.run(6)
    cluster.let_go(one, alone)
    cluster.wait(lambda: sharing.outcome == "held", 5)


@mutant
def watch_begun_again() -> list[Change]:
    """A client reports no gap where it had to restart a watch."""

    def changed(watch: Query, message: WatchNotice) -> Update:
        watch.restarted = False
        return apply_notice(watch, message)

    return [(client_inbox, "apply_notice", changed)]


@drill
def drill_watch_begun_again() -> None:
    """A watcher loses its connection, and the lock is acquired before there is another one."""
    cluster = Scenario()
    watcher, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    cluster.run(1)
    primary = cluster.primary()
    cluster.cut(watcher, primary, 60)
    cluster.break_connections(watcher, primary)
    (held,) = cluster.hold(other, cluster.name)
    cluster.mend(watcher, primary)
    cluster.wait(lambda: watcher.watches[cluster.name].gaps == 1, 10)
    cluster.let_go(other, held)
    cluster.run(1)
    cluster.demand(
        watcher.watches[cluster.name].gaps == 1, "WATCH", "there is a gap where nothing was missed"
    )


@mutant
def watch_last_only() -> list[Change]:
    """A node tells only the last of the things that happened to a watched lock in one turn."""
    add = LockEvents.add

    def changed(
        self: LockEvents, kind: LockEventKind, entry: LockHolder | LockWaiter, reason: str = ""
    ) -> None:
        self.watched[entry.lock.name].events = []
        add(self, kind, entry, reason)

    return [(LockEvents, "add", changed)]


@drill
def drill_watch_last_only() -> None:
    """One releases what another waits for, so that two things happen in one turn."""
    cluster = Scenario(clients=3)
    watcher, one, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    (held,) = cluster.hold(one, cluster.name)
    waiting = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.let_go(one, held)
    cluster.wait(lambda: waiting.outcome == "held", 1)
    cluster.run(0.5)
    seen = watcher.watches[cluster.name]
    cluster.demand(seen.gaps == 0, "WATCH", "there is a gap where nothing was missed")


@mutant
def watch_forgets_tokens() -> list[Change]:
    """A node that reports a free lock leaves out the tokens that it has had."""
    describe = LockTable.describe

    def changed(
        self: LockTable, name: str, primary: str, now_ns: int, *, expired: bool = False
    ) -> LockRecord:
        lock = describe(self, name, primary, now_ns, expired=expired)
        if not lock.holders:
            lock.generation, lock.seq = NO_GENERATION, 0
        return lock

    return [(LockTable, "describe", changed)]


@drill
def drill_watch_forgets_tokens() -> None:
    """A watched lock is taken, and given up again."""
    cluster = Scenario()
    watcher, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    (held,) = cluster.hold(other, cluster.name)
    cluster.run(0.5)
    cluster.let_go(other, held)
    cluster.run(0.5)


@mutant
def watch_overflow() -> list[Change]:
    """A node does not say that more has happened to a watched lock than it has kept."""
    add = LockEvents.add

    def changed(
        self: LockEvents, kind: LockEventKind, entry: LockHolder | LockWaiter, reason: str = ""
    ) -> None:
        add(self, kind, entry, reason)
        self.watched[entry.lock.name].gap = False

    return [(LockEvents, "add", changed)]


@drill
def drill_watch_overflow() -> None:
    """More happens to a watched lock than is kept, while its primary may not report it."""
    cluster = Scenario()
    watcher, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    cluster.run(1)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.silence(backup, primary, 60)
    cluster.silence(primary, cluster.coordinator, 60)  # it cannot ask to do without its backup
    cluster.wait(lambda: not cluster.serves(primary), 5)
    with cluster.few_events_kept():
        for _ in range(4):
            other.take(cluster.name, ttl_ms=TTL_MS)
        cluster.run(0.5)
        cluster.unsilence(primary, cluster.coordinator)
        cluster.wait(lambda: cluster.serves(primary), 10)
        cluster.run(1)
    cluster.demand(watcher.watches[cluster.name].gaps > 0, "WATCH", "nothing says that something was missed")
